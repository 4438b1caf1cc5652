"""Find the part of a graph that no edit reaches, so that it can run once for each latent.

Where every direction leaves the first layers alone, what those compute depends on the latent only. The exporter puts
that part first and records where it ends; `sefa_runtime` may then run the two parts one after the other and keep what
passes between them. For everyone else the graph stays one graph.
"""

import math
from collections.abc import Iterable

import numpy as np
import onnx
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, numpy_helper

from sefa_export.onnx_graph.rewriting import remove_unread
from sefa_runtime.model.info import Prefix, PrefixTensor

EDITS = ("direction", "alpha")
# Below this share of the multiplications, keeping the tensors would cost about what it saves.
LEAST_SHARE = 0.1
DTYPES: dict[int, str] = {TensorProto.FLOAT: "float32", TensorProto.FLOAT16: "float16", TensorProto.INT64: "int64"}


def separate_codes(model: ModelProto, first_edited: int, num_layers: int) -> None:
    """Let each layer read its code from before or after the edits, instead of from the concatenation of both.

    Args:
        model: The graph of an `EditGraph`; changed in place. Layers whose codes are not read by Slice and Gather keep
            reading the concatenation.
        first_edited: `EditGraph.first_edited`.
        num_layers: The generator's number of layers, L.
    """
    graph, constants = model.graph, _constants(model)
    edited = _reached(graph.node, EDITS)
    layers: dict[str, range] = {}  # of values [batch, layers, D]
    parts: list[str] = []
    for node in graph.node:
        if node.op_type == "Concat" and not parts and [name in edited for name in node.input] == [False, True]:
            parts = list(node.input)
            layers[node.output[0]] = range(num_layers)
        elif node.op_type == "Slice" and node.input[0] in layers:
            start, end, axis, step = (constants.get(name, math.nan) for name in (*node.input[1:], "", "")[:4])
            if axis == step == 1 and isinstance(start, int) and isinstance(end, int):
                layers[node.output[0]] = layers[node.input[0]][start:end]
        elif node.op_type == "Gather" and node.input[0] in layers and _axis(node) == 1 and node.input[1] in constants:
            layer = layers[node.input[0]][constants[node.input[1]]]
            after = layer >= first_edited
            index = numpy_helper.from_array(np.array(layer - after * first_edited), f"{node.output[0]}_layer")
            graph.initializer.append(index)
            node.input[:] = [parts[after], index.name]
    remove_unread(model)


def put_prefix_first(model: ModelProto) -> Prefix | None:
    """Move the nodes that no edit reaches to the front and describe where they end; the model is changed in place.

    Returns:
        The description; None if they do too little of the work, or sizes other than the batch are not fixed.
    """
    graph = model.graph
    edited = _reached(graph.node, EDITS)
    before = [node for node in graph.node if not edited.intersection(node.output)]
    after = [node for node in graph.node if edited.intersection(node.output)]
    inferred = onnx.shape_inference.infer_shapes(model).graph
    values = {value.name: value for value in (*inferred.input, *inferred.value_info, *inferred.output)}
    share = _multiplications(before, values, model) / max(_multiplications(graph.node, values, model), 1)
    has_graphs = any(
        item.type in (AttributeProto.GRAPH, AttributeProto.GRAPHS) for n in graph.node for item in n.attribute
    )
    if share < LEAST_SHARE or has_graphs:
        return None
    computed = {name for node in before for name in node.output}
    read = {name for node in after for name in node.input}
    tensors = [_tensor(values[name]) if name in values else None for name in sorted(computed & read)]
    if None in tensors:
        return None
    nodes = [NodeProto.FromString(node.SerializeToString()) for node in (*before, *after)]
    graph.ClearField("node")
    graph.node.extend(nodes)
    return Prefix(len(before), tuple(tensor for tensor in tensors if tensor), share)


def _axis(node: NodeProto) -> int | None:
    return next((item.i for item in node.attribute if item.name == "axis"), None)


def _constants(model: ModelProto) -> dict[str, int]:
    """Return the graph's constants of one integer."""
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        for item in node.attribute if node.op_type == "Constant" else ():
            tensors[node.output[0]] = item.t
    return {
        name: int(numpy_helper.to_array(tensor).item())
        for name, tensor in tensors.items()
        if tensor.data_type == TensorProto.INT64 and math.prod(tensor.dims) == 1
    }


def _reached(nodes: Iterable[NodeProto], sources: Iterable[str]) -> set[str]:
    """Return the values that depend on any of `sources`, themselves included."""
    reached = set(sources)
    for node in nodes:
        if reached.intersection(node.input):
            reached.update(node.output)
    return reached


def _tensor(value: ValueInfoProto) -> PrefixTensor | None:
    kind = value.type.tensor_type
    sizes = [axis.dim_value for axis in kind.shape.dim[1:]]
    if kind.elem_type not in DTYPES or not kind.shape.dim or not all(sizes):
        return None
    return PrefixTensor(value.name, DTYPES[kind.elem_type], tuple(sizes))


def _multiplications(nodes: Iterable[NodeProto], values: dict[str, ValueInfoProto], model: ModelProto) -> int:
    """Return how many multiplications the convolutions of an image take; the rest of a generator is next to nothing."""
    weights = {tensor.name: tensor.dims for tensor in model.graph.initializer}
    total = 0
    for node in nodes:
        name, axes = "", slice(0)
        if node.op_type == "Conv" and node.input[1] in weights:
            # Each weight meets each pixel of the output, of a transposed convolution of the input.
            name, weight, axes = node.output[0], weights[node.input[1]], slice(2, None)
        elif node.op_type == "ConvTranspose" and node.input[1] in weights:
            name, weight, axes = node.input[0], weights[node.input[1]], slice(2, None)
        if name in values:
            dimensions = values[name].type.tensor_type.shape.dim[axes]
            total += math.prod(weight) * math.prod(axis.dim_value for axis in dimensions)
    return total
