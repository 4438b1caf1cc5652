"""Cut a model after the part that no edit reaches. Source: onnx.proto."""

import io
from collections.abc import Iterator
from typing import NamedTuple

from sefa_runtime.model.graph_check import GRAPH, GRAPH_NODE, INITIALIZER, METADATA_PROPS, TENSOR_NAME
from sefa_runtime.model.info import ELEMENT_TYPES, Prefix, PrefixTensor
from sefa_runtime.model.protobuf import bytes_field, fields, varint_field

# onnx.proto: GraphProto, NodeProto, ValueInfoProto, TypeProto, TypeProto.Tensor, TensorShapeProto, its Dimension.
NAME, INPUT, OUTPUT = 2, 11, 12
NODE_INPUT = 1
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


def cut(model: bytes, prefix: Prefix) -> Parts:
    """Cut a model after its prefix.

    Args:
        model: A serialized `ModelProto` with one graph, in which no node holds a graph.
        prefix: Its prefix.
    """
    view = memoryview(model)
    around: list[memoryview] = []
    parts: dict[int, list[_Part]] = {}  # of the graph, by field number
    for part in _parts(model, 0, len(model)):
        if part.number == GRAPH:
            for item in _parts(model, part.start, part.end):
                parts.setdefault(item.number, []).append(item)
        elif part.number != METADATA_PROPS:
            around.append(view[part.tag : part.end])

    def named(number: int, name_field: int) -> dict[str, memoryview]:
        return {
            text: view[item.tag : item.end]
            for item in parts.get(number, ())
            for text in _texts(model, item, name_field)
        }

    inputs, weights = named(INPUT, VALUE_NAME), named(INITIALIZER, TENSOR_NAME)
    values = {tensor.name: value_info(tensor) for tensor in prefix.tensors}
    between = {name: memoryview(bytes_field(INPUT, value)) for name, value in values.items()}

    def joined(nodes: list[_Part], given: dict[str, memoryview], outputs: list[bytes]) -> bytes:
        read = {text for node in nodes for text in _texts(model, node, NODE_INPUT)}
        graph = [view[item.tag : item.end] for item in (*nodes, *parts.get(NAME, ()))]
        graph += [item for name, item in (weights | given).items() if name in read]
        return b"".join([*around, bytes_field(GRAPH, b"".join([*graph, *outputs]))])

    nodes = parts[GRAPH_NODE]
    image = [bytes(view[item.tag : item.end]) for item in parts[OUTPUT]]
    return Parts(
        joined(nodes[: prefix.nodes], inputs, [bytes_field(OUTPUT, value) for value in values.values()]),
        joined(nodes[prefix.nodes :], inputs | between, image),
        tuple(inputs),
    )


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
    """Return a `ValueInfoProto`."""
    sizes = [bytes_field(DIMENSION_NAME, b"batch"), *(varint_field(DIMENSION_VALUE, size) for size in tensor.shape)]
    shape = b"".join(bytes_field(DIMENSION, size) for size in sizes)
    kind = varint_field(ELEMENT_TYPE, ELEMENT_TYPES[tensor.dtype]) + bytes_field(SHAPE, shape)
    return bytes_field(VALUE_NAME, tensor.name.encode()) + bytes_field(VALUE_TYPE, bytes_field(TENSOR_TYPE, kind))
