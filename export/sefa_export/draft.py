"""The first and last step of every export: the baked graph, and its description."""

import copy
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.export import Dim
from torch.utils.flop_counter import FlopCounterMode

from sefa.bank.direction_bank import DirectionBank
from sefa.directions.compatibility import other_checkpoints
from sefa.errors import ArgumentError
from sefa.generators import Generator, check_generator
from sefa_export.bake import EditGraph, bake
from sefa_runtime.editor import as_images
from sefa_runtime.inputs.batches import split
from sefa_runtime.inputs.examples import neutral_inputs, reference_inputs
from sefa_runtime.machine.packages import installed_version
from sefa_runtime.model.card import card_problems
from sefa_runtime.model.class_names import class_name_problems
from sefa_runtime.model.info import FORMAT_VERSION, MAX_FIXED, DirectionInfo, ModelInfo, Parity, Payload
from sefa_runtime.model.signature import Signature
from sefa_runtime.verification import mean_levels
from sefa_runtime.version import VERSION

TOOLS = ("torch", "onnx", "onnxscript", "onnxruntime", "onnxruntime-gpu")
NOT_MEASURED = Parity(max_abs_error=float("inf"), changed_fraction=1.0, images=0, batches=(), edits=())
# Sizes of dynamic axes in example inputs; 1 would be taken for a constant.
EXAMPLE_BATCH, EXAMPLE_EDITS = 3, 2


@dataclass(frozen=True)
class Draft:
    """A graph to export, on the CPU, and its description, without what is measured on the exported file."""

    graph: EditGraph
    info: ModelInfo

    @property
    def signature(self) -> Signature:
        """The graph's inputs and output."""
        return self.info.signature

    def example_inputs(self) -> dict[str, Tensor]:
        """Return inputs for tracing, in the graph's order."""
        signature = self.signature
        edits = EXAMPLE_EDITS if signature.num_edits is None else signature.num_edits
        feeds = neutral_inputs(signature, signature.batch or EXAMPLE_BATCH, edits)
        latent = signature.latent.name
        feeds[latent] = np.random.default_rng(0).standard_normal(feeds[latent].shape, np.float32)
        return {name: torch.from_numpy(value) for name, value in feeds.items()}

    def dynamic_axes(self) -> dict[str, dict[int, str]]:
        """Return the names of the axes without a fixed size, for each input and the output."""
        return {
            spec.name: {index: axis for index, axis in enumerate(self.signature.axes(spec)) if isinstance(axis, str)}
            for spec in (*self.signature.inputs, self.signature.output)
        }

    def dynamic_shapes(self) -> dict[str, dict[int, Dim]]:
        """Return the dynamic axes of the inputs, in torch.export's form."""
        axes = self.dynamic_axes()
        return {name: {index: Dim(axis) for index, axis in axes[name].items()} for name in self.signature.names}

    def describe(self, parity: Parity, payload: Payload | None = None) -> ModelInfo:
        """Return the complete description."""
        reference, macs = _render_reference(self)
        return replace(self.info, parity=parity, payload=payload, reference=reference, macs=macs)


def prepare(
    generator: Generator,
    bank: DirectionBank,
    output_type: str,
    *,
    latent: str,
    truncation: float | None,
    allow_other_checkpoint: bool,
    precision: str = "fp32",
    batch: int | None = None,
    num_edits: int | None = None,
    license: str | None = None,
    note: str | None = None,
) -> Draft:
    """Bake a copy of a generator on the CPU and describe it; the arguments are those of `export_onnx`.

    Raises:
        BankError: If the bank was made for another generator.
        ArgumentError: If an option is unknown or not for this generator, the generator is not in float32, licence or
            note are too long or not printable, or the names of the classes do not fit.
    """
    for name, size, least in (("batch", batch, 1), ("edits", num_edits, 0)):
        if size is not None and not least <= size <= MAX_FIXED:
            raise ArgumentError(f"{name} must be in {least}..{MAX_FIXED}, got {size}")
    check_generator(generator)
    license = generator.license if license is None else license
    note = generator.note if note is None else note
    problems = card_problems(license, note) + class_name_problems(generator.class_names, generator.num_classes)
    if problems:
        raise ArgumentError("; ".join(problems))
    graph = bake(
        generator,
        bank,
        output_type,
        latent=latent,
        truncation=truncation,
        allow_other_checkpoint=allow_other_checkpoint,
    )
    graph = copy.deepcopy(graph).cpu()
    info = _describe(graph, bank, precision, batch, num_edits)
    draft = Draft(graph, replace(info, license=license, note=note))
    assert draft.signature.names == graph.input_names  # `forward` takes the inputs that the generator declares.
    return draft


def _describe(
    graph: EditGraph, bank: DirectionBank, precision: str, batch: int | None, num_edits: int | None
) -> ModelInfo:
    generator = graph.generator
    return ModelInfo(
        format_version=FORMAT_VERSION,
        family=generator.family,
        latent=graph.latent,
        z_dim=generator.z_dim,
        code_dim=generator.code_dim,
        num_layers=generator.num_layers,
        batch=batch,
        num_edits=num_edits,
        resolution=generator.resolution,
        channels=generator.channels,
        output_type=graph.output_type,
        precision=precision,
        num_classes=generator.num_classes,
        class_names=tuple(generator.class_names),
        truncation=graph.truncation,
        code_rms=None if graph.latent == "z" else generator.code_rms(),
        truncation_center=generator.truncation_center,
        noise=generator.noise,
        directions=tuple(
            DirectionInfo(
                name=bank.names[index],
                eigenvalue=float(bank.eigenvalues[index]),
                alpha_range=(float(bank.alpha_range[index, 0]), float(bank.alpha_range[index, 1])),
                edited_layers=tuple(bank.edited_layers[index].nonzero()[:, 0].tolist()),
                analysed_layers=tuple(bank.analysed_layers[index].nonzero()[:, 0].tolist()),
            )
            for index in range(len(bank))
        ),
        method=bank.source.method,
        normalize=bank.source.normalize,
        source_format=generator.checkpoint_format,
        source_sha256=generator.source_sha256,
        payload=None,
        parity=NOT_MEASURED,
        reference=(),
        versions={"sefa": VERSION} | {tool: number for tool in TOOLS if (number := installed_version(tool))},
        source_entry=generator.source_entry,
        assumptions=generator.assumptions,
        bank_sha256=other_checkpoints(bank, generator),
        optional_inputs=generator.optional_inputs,
    )


@torch.no_grad()
def _render_reference(draft: Draft) -> tuple[tuple[tuple[float, ...], ...], int | None]:
    """Return the reference's mean levels, and the multiply-adds of one image in convolutions and matrix products."""
    levels, flops = [], 0
    for single in split(reference_inputs(draft.info), 1):  # A large generator may fit only one image in memory.
        with FlopCounterMode(display=False) as counter:
            image = draft.graph(**{name: torch.from_numpy(value) for name, value in single.items()})
        flops = counter.get_total_flops()
        levels.append(mean_levels(as_images(image.numpy()))[0])
    return tuple(tuple(parts.round(2).tolist()) for parts in levels), flops // 2 or None  # None: operators of its own
