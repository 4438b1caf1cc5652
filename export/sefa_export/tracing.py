"""Export by tracing: to TorchScript, and to ONNX where torch.export does not take a user's module."""

import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout

import numpy as np
import onnx
import torch
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper
from torch import nn
from torch.jit._trace import TracerWarning
from torch.onnx import OnnxExporterError

from sefa_export.bake import EditGraph
from sefa_export.determinism import check_trace
from sefa_export.errors import ExporterError
from sefa_export.pinned import Pinned
from sefa_runtime.model.reading import BANK


def holds_torchscript(module: nn.Module) -> bool:
    """Whether it is, or contains, what TorchScript compiled: torch.export does not look inside."""
    return any(isinstance(layer, torch.jit.ScriptModule) for layer in module.modules())


def trace(graph: EditGraph, pinned: Pinned) -> torch.jit.ScriptModule:
    """The operators of one run, as a TorchScript module.

    Raises:
        ExportError: If the generator cannot be traced, or draws at random.
    """
    with exporting(graph, "torch.jit.trace"), warnings.catch_warnings():
        # Whether the trace holds for other inputs is checked by running it, on more than one.
        warnings.filterwarnings("ignore", category=TracerWarning)
        traced = torch.jit.trace(graph, pinned.example_inputs(graph), check_trace=False)  # type: ignore[no-untyped-call]
    assert isinstance(traced, torch.jit.ScriptModule)
    check_trace(traced)
    return traced


def trace_to_onnx(graph: EditGraph, pinned: Pinned, opset: int) -> ModelProto:
    """What tracing makes of a graph, as ONNX.

    Raises:
        ExportError: If it cannot be traced, or has an operator that ONNX lacks.
    """
    traced = trace(graph, pinned)
    batch, edits = pinned.axes()
    shapes = {name: [batch, edits] if name in ("direction", "alpha") else [batch] for name in graph.input_names}
    axes = {
        name: {index: axis for index, axis in enumerate(shape) if isinstance(axis, str)}
        for name, shape in shapes.items()
    }
    buffer = io.BytesIO()
    with exporting(graph, "ONNX"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Notes on what the exporter folds, and that it is no longer developed.
        # Freezing computes what depends on weights alone, such as a spectral norm.
        torch.onnx.export(
            torch.jit.freeze(traced.eval()),
            pinned.example_inputs(graph),
            buffer,  # type: ignore[arg-type]
            dynamo=False,
            opset_version=opset,
            input_names=list(graph.input_names),
            output_names=["image"],
            dynamic_axes={**axes, "image": {0: batch}} if isinstance(batch, str) else axes,
        )
    model = onnx.load_from_string(buffer.getvalue())
    _lift_constants(model)
    _name_bank(model, graph)
    _declare_image(model, graph, batch)
    return model


@contextmanager
def exporting(graph: EditGraph, exporter: str, way_on: str = "") -> Iterator[None]:
    """Stand around the call of an exporter, and of nothing else: quiet, and whatever it raises becomes one line.

    Args:
        graph: What is exported.
        exporter: Its name.
        way_on: What the user may do instead.

    Raises:
        ExporterError: If the exporter fails.
    """
    try:
        with silenced(), warnings.catch_warnings():
            # torch advises torch.export instead of TorchScript; what it tells its own developers is of no use here.
            warnings.filterwarnings("ignore", category=DeprecationWarning)
            warnings.filterwarnings("ignore", category=FutureWarning)
            yield
    except Exception as error:  # Their errors have no common base, and a class of the user's may raise anything.
        reason = f"{graph.generator.family}: {exporter} does not take it: {one_line(error)}"
        raise ExporterError(reason + (f"; {way_on}" if way_on else "")) from error


@contextmanager
def silenced() -> Iterator[None]:
    """Keep exporters from printing whole programs when they give up, and notes to their own developers."""
    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(level)


def one_line(error: BaseException) -> str:
    """An error of torch's or of a user's class: its kind, and the first line that tells something."""
    if isinstance(error, OnnxExporterError) and error.__cause__ is not None:
        error = error.__cause__  # It tells which step failed, and how to report that.
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:300] if lines else 'no message'}"


def _lift_constants(model: ModelProto) -> None:
    """Turn the nodes that hold a weight into initializers, where other tools look for weights."""
    nodes: list[NodeProto] = []
    for node in model.graph.node:
        values = [attribute.t for attribute in node.attribute if attribute.name == "value"]
        if node.op_type != "Constant" or not values:
            nodes.append(node)
            continue
        tensor = TensorProto()
        tensor.CopyFrom(values[0])
        tensor.name = node.output[0]
        model.graph.initializer.append(tensor)
    copies = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
    model.graph.ClearField("node")
    model.graph.node.extend(copies)


def _name_bank(model: ModelProto, graph: EditGraph) -> None:
    """Call the initializer that has the directions as torch.export does, by the name of the module's buffer."""
    vectors = graph.vectors.numpy()
    for tensor in model.graph.initializer:
        if list(tensor.dims) == list(vectors.shape) and np.array_equal(numpy_helper.to_array(tensor), vectors):
            old, tensor.name = tensor.name, BANK
            for node in model.graph.node:
                node.input[:] = [BANK if name == old else name for name in node.input]
            return


def _declare_image(model: ModelProto, graph: EditGraph, batch: int | str) -> None:
    """Write down the image's axes, which shape inference does not find behind every operator; runs prove them."""
    height, width = graph.generator.resolution
    channels = graph.generator.channels
    byte = graph.output_type == "uint8"
    shape = [batch, height, width, channels] if byte else [batch, channels, height, width]
    kind = TensorProto.UINT8 if byte else TensorProto.FLOAT
    model.graph.output[0].CopyFrom(onnx.helper.make_tensor_value_info("image", kind, shape))
