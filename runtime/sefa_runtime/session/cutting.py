"""Cut a model in two: after the part that no edit reaches, or before the convolutions. Source: onnx.proto."""

import io
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from sefa_runtime.model.graph_check import GRAPH, GRAPH_NODE, INITIALIZER, METADATA_PROPS, TENSOR_NAME
from sefa_runtime.model.info import ELEMENT_TYPES, Prefix, PrefixTensor
from sefa_runtime.model.protobuf import bytes_field, fields, varint_field

# onnx.proto: GraphProto, NodeProto, ValueInfoProto, TypeProto, TypeProto.Tensor, TensorShapeProto, its Dimension.
NAME, INPUT, OUTPUT = 2, 11, 12
NODE_INPUT, NODE_OUTPUT, NODE_TYPE = 1, 2, 4
VALUE_NAME, VALUE_TYPE = 1, 2
TENSOR_TYPE = 1
ELEMENT_TYPE, SHAPE = 1, 2
DIMENSION = 1
DIMENSION_VALUE, DIMENSION_NAME = 1, 2


class Parts(NamedTuple):
    """A model in two: what the latent alone decides, and the rest, which also takes the prefix's tensors."""

    prefix: bytes
    rest: bytes
    input_names: tuple[str, ...]  # of the whole graph


class Value(NamedTuple):
    """A tensor that passes from one part to the other."""

    name: str
    dtype: str  # by numpy's name
    shape: tuple[int | str | None, ...]  # a size, the name of a free axis, or None if unknown


def cut(model: bytes, prefix: Prefix) -> Parts:
    """Cut a model after its prefix.

    Args:
        model: A serialized `ModelProto` with one graph, in which no node holds a graph.
        prefix: Its prefix.
    """
    graph = _Graph(model)
    values = [_of_any_batch(tensor) for tensor in prefix.tensors]
    first, rest = graph.nodes[: prefix.nodes], graph.nodes[prefix.nodes :]
    return Parts(
        graph.joined(first, outputs=[_value_info(value) for value in values]),
        graph.joined(rest, values),
        tuple(graph.inputs),
    )


class StylesCut:
    """A model cut before its convolutions: mapping network, edits and styles, and the rest.

    The first part has every node that follows from the inputs and has no convolution among its ancestors, or no more
    than a few in a row. Next to the convolutions it costs nothing, but what it computes is read by all of them.

    Attributes:
        styles: The first part, a serialized model; onnxruntime finds out its outputs' types and shapes.
        input_names: The inputs of the whole graph.
    """

    def __init__(self, model: bytes, convolutions: int = 0) -> None:
        """Find the cut.

        Args:
            model: As for `cut`.
            convolutions: How many convolutions, in a row, belong to the first part.

        Raises:
            ValueError: If there is nothing before the convolutions, or none is left.
        """
        self._graph = graph = _Graph(model)
        self.input_names = tuple(graph.inputs)
        varying, depths = set(graph.inputs), dict[str, int]()  # how many convolutions a tensor has been through
        left = False
        styles: list[_Node] = []
        self._rest: list[_Node] = []
        for node in graph.nodes:
            depth = max((depths.get(name, 0) for name in node.inputs), default=0) + ("Conv" in node.kind)
            depths.update(dict.fromkeys(node.outputs, depth))
            if depth > convolutions:
                left = left or "Conv" in node.kind
                self._rest.append(node)
            elif varying & set(node.inputs):
                varying.update(node.outputs)
                styles.append(node)
            else:  # A constant, which either part may read.
                styles.append(node)
                self._rest.append(node)
        read = {name for node in self._rest for name in node.inputs} & (varying - set(graph.inputs))
        if not read or not left:
            raise ValueError("nothing to compute before its convolutions, or nothing after them")
        outputs = [bytes_field(VALUE_NAME, name.encode()) for name in sorted(read)]
        self.styles = graph.joined(styles, outputs=outputs)

    def rest(self, values: Sequence[Value]) -> bytes:
        """Return the second part, a serialized model.

        Args:
            values: The outputs of the first part.
        """
        return self._graph.joined(self._rest, values)


class _Node(NamedTuple):
    """A node: where it stands in the file, its operator, and its tensors' names."""

    part: "_Part"
    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


class _Graph:
    """A model taken apart.

    Attributes:
        nodes: In the order of the file, which is topological.
        inputs: The `ValueInfoProto` of each input with its tag, by name.
    """

    def __init__(self, model: bytes) -> None:
        self._view = view = memoryview(model)
        self._around: list[memoryview] = []
        self._parts: dict[int, list[_Part]] = {}  # of the graph, by field number
        for part in _parts(model, 0, len(model)):
            if part.number == GRAPH:
                for item in _parts(model, part.start, part.end):
                    self._parts.setdefault(item.number, []).append(item)
            elif part.number != METADATA_PROPS:
                self._around.append(view[part.tag : part.end])

        def named(number: int, name_field: int) -> dict[str, memoryview]:
            return {
                text: view[item.tag : item.end]
                for item in self._parts.get(number, ())
                for text in _texts(model, item, name_field)
            }

        self.inputs, self._weights = named(INPUT, VALUE_NAME), named(INITIALIZER, TENSOR_NAME)
        self.nodes = [
            _Node(
                part,
                "".join(_texts(model, part, NODE_TYPE)),
                tuple(_texts(model, part, NODE_INPUT)),
                tuple(_texts(model, part, NODE_OUTPUT)),
            )
            for part in self._parts[GRAPH_NODE]
        ]

    def joined(
        self, nodes: Sequence[_Node], given: Sequence[Value] = (), outputs: Sequence[bytes] | None = None
    ) -> bytes:
        """Return a model of some of the nodes.

        Args:
            nodes: The nodes.
            given: Further inputs.
            outputs: The `ValueInfoProto` of each output; None: the graph's own.
        """
        view = self._view
        read = {name for node in nodes for name in node.inputs}
        between = {value.name: memoryview(bytes_field(INPUT, _value_info(value))) for value in given}
        items = [node.part for node in nodes] + self._parts.get(NAME, [])
        if outputs is None:
            items += self._parts[OUTPUT]
        graph = [view[item.tag : item.end] for item in items]
        graph += [item for name, item in (self._weights | self.inputs | between).items() if name in read]
        ends = [bytes_field(OUTPUT, value) for value in outputs or ()]
        return b"".join([*self._around, bytes_field(GRAPH, b"".join([*graph, *ends]))])


class _Part(NamedTuple):
    """A field of a message: where its tag begins, and where its contents begin and end."""

    number: int
    tag: int
    start: int
    end: int


def _parts(model: bytes, start: int, end: int) -> Iterator[_Part]:
    file = io.BytesIO(model)  # which does not copy
    file.seek(start)
    tag = start
    for field in fields(file, end):
        yield _Part(field.number, tag, field.start, field.start + field.length)
        tag = field.start + field.length


def _texts(model: bytes, message: _Part, number: int) -> list[str]:
    """Return a message's fields of text with this number."""
    found = [part for part in _parts(model, message.start, message.end) if part.number == number]
    return [model[part.start : part.end].decode() for part in found]


def value_info(tensor: PrefixTensor) -> bytes:
    """Return the `ValueInfoProto` of a tensor for any batch."""
    return _value_info(_of_any_batch(tensor))


def _of_any_batch(tensor: PrefixTensor) -> Value:
    return Value(tensor.name, tensor.dtype, ("batch", *tensor.shape))


def _value_info(value: Value) -> bytes:
    """Return a `ValueInfoProto`."""
    sizes = [
        varint_field(DIMENSION_VALUE, size)
        if isinstance(size, int)
        else bytes_field(DIMENSION_NAME, size.encode())
        if size
        else b""
        for size in value.shape
    ]
    shape = b"".join(bytes_field(DIMENSION, size) for size in sizes)
    kind = varint_field(ELEMENT_TYPE, ELEMENT_TYPES[value.dtype]) + bytes_field(SHAPE, shape)
    return bytes_field(VALUE_NAME, value.name.encode()) + bytes_field(VALUE_TYPE, bytes_field(TENSOR_TYPE, kind))
