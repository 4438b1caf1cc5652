"""The description that travels inside every exported file."""

from dataclasses import replace

import torch

from sefa.bank.direction_bank import DirectionBank
from sefa.bank.fit import other_checkpoints
from sefa_export.bake import EditGraph
from sefa_export.pinned import Pinned
from sefa_runtime.editor import as_images
from sefa_runtime.inputs.batches import split
from sefa_runtime.inputs.examples import reference_inputs
from sefa_runtime.machine.description import installed_version
from sefa_runtime.model.info import FORMAT_VERSION, DirectionInfo, ModelInfo, Parity, Payload
from sefa_runtime.verification import mean_levels
from sefa_runtime.version import VERSION

TOOLS = ("torch", "onnx", "onnxscript", "onnxruntime", "onnxruntime-gpu")


def describe(
    graph: EditGraph,
    bank: DirectionBank,
    pinned: Pinned,
    parity: Parity,
    precision: str = "fp32",
    payload: Payload | None = None,
) -> ModelInfo:
    """Gather what a caller of the exported graph needs to know."""
    generator = graph.generator
    takes_codes = graph.latent != "z"
    info = ModelInfo(
        format_version=FORMAT_VERSION,
        family=generator.family,
        latent=graph.latent,
        z_dim=generator.z_dim,
        code_dim=generator.code_dim,
        num_layers=generator.num_layers,
        batch=pinned.batch,
        num_edits=pinned.edits,
        resolution=generator.resolution,
        channels=generator.channels,
        output_type=graph.output_type,
        precision=precision,
        num_classes=generator.num_classes,
        truncation=graph.truncation,
        code_rms=generator.code_rms() if takes_codes else None,
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
        payload=payload,
        parity=parity,
        reference=(),
        versions={"sefa": VERSION} | _tool_versions(),
        source_entry=generator.source_entry,
        assumptions=generator.assumptions,
        bank_sha256=other_checkpoints(bank, generator),
    )
    return replace(info, reference=_draw_reference(graph, info))


@torch.no_grad()
def _draw_reference(graph: EditGraph, info: ModelInfo) -> tuple[tuple[float, ...], ...]:
    levels = []
    for single in split(reference_inputs(info), 1):  # A large generator may fit into memory only one by one.
        image = graph(**{name: torch.from_numpy(value) for name, value in single.items()})
        levels.append(mean_levels(as_images(image.numpy()))[0])
    return tuple(tuple(parts.round(2).tolist()) for parts in levels)


def _tool_versions() -> dict[str, str]:
    return {tool: number for tool in TOOLS if (number := installed_version(tool))}
