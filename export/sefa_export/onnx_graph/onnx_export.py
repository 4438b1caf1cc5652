"""Export to one self-describing ONNX file."""

import hashlib
import itertools
import math
import warnings
from collections.abc import Callable, Collection
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.inliner
import torch
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto
from onnxscript import ir

from sefa.bank.direction_bank import DirectionBank
from sefa.choices import choice_of
from sefa.errors import ArgumentError
from sefa.generators import Generator
from sefa_export.bake import EditGraph
from sefa_export.determinism import check_model, check_program, graphs
from sefa_export.draft import Draft, prepare
from sefa_export.errors import ExporterError, ExportError, VerificationError
from sefa_export.onnx_graph.doubling import split_doubling
from sefa_export.onnx_graph.external_data import check_file_name, weights_beside
from sefa_export.onnx_graph.paired_rows import pair_rows
from sefa_export.onnx_graph.pixel_norm import speed_up_pixel_norm
from sefa_export.onnx_graph.precision import find_overflow, to_float16
from sefa_export.onnx_graph.prefix import put_prefix_first, separate_codes
from sefa_export.onnx_graph.traced_onnx import trace_to_onnx
from sefa_export.onnx_graph.winograd import LEAST_CHANNELS, SIDES, to_winograd
from sefa_export.parity import Case, make_cases, verify
from sefa_export.tracing import exporting, holds_torchscript, one_line
from sefa_export.user_lines import lines_as_run, naming_the_users_lines
from sefa_runtime.files import check_utf8_output, replacing
from sefa_runtime.model.choices import Precision
from sefa_runtime.model.description_entries import description_entries
from sefa_runtime.model.info import Parity, Payload
from sefa_runtime.session.importing import import_onnxruntime

# The newest opset for which onnxruntime's CUDA provider has kernels for every operator used here.
OPSET = 18
# protobuf rejects messages of 2 GiB; the graph around the weights takes a little of that.
MAX_WEIGHT_BYTES = 2**31 - 2**24
# onnxscript's optimizer drops the addition of a scalar so near to 0, and the multiplication by one so near to 1.
NEAR_0, NEAR_1 = 1e-8, 1e-5


def export_onnx(
    generator: Generator,
    bank: DirectionBank,
    path: str | Path,
    output_type: str = "uint8",
    *,
    latent: str = "z",
    truncation: float | None = 1.0,
    allow_other_checkpoint: bool = False,
    precision: str = "fp32",
    batch: int | None = None,
    num_edits: int | None = None,
    external_data: str | None = None,
    winograd: bool | Collection[int] = False,
    keep_layers: bool = False,
    license: str | None = None,
    note: str | None = None,
) -> Path:
    """Bake a generator and its directions into an ONNX file that takes (z, direction, alpha).

    Inputs: `z` float32 [batch, z_dim] (or `w` [batch, D], or `codes` [batch, L, D]), `direction` int64 [batch, edits],
    `alpha` float32 [batch, edits], for a class-conditional generator `label` int64 [batch], and `truncation` float32
    [batch] if it is an input. Output: `image`, see `bake`. The file gets its name only after onnxruntime has reproduced
    PyTorch's images on the CPU; its metadata records the measured difference and everything that `sefa_runtime` needs.

    Args:
        generator: The generator, on any device; left unchanged.
        bank: Directions found for it.
        path: Where to write; an existing file is replaced.
        output_type: `uint8` or `float32`, see `bake`.
        latent: `z`, `w` or `w+`, see `bake`.
        truncation: Truncation psi, see `bake`.
        allow_other_checkpoint: See `bake`; recorded in the file.
        precision: `fp32`, or `fp16`: images are computed in float16 and everything that decides their scale in float32;
            inputs and outputs keep their types. An fp16 file must reach `MIN_PSNR_DB` against PyTorch's float32 images.
        batch: Fixes the batch size, for engines that need static shapes; None leaves it dynamic.
        num_edits: Fixes the number of edits; None leaves it dynamic.
        external_data: Name of a `.safetensors` file beside `path` for the weights. Models of one generator that name
            the same file share it; the first one writes it. None keeps the weights in the model.
        winograd: Write 3x3 convolutions in Winograd's form, F(4x4, 3x3): those of 128 channels or more at 16 to
            128 pixels, where it is faster than onnxruntime's convolution on a CPU, or those at the resolutions (rows of
            pixels) that are given. Their weights take four times the space, in the file and in memory. For fp32 only.
        keep_layers: Leave convolutions and layers that double the size in the generator's own form: slower on
            onnxruntime's CPU provider, faster on OpenVINO in bfloat16. In half precision they are always left.
        license: Licence of the generator, an SPDX expression or other text of one line, recorded in the file; None: the
            one that its checkpoint names, if any.
        note: What else users of the file should know of the generator, one line; None: what its checkpoint says.

    Returns:
        `path`.

    Raises:
        BankError: If the bank was made for another generator.
        ArgumentError: If an option is unknown or not for this generator, the generator is not in float32, the file for
            the weights exists and lacks them, or no convolution is one that `winograd` is for.
        VerificationError: If the exported graph differs from PyTorch.
        ExportError: If the weights are too large for one file.
        OSError: If the file cannot be written.

    Examples:
        >>> generator = sefa.load("netG.pth")
        >>> sefa_export.export_onnx(generator, sefa.factorize(generator, top=8), "netG.onnx")
        PosixPath('netG.onnx')
    """
    path = Path(path)
    check_utf8_output(path)
    choice_of(Precision, precision, "precision")
    if winograd is not False and precision != Precision.FP32:
        raise ArgumentError("Winograd's form is for precision fp32: in float16 its rounding errors would be visible")
    weights_file = None if external_data is None else check_file_name(external_data, path)
    draft = prepare(
        generator,
        bank,
        output_type,
        latent=latent,
        truncation=truncation,
        allow_other_checkpoint=allow_other_checkpoint,
        precision=precision,
        batch=batch,
        num_edits=num_edits,
        license=license,
        note=note,
    )
    _check_size(sum(tensor.numel() * tensor.element_size() for tensor in draft.graph.state_dict().values()))
    _write(draft, path, weights_file, winograd, keep_layers)
    return path


def _check_size(num_bytes: int) -> None:
    if num_bytes > MAX_WEIGHT_BYTES:
        raise ExportError(f"{num_bytes / 2**30:.1f} GiB of weights do not fit into one ONNX file, which ends at 2 GiB")


def _write(
    draft: Draft,
    path: Path,
    weights_file: Path | None = None,
    winograd: bool | Collection[int] = False,
    keep_layers: bool = False,
) -> None:
    graph = draft.graph
    with ExitStack() as stack:
        overcome = stack.enter_context(naming_the_users_lines(draft, _write))
        full = _inlined(_to_onnx(draft, overcome))
        draft = lines_as_run(draft, overcome)
        if graph.first_edited:
            separate_codes(full, graph.first_edited, graph.generator.num_layers)
        half = draft.info.precision == Precision.FP16
        model = to_float16(full) if half else full
        # Half precision is for GPUs and for small files; these forms are for CPUs, and may be larger.
        if not (half or keep_layers):
            split_doubling(model)
        if not half:
            speed_up_pixel_norm(model)
        resolutions = () if winograd is False else _to_winograd(model, None if winograd is True else winograd)
        if not (half or keep_layers):
            pair_rows(model)
        _check_size(sum(len(tensor.raw_data) for tensor in model.graph.initializer))
        prefix = put_prefix_first(model) if graph.first_edited and draft.info.batch is None else None
        check_model(model)
        _strip(model)
        model.ir_version = _lowest_ir_version(model)
        with exporting(graph, "onnx.checker"):
            onnx.checker.check_model(model)
        weights = stack.enter_context(weights_beside(model, graph, weights_file)) if weights_file else None
        payload = model.SerializeToString()
        partial = stack.enter_context(replacing(path))
        partial.write_bytes(payload)
        parity = _verify(draft, partial, full)
        payload_facts = Payload(len(payload), hashlib.sha256(payload).hexdigest(), weights)
        info = replace(draft.describe(parity, payload_facts), prefix=prefix, winograd=resolutions)
        with partial.open("ab") as file:
            file.write(description_entries(info.to_json()))


def _to_onnx(draft: Draft, overcome: list[BaseException]) -> ModelProto:
    """Export a graph; add to `overcome` what torch.export raised where a trace did instead."""
    if holds_torchscript(draft.graph):
        return trace_to_onnx(draft, OPSET)
    if not draft.graph.generator.runs_user_code:
        return _export(draft)
    try:
        return _export(draft)
    except ExporterError as error:
        # For example, Python code that depends on values: a trace may still be valid for every input.
        overcome.append(error)
        try:
            return trace_to_onnx(draft, OPSET)
        except ExporterError as second:
            raise ExportError(f"{second}; nor does torch.export: {one_line(error.__cause__ or error)}") from error


def _export(draft: Draft) -> ModelProto:
    with exporting(draft.graph, "torch.onnx.export"), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="# The axis name")  # Inputs share axis names on purpose.
        program = torch.onnx.export(
            draft.graph,
            kwargs=draft.example_inputs(),
            dynamo=True,
            opset_version=OPSET,
            input_names=list(draft.signature.names),
            output_names=[draft.signature.output.name],
            dynamic_shapes=draft.dynamic_shapes(),
            optimize=False,
            verbose=False,
        )
        assert program is not None
        protect_numbers(program.model)
        program.optimize()
    if program.exported_program is not None:
        check_program(program.exported_program)
    return program.model_proto


def protect_numbers(model: ir.Model) -> None:
    """Keep the optimizer from dropping x + 1e-8, as in a normalisation; it leaves tensors of one number alone."""
    for node in model.graph.all_nodes():
        if node.op_type not in ("Add", "Sub", "Mul", "Div"):
            continue
        operands = [value for value in node.inputs if value is not None]
        for index, (value, other) in enumerate(zip(operands, operands[::-1], strict=True)):
            tensor = ir.convenience.get_const_tensor(value)
            if tensor is None or len(tensor.shape) or not other.shape:
                continue
            number = float(tensor.numpy())
            is_near = abs(number) <= NEAR_0 or math.isclose(number, 1, rel_tol=NEAR_1)
            if is_near and number not in (0, 1):
                constant = ir.node("Constant", [], {"value": ir.tensor(tensor.numpy().reshape(1))})
                node.prepend(constant)
                node.replace_input_with(index, constant.outputs[0])


def _inlined(model: ModelProto) -> ModelProto:
    """Inline a model's functions, so that no reader has to bound what they expand to."""
    if not model.functions:
        return model
    model = onnx.inliner.inline_local_functions(model)
    domains = {node.domain for graph in graphs(model) for node in graph.node}
    kept = [opset for opset in model.opset_import if opset.domain in domains]
    del model.opset_import[:]
    model.opset_import.extend(kept)
    return model


def _to_winograd(model: ModelProto, resolutions: Collection[int] | None) -> tuple[int, ...]:
    """Call `to_winograd` and refuse what changes nothing.

    Raises:
        ArgumentError: If a resolution has no suitable convolution.
    """
    replaced = to_winograd(model, resolutions)
    if resolutions is None and not replaced:
        raise ArgumentError(
            f"no convolution becomes faster in Winograd's form: that takes 3x3 ones of {LEAST_CHANNELS} channels or "
            f"more at {SIDES[0]} to {SIDES[1]} pixels; name resolutions to have it for others"
        )
    missing = sorted(set(resolutions or ()) - set(replaced))
    if missing:
        raise ArgumentError(f"no 3x3 convolution to write in Winograd's form at {', '.join(map(str, missing))} pixels")
    return replaced


def _strip(model: ModelProto) -> None:
    """Remove the exporter's notes to itself: stack traces, paths and module names of the machine it ran on."""
    del model.metadata_props[:]
    for graph in graphs(model):
        values = (graph.input, graph.output, graph.initializer) if isinstance(graph, GraphProto) else ()
        for item in (graph, *graph.node, *graph.value_info, *itertools.chain(*values)):
            del item.metadata_props[:]
            item.doc_string = ""


def _lowest_ir_version(model: ModelProto) -> int:
    """Return the oldest IR version that holds the content, which most engines read; exporters stamp their newest."""
    return onnx.helper.find_min_ir_version_for(list(model.opset_import))


def _verify(draft: Draft, path: Path, full: ModelProto) -> Parity:
    """Compare the file with PyTorch; `full` is the graph in float32, to find the layer that overflows."""
    session = _session(draft.graph, path)
    mismatches = draft.signature.mismatches(session, axis_names=True)
    cases = make_cases(draft)
    try:
        return verify(draft, _runner(session), cases, mismatches)
    except VerificationError as error:
        overflow = find_overflow(full, cases[0].feeds) if draft.info.precision == Precision.FP16 else None
        if overflow is None:
            raise
        raise VerificationError(
            f"{error}; {overflow.layer} overflows float16: it reaches {overflow.largest:.3g}"
        ) from error


def _session(graph: EditGraph, path: Path) -> Any:
    runtime = import_onnxruntime()
    options = runtime.SessionOptions()
    options.log_severity_level = 4  # What fails is in the message of the refusal.
    with exporting(graph, "onnxruntime"):
        return runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _runner(session: Any) -> Callable[[Case], NDArray[Any]]:
    def run(case: Case) -> NDArray[Any]:
        (image,) = session.run(None, case.feeds)
        return np.asarray(image)

    return run
