"""The bodies of v2 inference requests and answers over HTTP: JSON, and the binary tensor extension.

A body is one JSON document; with the extension, the header `Inference-Header-Content-Length` says where it ends, and
the raw little-endian bytes of the tensors follow in the order in which they are listed.
Sources: the KServe project's open inference protocol; the Triton project's extension_binary_data.
"""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sefa_runtime.errors import InputError
from sefa_runtime.inputs.coercion import as_numbers
from sefa_runtime.model.signature import Signature, TensorSpec
from sefa_runtime.server.http.requests import check_numbers, decode_json
from sefa_runtime.server.inference import InferRequest, Inputs

# Every byte as JSON, in four characters with the comma: an image is one table look-up.
BYTES_AS_JSON = np.frombuffer(b"".join(b"%3d," % value for value in range(256)), np.uint8).reshape(256, 4)


def decode_request(body: bytes, json_length: int | None, signature: Signature) -> InferRequest:
    """Read the body of an inference request.

    Args:
        body: JSON, and raw tensors after it.
        json_length: Bytes of the JSON; None if it is all of the body.
        signature: Of the model.

    Raises:
        InputError: If it is not such a request.
    """
    if json_length is not None and not 0 <= json_length <= len(body):
        raise InputError(f"Inference-Header-Content-Length must be in 0..{len(body)}, the body's size")
    document = decode_json(body if json_length is None else body[:json_length])
    raw = _Raw(body, len(body) if json_length is None else json_length)
    inputs = Inputs(signature)
    for entry in _dictionaries(document.get("inputs"), "inputs"):
        _decode_tensor(_string(entry.get("name"), "an input's name"), entry, raw, inputs)
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
    return InferRequest(_string(document.get("id", ""), "id"), inputs.arrays, outputs, binary)


def encode_response(
    head: Mapping[str, Any], spec: TensorSpec, array: NDArray[Any], binary: bool
) -> tuple[bytes, memoryview | None]:
    """Write the body of an answer with one output.

    Args:
        head: `model_name`, `model_version`, `id`.
        spec: The output's.
        array: The tensor.
        binary: As raw bytes after the JSON.

    Returns:
        The JSON, and the raw bytes, or None if they are in the JSON.
    """
    output: dict[str, Any] = {"name": spec.name, "datatype": spec.datatype, "shape": array.shape}
    if binary:
        # No copy: a part of a run's images is contiguous.
        raw = np.ascontiguousarray(array).data.cast("B")
        output["parameters"] = {"binary_data_size": raw.nbytes}
        return _compact({**head, "outputs": [output]}), raw
    # The numbers are spliced in before the three brackets that end the document.
    text = _compact({**head, "outputs": [output]})
    return text[:-3] + b',"data":' + numbers_as_json(array) + text[-3:], None


def numbers_as_json(array: NDArray[Any]) -> bytes:
    """Return a flat JSON array of a tensor's numbers in row-major order."""
    if array.dtype == np.uint8 and array.size:
        text: bytes = BYTES_AS_JSON[array.reshape(-1)].tobytes()
        return b"[" + text[:-1] + b"]"
    return _compact(array.reshape(-1).tolist())


class _Raw:
    """The raw tensors after the JSON, taken one after another."""

    def __init__(self, body: bytes, start: int) -> None:
        self._body = body
        self._at = start

    def take(self, name: str, size: int, dtype: np.dtype[Any]) -> NDArray[Any]:
        if size % dtype.itemsize or size > len(self._body) - self._at:
            raise InputError(f"input {name!r}: binary_data_size {size} does not fit: too large, or not whole numbers")
        array = np.frombuffer(self._body, dtype.newbyteorder("<"), size // dtype.itemsize, self._at)
        self._at += size
        return array.astype(dtype, copy=not array.flags.aligned)

    def check_end(self) -> None:
        if self._at != len(self._body):
            raise InputError(f"{len(self._body) - self._at} bytes after the last tensor")


def _decode_tensor(name: str, entry: dict[str, Any], raw: _Raw, inputs: Inputs) -> None:
    shape, parameters = entry.get("shape"), _parameters(entry)
    if not isinstance(shape, list):
        raise InputError(f"input {name!r}: shape must be a list of sizes, got {_cut(shape)}")
    dtype = np.dtype(inputs.check(name, entry.get("datatype"), shape, parameters).dtype)
    size = parameters.get("binary_data_size")
    if size is None:
        if "data" not in entry:
            raise InputError(f"input {name!r}: data, or the parameter binary_data_size, is missing")
        check_numbers(entry["data"], f"input {name!r}")
        array = as_numbers(entry["data"], f"input {name!r}", dtype.type)
        if array.ndim > 1 and list(array.shape) != shape:
            raise InputError(f"input {name!r}: data of shape {list(array.shape)}, the shape given is {_cut(shape)}")
    else:
        if type(size) is not int or size < 0 or "data" in entry:
            raise InputError(f"input {name!r}: binary_data_size must be a number of bytes, and stand without data")
        array = raw.take(name, size, dtype)
    inputs.add(name, array, shape)


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


def _compact(document: object) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()
