"""Half precision for ONNX graphs: the image path in float16, everything that decides its scale in float32."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto

from sefa_runtime.session.importing import import_onnxruntime

Message = TypeVar("Message", ModelProto, NodeProto, TensorProto, onnx.ValueInfoProto)
# Operators that become float16 where they work on images [batch, C, H, W] before the last convolution. Statistics
# (means, square roots, softmax), and so every normalisation, stay float32, as do the mapping network, the style
# affines, the demodulation and the edits, which work on vectors. So does what only becomes a divisor, a root or
# the like, as a pixel norm's mean of squares: squares leave float16's range, and an epsilon of 1e-8 is 0 there.
HALF_OPERATORS = {
    "Add",
    "Clip",
    "Concat",
    "Conv",
    "ConvTranspose",
    "LeakyRelu",
    "MaxPool",
    "Mul",
    "Pad",
    "Relu",
    "Resize",
    "Slice",
    "Sub",
}
CONVOLUTIONS = {"Conv", "ConvTranspose"}
STATISTICS = {"ReduceMean", "ReduceSum", "ReduceMax", "InstanceNormalization", "Softmax"}
RANGE_CHANGING = {"Exp", "Log", "Pow", "Reciprocal", "Sqrt"}
# Input positions of the region and the scales, which onnxruntime takes only in float32.
RESIZE_FLOATS = (1, 2)
FLOAT16_MAX = 65504.0


def to_float16(model: ModelProto) -> ModelProto:
    """Return a copy of a float32 graph that computes images in float16.

    Inputs and outputs keep their types; Cast nodes are inserted where the two precisions meet.
    """
    half = _half_nodes(model)
    model = _copy(model)
    graph = model.graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    floats = _float_values(model)
    computed_half = {name for node in graph.node if node.name in half for name in node.output}
    casts: dict[str, str] = {}  # name of a value -> name of its copy in the other precision
    nodes: list[NodeProto] = []
    for node in graph.node:
        for position, name in enumerate(node.input):
            wanted_half = node.name in half and not (node.op_type == "Resize" and position in RESIZE_FLOATS)
            if name not in floats or wanted_half == (name in computed_half):
                continue
            if name not in casts:
                casts[name] = f"{name}_{'fp16' if wanted_half else 'fp32'}"
                if name in weights:
                    array = onnx.numpy_helper.to_array(weights[name]).astype(np.float16)
                    graph.initializer.append(onnx.numpy_helper.from_array(array, casts[name]))
                else:
                    nodes.append(_cast(name, casts[name], wanted_half))
            node.input[position] = casts[name]
        nodes.append(node)
    for value in graph.output:
        if value.name in computed_half:
            nodes = _rename(nodes, value.name, f"{value.name}_fp16")
            nodes.append(_cast(f"{value.name}_fp16", value.name, to_half=False))
    read = {name for node in nodes for name in node.input}
    kept_weights = [tensor for tensor in graph.initializer if tensor.name in read]
    kept_values = [value for value in graph.value_info if value.name not in computed_half]
    for field, items in (("node", nodes), ("initializer", kept_weights), ("value_info", kept_values)):
        copies = [_copy(item) for item in items]
        graph.ClearField(field)
        getattr(graph, field).extend(copies)
    return model


def _cast(source: str, target: str, to_half: bool) -> NodeProto:
    kind = TensorProto.FLOAT16 if to_half else TensorProto.FLOAT
    return onnx.helper.make_node("Cast", [source], [target], name=f"cast_{target}", to=kind)


def _rename(nodes: list[NodeProto], old: str, new: str) -> list[NodeProto]:
    for node in nodes:
        node.input[:] = [new if name == old else name for name in node.input]
        node.output[:] = [new if name == old else name for name in node.output]
    return nodes


def _float_values(model: ModelProto) -> set[str]:
    """Return the names of all float32 values in the graph."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    values = {
        value.name
        for value in (*graph.input, *graph.output, *graph.value_info)
        if value.type.tensor_type.elem_type == TensorProto.FLOAT
    }
    return values | {tensor.name for tensor in graph.initializer if tensor.data_type == TensorProto.FLOAT}


def _copy(message: Message) -> Message:
    copy = type(message)()
    copy.CopyFrom(message)
    return copy


@dataclass(frozen=True)
class Overflow:
    """The layer whose values leave float16's range."""

    layer: str
    largest: float


def find_overflow(model: ModelProto, feeds: Mapping[str, NDArray[Any]]) -> Overflow | None:
    """Return the first node to become float16 whose values, in the float32 graph, do not fit; None if all fit."""
    half = _half_nodes(model)
    probe = _copy(model)
    nodes = [node for node in probe.graph.node if node.name in half]
    for node in nodes:
        probe.graph.output.append(onnx.helper.make_tensor_value_info(node.output[0], TensorProto.FLOAT, None))
    session = import_onnxruntime().InferenceSession(probe.SerializeToString(), providers=["CPUExecutionProvider"])
    values = session.run([node.output[0] for node in nodes], dict(feeds))
    for node, value in zip(nodes, values, strict=True):
        largest = float(np.abs(value).max())
        if not largest <= FLOAT16_MAX:
            return Overflow(_layer(node), largest)
    return None


def _half_nodes(model: ModelProto) -> set[str]:
    """Return the names of the nodes that become float16."""
    graph = model.graph
    inferred = onnx.shape_inference.infer_shapes(model)
    ranks = {value.name: len(value.type.tensor_type.shape.dim) for value in inferred.graph.value_info}
    weights = {tensor.name: tensor for tensor in graph.initializer}
    readers: dict[str, list[Any]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    leads_to_convolution: set[str] = set()
    decides_scale: set[str] = set()
    half: set[str] = set()
    for node in reversed(graph.node):
        uses = [(name, reader) for name in node.output for reader in readers.get(name, [])]
        after = [reader for _, reader in uses]
        leads = node.op_type in CONVOLUTIONS or any(reader.name in leads_to_convolution for reader in after)
        if leads:
            leads_to_convolution.add(node.name)
        if uses and all(_decides_scale(name, reader) or reader.name in decides_scale for name, reader in uses):
            decides_scale.add(node.name)
        feeds_statistics = any(reader.op_type in STATISTICS for reader in after) or node.name in decides_scale
        too_large = any(name in weights and _largest(weights[name]) > FLOAT16_MAX for name in node.input)
        is_image = all(ranks.get(name) == 4 for name in node.output)
        if leads and is_image and node.op_type in HALF_OPERATORS and not feeds_statistics and not too_large:
            half.add(node.name)
    return half


def _decides_scale(name: str, reader: NodeProto) -> bool:
    """Whether what a node reads as `name` decides the scale of its result."""
    return reader.op_type in RANGE_CHANGING or (reader.op_type == "Div" and name not in reader.input[:1])


def _largest(tensor: TensorProto) -> float:
    array = onnx.numpy_helper.to_array(tensor)
    return float(np.abs(array).max()) if array.size and array.dtype.kind == "f" else 0.0


def _layer(node: Any) -> str:
    """Return the generator's own name for the layer that a node belongs to, if the exporter recorded it."""
    for prop in node.metadata_props:
        if prop.key == "pkg.torch.onnx.name_scopes":
            scopes = [scope for scope in prop.value.strip("[]").replace("'", "").split(", ") if "generator." in scope]
            if scopes:
                return f"{scopes[-1].removeprefix('generator.')} ({node.op_type})"
    return f"{node.name} ({node.op_type})"
