"""Tensors as the Open Inference Protocol v2 writes them over REST: JSON, and the binary tensor extension.

A body is one JSON document; with the extension, the header `Inference-Header-Content-Length` tells where it ends, and
the raw little-endian bytes of the tensors follow in the order in which they are listed.
Sources: the KServe project's open inference protocol; the Triton project's extension_binary_data.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sefa_runtime.errors import InputError
from sefa_runtime.inputs.coercion import as_numbers

# What our graphs take; UINT8 is what they give.
DTYPES: dict[str, type[np.generic]] = {"FP32": np.float32, "INT64": np.int64}
MAX_DIMENSIONS = 8
MAX_DIMENSION = 2**31 - 1
MAX_ID = 1024
# Every byte as JSON, in four characters with the comma: an image is one table look-up.
BYTES_AS_JSON = np.frombuffer(b"".join(b"%3d," % value for value in range(256)), np.uint8).reshape(256, 4)


@dataclass(frozen=True)
class Tensor:
    """One input."""

    datatype: str  # "FP32", ...
    array: NDArray[Any]


@dataclass(frozen=True)
class InferRequest:
    """What a client asks for."""

    id: str  # empty if it gave none
    inputs: dict[str, Tensor]
    outputs: tuple[str, ...]  # empty: all
    binary: bool  # whether the image is to come as raw bytes


def decode_request(body: bytes, json_length: int | None, datatypes: Mapping[str, str]) -> InferRequest:
    """Read the body of an inference request.

    Args:
        body: JSON, and raw tensors after it.
        json_length: Bytes of the JSON; None if it is all of the body.
        datatypes: Of the model's inputs, by their names.

    Raises:
        InputError: If it is not such a request.
    """
    if json_length is not None and not 0 <= json_length <= len(body):
        raise InputError(f"Inference-Header-Content-Length must be in 0..{len(body)}, the body's size")
    document = decode_json(body if json_length is None else body[:json_length])
    raw = _Raw(body, len(body) if json_length is None else json_length)
    inputs: dict[str, Tensor] = {}
    for entry in _dictionaries(document.get("inputs"), "inputs"):
        name = _string(entry.get("name"), "an input's name")
        if name in inputs:
            raise InputError(f"input {name!r} is given twice")
        inputs[name] = _decode_tensor(name, entry, raw, datatypes)
    raw.check_end()
    binary = _flag(_parameters(document), "binary_data_output")
    outputs = []
    for entry in _dictionaries(document.get("outputs", []), "outputs"):
        outputs.append(_string(entry.get("name"), "an output's name"))
        parameters = _parameters(entry)
        for unknown in ("classification", "shared_memory_region"):
            if parameters.get(unknown):
                raise InputError(f"output {outputs[-1]!r}: {unknown} is not offered here")
        binary = _flag(parameters, "binary_data", binary)
    identifier = document.get("id", "")
    if not isinstance(identifier, str) or len(identifier) > MAX_ID:
        raise InputError(f"id must be a string of at most {MAX_ID} characters")
    return InferRequest(identifier, inputs, tuple(outputs), binary)


def decode_json(body: bytes) -> dict[str, Any]:
    """Read one JSON object.

    Raises:
        InputError: If it is none, or nested too deep, or has NaN or infinity in it, which JSON has not.
    """
    try:
        document = json.loads(body, parse_constant=_refuse_constant)
    except RecursionError:
        raise InputError("the JSON is nested too deep") from None
    except ValueError as error:  # Also what is no UTF-8, and integers of thousands of digits.
        raise InputError(f"not JSON: {str(error)[:200]}") from None
    if not isinstance(document, dict):
        raise InputError("the JSON must be an object")
    return document


def check_numbers(data: Any, name: str) -> None:
    """Refuse what is not lists of numbers, before numpy makes of it what it can: of words, arrays of the longest.

    Raises:
        InputError: If it is something else.
    """
    lists = [data]
    while lists:
        values = lists.pop()
        kinds = set(map(type, values)) if isinstance(values, list) else {type(values)}
        if kinds == {list}:
            lists += values
        elif not kinds <= {int, float} or not isinstance(values, list):
            raise InputError(f"{name} must be lists of numbers, all nested alike")


def encode_response(
    head: Mapping[str, Any], name: str, datatype: str, array: NDArray[Any], binary: bool
) -> tuple[bytes, memoryview | None]:
    """Write the body of an answer with one output.

    Args:
        head: `model_name`, `model_version`, `id`.
        name: Of the output.
        datatype: Its type in the protocol's words.
        array: The tensor.
        binary: As raw bytes after the JSON.

    Returns:
        The JSON, and the raw bytes, or None if they are in the JSON.
    """
    output: dict[str, Any] = {"name": name, "datatype": datatype, "shape": array.shape}
    if binary:
        # No copy: a part of a run's images is contiguous.
        raw = np.ascontiguousarray(array).data.cast("B")
        output["parameters"] = {"binary_data_size": raw.nbytes}
        return _compact({**head, "outputs": [output]}), raw
    # The numbers are spliced in before the three brackets that end the document.
    text = _compact({**head, "outputs": [output]})
    return text[:-3] + b',"data":' + numbers_as_json(array) + text[-3:], None


def numbers_as_json(array: NDArray[Any]) -> bytes:
    """A flat JSON array of a tensor's numbers in row-major order."""
    if array.dtype == np.uint8 and array.size:
        text: bytes = BYTES_AS_JSON[array.reshape(-1)].tobytes()
        return b"[" + text[:-1] + b"]"
    return _compact(array.reshape(-1).tolist())


class _Raw:
    """The raw tensors after the JSON, taken one after another."""

    def __init__(self, body: bytes, start: int) -> None:
        self._body = body
        self._at = start

    def take(self, name: str, size: int, dtype: type[np.generic]) -> NDArray[Any]:
        itemsize = np.dtype(dtype).itemsize
        if size % itemsize or size > len(self._body) - self._at:
            raise InputError(f"input {name!r}: binary_data_size {size} does not fit: too large, or not whole numbers")
        array = np.frombuffer(self._body, np.dtype(dtype).newbyteorder("<"), size // itemsize, self._at)
        self._at += size
        return array.astype(dtype, copy=not array.flags.aligned)

    def check_end(self) -> None:
        if self._at != len(self._body):
            raise InputError(f"{len(self._body) - self._at} bytes after the last tensor")


def check_datatype(name: str, datatype: Any, datatypes: Mapping[str, str]) -> str:
    """Return the type of an input, which must be the one that the model wants.

    Raises:
        InputError: If it is another, or the model has no such input.
    """
    if name not in datatypes:
        raise InputError(f"no input {name[:128]!r}: the inputs are {', '.join(datatypes)}")
    if datatype != datatypes[name]:
        raise InputError(f"input {name!r} is {datatypes[name]}, got {str(datatype)[:32]}")
    return datatypes[name]


def _decode_tensor(name: str, entry: dict[str, Any], raw: _Raw, datatypes: Mapping[str, str]) -> Tensor:
    datatype = check_datatype(name, entry.get("datatype"), datatypes)
    shape = entry.get("shape")
    if not (
        isinstance(shape, list)
        and len(shape) <= MAX_DIMENSIONS
        and all(type(size) is int and 0 <= size <= MAX_DIMENSION for size in shape)
    ):
        raise InputError(f"input {name!r}: shape must be a list of at most {MAX_DIMENSIONS} sizes, got {_cut(shape)}")
    parameters = _parameters(entry)
    if "shared_memory_region" in parameters:
        raise InputError(f"input {name!r}: shared memory is not offered here")
    size = parameters.get("binary_data_size")
    dtype = DTYPES[datatype]
    if size is None:
        if "data" not in entry:
            raise InputError(f"input {name!r}: data, or the parameter binary_data_size, is missing")
        check_numbers(entry["data"], f"input {name!r}")
        array = as_numbers(entry["data"], f"input {name!r}", dtype)
        if array.ndim > 1 and list(array.shape) != shape:
            raise InputError(f"input {name!r}: data of shape {list(array.shape)}, the shape given is {_cut(shape)}")
    else:
        if type(size) is not int or size < 0 or "data" in entry:
            raise InputError(f"input {name!r}: binary_data_size must be a number of bytes, and stand without data")
        array = raw.take(name, size, dtype)
    if array.size != math.prod(shape):
        raise InputError(f"input {name!r}: {array.size} numbers do not fill the shape {_cut(shape)}")
    return Tensor(datatype, array.reshape(shape))


def _parameters(entry: dict[str, Any]) -> dict[str, Any]:
    parameters = entry.get("parameters", {})
    if not isinstance(parameters, dict):
        raise InputError("parameters must be an object")
    return parameters


def _flag(parameters: dict[str, Any], name: str, default: bool = False) -> bool:
    value = parameters.get(name, default)
    if not isinstance(value, bool):
        raise InputError(f"{name} must be true or false")
    return value


def _string(value: Any, what: str) -> str:
    if not isinstance(value, str):
        raise InputError(f"{what} must be a string")
    return value


def _dictionaries(value: Any, what: str) -> list[dict[str, Any]]:
    if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
        raise InputError(f"{what} must be a list of objects")
    return value


def _cut(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _refuse_constant(text: str) -> None:
    raise ValueError(f"{text} is not a number in JSON")


def _compact(document: object) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()
