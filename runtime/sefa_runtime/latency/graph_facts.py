"""A graph's operators and parameters, read from the ONNX file itself without the onnx package."""

import io
import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from sefa_runtime.model.protobuf import BYTES, VARINT, Field, fields, read_varint

# onnx.proto: ModelProto, OperatorSetIdProto, GraphProto, NodeProto, TensorProto.
GRAPH, OPSET_IMPORT = 7, 8
DOMAIN, VERSION = 1, 2
NODE, INITIALIZER = 1, 5
OP_TYPE = 4
DIMS, DATA_TYPE = 1, 2
# TensorProto.DataType -> bytes per number.
WIDTHS = {1: 4, 2: 1, 3: 1, 4: 2, 5: 2, 6: 4, 7: 8, 9: 1, 10: 2, 11: 8, 12: 4, 13: 8, 14: 8, 15: 16, 16: 2}


@dataclass(frozen=True)
class GraphFacts:
    """A graph as it is in the file, before onnxruntime optimises it."""

    opset: int  # of the standard operators
    nodes: int
    operators: dict[str, int]  # operator -> how many nodes, most frequent first
    parameters: int  # numbers in the initializers, wherever their bytes are stored
    parameter_bytes: int


def read_graph_facts(path: Path) -> GraphFacts:
    """Read the facts from an ONNX file, which must have been loaded before and so is known to be intact."""
    opset = 0
    operators: Counter[str] = Counter()
    parameters = parameter_bytes = 0
    with path.open("rb") as file:
        for part in fields(file, path.stat().st_size):
            if part.number == OPSET_IMPORT and part.wire_type == BYTES:
                domain, version = _opset(_contents(file, part))
                opset = version if domain in ("", "ai.onnx") else opset
            if part.number != GRAPH or part.wire_type != BYTES:
                continue
            file.seek(part.start)
            for field in fields(file, part.start + part.length):
                if field.number == NODE:
                    operators[_operator(_contents(file, field))] += 1
                if field.number == INITIALIZER:
                    count, width = _initializer(file, field)
                    parameters += count
                    parameter_bytes += count * width
    return GraphFacts(opset, operators.total(), dict(operators.most_common()), parameters, parameter_bytes)


def _contents(file: BinaryIO, field: Field) -> bytes:
    file.seek(field.start)
    return file.read(field.length)


def _opset(message: bytes) -> tuple[str, int]:
    domain, version = "", 0
    for field in fields(io.BytesIO(message), len(message)):
        if field.number == DOMAIN:
            domain = message[field.start : field.start + field.length].decode()
        if field.number == VERSION:
            version = field.value
    return domain, version


def _operator(message: bytes) -> str:
    for field in fields(io.BytesIO(message), len(message)):
        if field.number == OP_TYPE:
            return message[field.start : field.start + field.length].decode()
    return ""


def _initializer(file: BinaryIO, tensor: Field) -> tuple[int, int]:
    """Return how many numbers an initializer holds, and the bytes per number."""
    dims: list[int] = []
    width = 0
    file.seek(tensor.start)
    for field in fields(file, tensor.start + tensor.length):
        if field.number == DIMS and field.wire_type == VARINT:
            dims.append(field.value)
        elif field.number == DIMS:  # packed
            file.seek(field.start)
            while file.tell() < field.start + field.length:
                dims.append(read_varint(file))
        elif field.number == DATA_TYPE:
            width = WIDTHS.get(field.value, 0)
    return math.prod(dims), width
