"""What rewriting an exported graph takes: its constants, shapes and readers, and nodes in place of others."""

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper


class Rewriting:
    """The changes to a graph, which `apply` makes in place.

    Attributes:
        nodes: The graph's nodes, in order.
        readers: The nodes that read a value, by its name.
    """

    def __init__(self, model: ModelProto) -> None:
        self._model = model
        self.nodes = list(model.graph.node)
        self.readers: dict[str, list[NodeProto]] = {}
        for node in self.nodes:
            for name in node.input:
                self.readers.setdefault(name, []).append(node)
        self._outputs = {value.name for value in model.graph.output}
        self._tensors = {tensor.name: tensor for tensor in model.graph.initializer}
        for node in self.nodes:
            if node.op_type == "Constant" and node.attribute[0].name == "value":
                self._tensors[node.output[0]] = node.attribute[0].t
        inferred = onnx.shape_inference.infer_shapes(model).graph
        self._shapes = {
            value.name: tuple(axis.dim_value or None for axis in value.type.tensor_type.shape.dim)
            for value in (*inferred.input, *inferred.value_info, *inferred.output)
        }
        self._replaced: dict[str, list[NodeProto]] = {}
        self._changed: set[str] = set()  # Values that have other shapes than before.
        self._added: list[NodeProto] = []
        self._constants: dict[tuple[Any, ...], str] = {}
        self._stem = ""
        self._taken = {name for node in self.nodes for name in (*node.input, *node.output)}

    def size(self, name: str) -> tuple[int, int] | None:
        """Return height and width of a value [batch, C, H, W]; None where the graph does not fix them."""
        shape = self._shapes.get(name, ())
        if len(shape) != 4 or shape[2] is None or shape[3] is None:
            return None
        return shape[2], shape[3]

    def array(self, name: str) -> NDArray[Any] | None:
        """Return a constant; None if the value depends on the inputs."""
        tensor = self._tensors.get(name)
        return None if tensor is None else numpy_helper.to_array(tensor)

    def shape(self, name: str) -> tuple[int, ...] | None:
        """Return the shape of a constant; None if the value depends on the inputs."""
        tensor = self._tensors.get(name)
        return None if tensor is None else tuple(tensor.dims)

    def only_reader(self, name: str) -> NodeProto | None:
        """Return the only node that reads a value; None if there are others, or it is an output of the graph."""
        readers = self.readers.get(name, [])
        return readers[0] if len(readers) == 1 and name not in self._outputs else None

    def convolutions_3x3(self) -> Iterator[tuple[NodeProto, NDArray[Any], tuple[int, int]]]:
        """Yield plain 3x3 convolutions of stride 1: node, constant weight [out, in, 3, 3], and the output's size."""
        for node in self.nodes:
            if node.op_type != "Conv" or strides_and_pads(node)[0] != [1, 1] or not is_plain(node):
                continue
            size, weight = self.size(node.output[0]), self.array(node.input[1])
            if size is not None and weight is not None and weight.shape[2:] == (3, 3):
                yield node, weight, size

    def begin(self, node: NodeProto) -> None:
        """Begin the nodes that take the place of `node`; their names begin with that of its output."""
        self._stem, self._added = node.output[0], []
        self._replaced[node.output[0]] = self._added

    def add(self, operator: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        """Add a node of one output and return the output's name."""
        name = output or self._unused(f"{self._stem}_{len(self._added)}")
        self._added.append(helper.make_node(operator, list(inputs), [name], name=f"node_{name}", **attributes))
        return name

    def split(self, name: str, parts: int, axis: int) -> list[str]:
        """Add a node that splits a value into equal parts and return their names."""
        names = [self._unused(f"{self._stem}_{len(self._added)}_{part}") for part in range(parts)]
        node = helper.make_node("Split", [name], names, name=f"node_{names[0]}", axis=axis, num_outputs=parts)
        self._added.append(node)
        return names

    def constant(self, array: NDArray[Any]) -> str:
        """Add a constant and return its name."""
        array = np.ascontiguousarray(array)
        key = (array.dtype.str, array.shape, array.tobytes()) if array.nbytes < 1024 else (len(self._constants),)
        if key not in self._constants:
            name = self._constants[key] = self._unused(f"{self._stem}_constant_{len(self._constants)}")
            self._model.graph.initializer.append(numpy_helper.from_array(array, name))
        return self._constants[key]

    def integers(self, *values: int) -> str:
        """Add a constant of integers, as for shapes and axes, and return its name."""
        return self.constant(np.array(values, np.int64))

    def scaled(self, name: str, factor: float) -> str:
        """Add a value times a number; a constant if the value is one."""
        array = self.array(name)
        if array is None:
            return self.add("Mul", name, self.constant(np.array(factor, np.float32)))
        return self.constant((array * np.float64(factor)).astype(array.dtype))

    def multiply(self, matrix: NDArray[Any], name: str) -> str:
        """Add the product of a constant matrix [M, K] with each image's [batch, K, N]; return its name, [batch, M, N].

        The matrix gets a batch axis, since CUDA's MatMul copies pointers from the host if only one side has it, which a
        CUDA graph cannot capture.
        """
        batch = self.add("Shape", name, start=0, end=1)
        copies = self.add("Expand", self.constant(matrix[..., None]), batch)  # [M, K, batch]
        return self.add("MatMul", self.add("Transpose", copies, perm=[2, 0, 1]), name)

    def interleave(
        self, images: Sequence[Sequence[str]], channels: int, size: tuple[int, int], output: str | None = None
    ) -> str:
        """Add what makes one image of a square of smaller ones, and return its name.

        Pixel (y, x) of the smaller one in row r and column c of n becomes pixel (n·y + r, n·x + c). Two concatenations
        take less time than a Transpose or DepthToSpace.

        Args:
            images: Names by row and column; each holds [batch, channels, height, width] in this order.
            channels: Their channels.
            size: Their height and width.
            output: The name of the result, [batch, channels, n·height, n·width].
        """
        height, width = size
        count = len(images)
        rows = []
        for row in images:
            # [batch, C, h, w, 1]
            columns = [self.add("Reshape", image, self.integers(-1, channels, height, width, 1)) for image in row]
            interleaved = self.add("Concat", *columns, axis=4)  # [batch, C, h, w, n]
            rows.append(self.add("Reshape", interleaved, self.integers(-1, channels, height, 1, count * width)))
        whole = self.add("Concat", *rows, axis=3)  # [batch, C, h, n, n·w]
        return self.add("Reshape", whole, self.integers(-1, channels, count * height, count * width), output=output)

    def _unused(self, name: str) -> str:
        """Return a name that no value has, and take it."""
        while name in self._taken:
            name += "_"
        self._taken.add(name)
        return name

    def forget_shape(self, name: str) -> None:
        """Let a value have another shape than before."""
        self._changed.add(name)

    def apply(self) -> None:
        """Change the graph: put the new nodes in their places, and remove what is not read any longer."""
        if not self._replaced:
            return
        graph = self._model.graph
        nodes = [new for node in self.nodes for new in self._replaced.get(node.output[0], [node])]
        copies = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
        graph.ClearField("node")
        graph.node.extend(copies)
        remove_unread(self._model)
        made = {name for node in graph.node for name in node.output} - self._changed
        made |= {tensor.name for tensor in graph.initializer}
        kept = [onnx.ValueInfoProto.FromString(v.SerializeToString()) for v in graph.value_info if v.name in made]
        graph.ClearField("value_info")
        graph.value_info.extend(kept)


def attributes(node: NodeProto) -> dict[str, Any]:
    """Return a node's attributes by name."""
    return {item.name: helper.get_attribute_value(item) for item in node.attribute}


def is_plain(node: NodeProto) -> bool:
    """Whether a convolution has one group, no dilation, padding given in numbers, and nothing added to its output."""
    given = attributes(node)
    return (
        given.get("group", 1) == 1
        and given.get("auto_pad", b"NOTSET") == b"NOTSET"
        and math.prod(given.get("dilations") or [1]) == 1
        and not any(given.get("output_padding") or [])
        and not given.get("output_shape")
    )


def strides_and_pads(node: NodeProto) -> tuple[list[int], list[int]]:
    """Return a convolution's strides, and its padding: top, left, bottom, right."""
    given = attributes(node)
    return list(given.get("strides") or [1, 1]), list(given.get("pads") or [0, 0, 0, 0])


def remove_unread(model: ModelProto) -> None:
    """Remove nodes and constants that lead to no output; the model is changed in place."""
    graph = model.graph
    read = {value.name for value in graph.output}
    kept = []
    for node in reversed(graph.node):
        if read.intersection(node.output):
            read.update(node.input)
            read.update(_read_inside(node))
            kept.append(NodeProto.FromString(node.SerializeToString()))
    graph.ClearField("node")
    graph.node.extend(reversed(kept))
    weights = [
        TensorProto.FromString(tensor.SerializeToString()) for tensor in graph.initializer if tensor.name in read
    ]
    graph.ClearField("initializer")
    graph.initializer.extend(weights)


def _read_inside(node: NodeProto) -> Iterable[str]:
    """Yield what the graphs in a node's attributes read."""
    for item in node.attribute:
        for graph in (item.g, *item.graphs):
            for inner in graph.node:
                yield from inner.input
                yield from _read_inside(inner)
            yield from (value.name for value in graph.output)
