"""The bodies of v2 inference requests and answers over HTTP: JSON, and the binary tensor extension.

A body is one JSON document; with the extension, the header `Inference-Header-Content-Length` says where it ends, and
the tensors' raw little-endian bytes follow, in the order in which the JSON lists them.
Sources: the KServe project's open inference protocol; the Triton project's extension_binary_data.
"""

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sefa_runtime.errors import InputError
from sefa_runtime.model.signature import TensorSpec
from sefa_runtime.server.http.receiving import decode_json
from sefa_runtime.server.inference import GivenTensor, InferRequest

# Each byte as JSON, four characters with the comma, so that encoding an image is one table look-up.
BYTES_AS_JSON = np.frombuffer(b"".join(b"%3d," % value for value in range(256)), np.uint8).reshape(256, 4)
# How many requests' JSON is remembered, and up to which size.
KEPT, KEPT_BYTES = 128, 4096

_encode = json.JSONEncoder(separators=(",", ":")).encode


def decode_request(body: bytes, json_length: int | None) -> InferRequest:
    """Read the body of an inference request.

    Args:
        body: JSON, possibly followed by raw tensors.
        json_length: Length of the JSON in bytes; None if it is the whole body.

    Raises:
        InputError: If it is not a valid request.
    """
    if json_length is None:
        json_length = len(body)
    if not 0 <= json_length <= len(body):
        raise InputError(f"Inference-Header-Content-Length must be in 0..{len(body)}, the body's size")
    decode = _decode_kept if json_length <= KEPT_BYTES and json_length < len(body) else _decode_document
    request, sizes = decode(body[:json_length])
    rest = memoryview(body)[json_length:]
    inputs = []
    for tensor, size in zip(request.inputs, sizes, strict=True):
        if size is not None:
            if size > len(rest):
                name = tensor.name[:128]
                raise InputError(f"input {name!r}: binary_data_size {size} does not fit: {len(rest)} bytes are left")
            tensor = GivenTensor(*tensor[:-1], rest[:size])
            rest = rest[size:]
        inputs.append(tensor)
    if rest:
        raise InputError(f"{len(rest)} bytes after the last tensor")
    return InferRequest(request.id, inputs, request.outputs, request.binary)


def _decode_document(text: bytes) -> tuple[InferRequest, list[int | None]]:
    """Decode the JSON of a request: the request without its raw tensors, and their sizes in bytes, None for others."""
    document = decode_json(text)
    inputs, sizes = [], []
    for entry in _dictionaries(document.get("inputs"), "inputs"):
        tensor, size = _decode_tensor(entry)
        inputs.append(tensor)
        sizes.append(size)
    binary = _flag(_parameters(document), "binary_data_output")
    outputs = []
    for entry in _dictionaries(document.get("outputs", []), "outputs"):
        outputs.append(_string(entry.get("name"), "an output's name"))
        parameters = _parameters(entry)
        for unknown in ("classification", "shared_memory_region"):
            if parameters.get(unknown):
                raise InputError(f"output {outputs[-1]!r}: {unknown} is not offered here")
        binary = _flag(parameters, "binary_data", binary)
    return InferRequest(_string(document.get("id", ""), "id"), inputs, outputs, binary), sizes


# What a client sends before its raw tensors is mostly the same in every request.
_decode_kept = lru_cache(KEPT)(_decode_document)


def encode_response(
    head: Mapping[str, Any], spec: TensorSpec, array: NDArray[Any], binary: bool
) -> tuple[bytes, memoryview | None]:
    """Encode the body of an answer with one output.

    Args:
        head: `model_name`, `model_version`, `id`.
        spec: Describes the output.
        array: The tensor.
        binary: Whether to send the tensor as raw bytes after the JSON.

    Returns:
        The JSON, and the raw bytes; None if the numbers are in the JSON.
    """
    if binary:
        # Copies nothing: a slice of a run's images is contiguous.
        raw = np.ascontiguousarray(array).data.cast("B")
        return _compact(head)[:-1] + _encode_binary_output(spec.name, spec.datatype, array.shape, raw.nbytes), raw
    output = {"name": spec.name, "datatype": spec.datatype, "shape": array.shape}
    # The numbers are spliced in before the three brackets that end the document.
    text = _compact({**head, "outputs": [output]})
    return text[:-3] + b',"data":' + numbers_as_json(array) + text[-3:], None


@lru_cache(KEPT)
def _encode_binary_output(name: str, datatype: str, shape: tuple[int, ...], size: int) -> bytes:
    """Return how the JSON of an answer goes on after its head: an output of so many bytes."""
    output = {"name": name, "datatype": datatype, "shape": shape, "parameters": {"binary_data_size": size}}
    return b"," + _compact({"outputs": [output]})[1:]


def numbers_as_json(array: NDArray[Any]) -> bytes:
    """Return a tensor's numbers as a flat JSON array in row-major order."""
    if array.dtype == np.uint8 and array.size:
        text: bytes = BYTES_AS_JSON[array.reshape(-1)].tobytes()
        return b"[" + text[:-1] + b"]"
    return _compact(array.reshape(-1).tolist())


def _decode_tensor(entry: dict[str, Any]) -> tuple[GivenTensor, int | None]:
    """Decode an input's entry; if its numbers are raw bytes after the JSON, also return how many."""
    name = _string(entry.get("name"), "an input's name")
    shape, parameters = entry.get("shape"), _parameters(entry)
    if not isinstance(shape, list):
        raise InputError(f"input {name[:128]!r}: shape must be a list of sizes, got {str(shape)[:80]}")
    size = parameters.get("binary_data_size")
    if size is None and not isinstance(entry.get("data"), list):
        raise InputError(
            f"input {name[:128]!r}: data must be lists of numbers, or the parameter binary_data_size given"
        )
    if size is None:
        return GivenTensor(name, entry.get("datatype"), shape, parameters, entry["data"]), None
    if type(size) is not int or size < 0 or "data" in entry:
        raise InputError(f"input {name[:128]!r}: binary_data_size must be a number of bytes, and stand without data")
    return GivenTensor(name, entry.get("datatype"), shape, parameters, None), size


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


def _compact(document: object) -> bytes:
    return _encode(document).encode()
