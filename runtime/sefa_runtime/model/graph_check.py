"""Check the graph in an ONNX file before onnxruntime sees it, without onnx, by walking through the protobuf message.

Source: onnx.proto.
"""

import io
from collections.abc import Iterator
from itertools import islice

from sefa_runtime.json_text import MAX_JSON
from sefa_runtime.model.protobuf import VARINT, Field, fields, read_varint

# Fields of a model outside its graph, and of everything that is examined in a graph: some 20 for each node.
MAX_MODEL_FIELDS, MAX_GRAPH_FIELDS = 10_000, 500_000
MAX_DEPTH = 20  # of graphs nested in nodes
# onnx.proto: ModelProto, StringStringEntryProto, GraphProto, FunctionProto, NodeProto, AttributeProto, TensorProto.
GRAPH, METADATA_PROPS, FUNCTIONS = 7, 14, 25
KEY, VALUE = 1, 2
GRAPH_NODE, INITIALIZER, SPARSE_INITIALIZER = 1, 5, 15
ATTRIBUTE = 5
ATTRIBUTE_TENSORS, ATTRIBUTE_GRAPHS, SPARSE_TENSORS = (5, 10), (6, 11), (22, 23)
TENSOR_DIMS, TENSOR_NAME, TENSOR_EXTERNAL = 1, 8, 13
# The initializer that holds the directions, [K, D].
BANK = "vectors"


def _decoded(document: bytes) -> str:
    if len(document) > MAX_JSON:
        raise ValueError("a description that is too long")
    return document.decode()


def metadata_entry(entry: bytes) -> tuple[str, str]:
    """Return the key and value of one entry of `metadata_props`."""
    found = {KEY: "", VALUE: ""}
    for field in bounded(fields(io.BytesIO(entry), len(entry)), MAX_MODEL_FIELDS):
        found[field.number] = _decoded(entry[field.start : field.start + field.length])
    return found[KEY], found[VALUE]


def graph_problem(model: bytes, directions: int, beside: set[str]) -> str | None:
    """Check a graph before onnxruntime sees it; return what is wrong with it in a few words, or None.

    Args:
        model: A serialized `ModelProto`.
        directions: The number of directions that its description names.
        beside: Names of the files that may hold its weights.
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
    if rows not in (0, directions):  # 0: models once exported by tracing have no name for the bank.
        return f"its description names {directions} directions, its graph has {rows}; copy or export it again"
    return None


def bank_and_files(model: bytes) -> tuple[int, set[str]]:
    """Return the number of directions in a serialized `ModelProto`, 0 if unknown, and the files that hold its weights.

    Raises:
        EOFError, ValueError: If it is damaged, or has too many parts.
    """
    walk = _Walk(model)
    return walk.look(), walk.files


class _Walk:
    """A walk through a model that finds its number of directions and what onnxruntime would read or expand on loading.

    Attributes:
        has_sparse: Whether there is a sparse tensor.
        has_functions: Whether there are functions: a few that call each other twice become millions of nodes.
        files: The files with weights outside the model.
    """

    def __init__(self, model: bytes) -> None:
        self._file = io.BytesIO(model)
        self._size = len(model)
        self._left = MAX_GRAPH_FIELDS
        self.has_sparse = False
        self.has_functions = False
        self.files: set[str] = set()

    def look(self) -> int:
        """Walk the model and return the number of directions, 0 if it has no bank."""
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
        """Return a tensor's name and the size of its first axis, 0 if it has none."""
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
    """Yield at most `most` fields.

    Raises:
        ValueError: If there are more.
    """
    yield from islice(found, most)
    if next(found, None) is not None:
        raise ValueError("too many fields")
