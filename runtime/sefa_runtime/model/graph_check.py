"""Checking the graph in an ONNX file before onnxruntime sees it, without onnx: a walk through the protobuf message.

Source: onnx.proto.
"""

import io
from collections.abc import Iterator
from itertools import islice

from sefa_runtime.json_text import MAX_JSON
from sefa_runtime.model.protobuf import VARINT, Field, fields, read_varint

# Of a model without its graph, and of all that is looked at in a graph, which has some 20 for each node.
MAX_MODEL_FIELDS, MAX_GRAPH_FIELDS = 10_000, 500_000
MAX_DEPTH = 20  # of graphs in the nodes of graphs
# onnx.proto: ModelProto, StringStringEntryProto, GraphProto, FunctionProto, NodeProto, AttributeProto, TensorProto.
GRAPH, METADATA_PROPS, FUNCTIONS = 7, 14, 25
KEY, VALUE = 1, 2
GRAPH_NODE, INITIALIZER, SPARSE_INITIALIZER = 1, 5, 15
ATTRIBUTE = 5
ATTRIBUTE_TENSORS, ATTRIBUTE_GRAPHS, SPARSE_TENSORS = (5, 10), (6, 11), (22, 23)
TENSOR_DIMS, TENSOR_NAME, TENSOR_EXTERNAL = 1, 8, 13
# The initializer that has the directions, [K, D].
BANK = "vectors"


def _decoded(document: bytes) -> str:
    if len(document) > MAX_JSON:
        raise ValueError("a description that is too long")
    return document.decode()


def metadata_entry(entry: bytes) -> tuple[str, str]:
    """Return key and value of one entry of `metadata_props`."""
    found = {KEY: "", VALUE: ""}
    for field in bounded(fields(io.BytesIO(entry), len(entry)), MAX_MODEL_FIELDS):
        found[field.number] = _decoded(entry[field.start : field.start + field.length])
    return found[KEY], found[VALUE]


def graph_problem(model: bytes, directions: int, beside: set[str]) -> str | None:
    """Return what is wrong with a graph before onnxruntime sees it, in a few words; None if nothing is.

    Args:
        model: A `ModelProto`.
        directions: How many its description names.
        beside: Names of the files that may have weights of it.
    """
    walk = _Walk(model)
    try:
        rows = walk.look()
    except (EOFError, ValueError):
        return "its graph is damaged, or has more parts than are read; a model made by `sefa export` was expected"
    if walk.has_functions:
        return "its graph has functions, which onnxruntime may expand without end; no export has any"
    if walk.has_sparse:
        return "its graph has sparse tensors, which may be of any size when onnxruntime expands them; no export has any"
    other = walk.files - beside
    if other:
        return f"its graph has weights in {sorted(other)[0]!r}, which its description does not mention"
    if rows not in (0, directions):  # What was once exported by tracing has no name for its bank.
        return f"its description names {directions} directions, its graph has {rows}; copy or export it again"
    return None


class _Walk:
    """A walk through a model: how many directions it has, and what onnxruntime would read or expand as it loads.

    Attributes:
        has_sparse: Whether there is a sparse tensor.
        has_functions: Whether there are functions: a few that call each other twice become millions of nodes.
        files: Where weights are that are not in the model.
    """

    def __init__(self, model: bytes) -> None:
        self._file = io.BytesIO(model)
        self._size = len(model)
        self._left = MAX_GRAPH_FIELDS
        self.has_sparse = False
        self.has_functions = False
        self.files: set[str] = set()

    def look(self) -> int:
        """Walk, and return the number of directions, 0 if there is no bank."""
        rows = 0
        for part in self._fields(0, self._size):
            if part.number == GRAPH:
                rows = self._graph(part, 0) or rows
            elif part.number == FUNCTIONS:
                self.has_functions = True
        return rows

    def _graph(self, graph: Field, depth: int) -> int:
        if depth > MAX_DEPTH:
            raise ValueError("graphs in graphs")
        rows = 0
        for part in self._inside(graph):
            if part.number == INITIALIZER:
                name, size = self._tensor(part)
                rows = size if name == BANK else rows
            elif part.number == SPARSE_INITIALIZER:
                self.has_sparse = True
        self._nodes(graph, GRAPH_NODE, depth)
        return rows

    def _nodes(self, parent: Field, number: int, depth: int) -> None:
        for node in self._inside(parent):
            for attribute in self._inside(node) if node.number == number else ():
                for value in self._inside(attribute) if attribute.number == ATTRIBUTE else ():
                    if value.number in ATTRIBUTE_GRAPHS:
                        self._graph(value, depth + 1)
                    elif value.number in ATTRIBUTE_TENSORS:
                        self._tensor(value)
                    self.has_sparse |= value.number in SPARSE_TENSORS

    def _tensor(self, tensor: Field) -> tuple[str, int]:
        """Return name and first size of a tensor; 0 if it has none."""
        name = ""
        sizes: list[int] = []
        for part in self._inside(tensor):
            if part.number == TENSOR_NAME:
                name = self._read(part).decode()
            elif part.number == TENSOR_DIMS and not sizes:
                # Some writers pack them.
                sizes.append(part.value if part.wire_type == VARINT else read_varint(io.BytesIO(self._read(part))))
            elif part.number == TENSOR_EXTERNAL:
                key, value = metadata_entry(self._read(part))
                if key == "location":
                    self.files.add(value)
        return name, sum(sizes)

    def _read(self, field: Field) -> bytes:
        self._file.seek(field.start)
        return self._file.read(field.length)

    def _inside(self, parent: Field) -> Iterator[Field]:
        return self._fields(parent.start, parent.start + parent.length)

    def _fields(self, start: int, end: int) -> Iterator[Field]:
        self._file.seek(start)
        for field in fields(self._file, end):
            self._left -= 1
            if self._left < 0:
                raise ValueError("too many fields")
            yield field


def bounded(found: Iterator[Field], most: int) -> Iterator[Field]:
    """Yield fields, at most so many.

    Raises:
        ValueError: If there are more.
    """
    yield from islice(found, most)
    if next(found, None) is not None:
        raise ValueError("too many fields")
