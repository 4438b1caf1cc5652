"""From a request's inputs to its images, over HTTP and gRPC: limits, checks, the run."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sefa_runtime.editor import check_finite
from sefa_runtime.errors import InputError
from sefa_runtime.inputs.batches import Feeds
from sefa_runtime.inputs.call import Call
from sefa_runtime.inputs.coercion import as_numbers
from sefa_runtime.model.signature import BATCH, EDITS, TensorSpec
from sefa_runtime.server.models import HostedModel
from sefa_runtime.server.pipeline import Exchange

MAX_DIMENSIONS = 8
MAX_DIMENSION = 2**31 - 1
MAX_ID = 1024
# Of an input's numbers, and of its raw bytes.
DTYPES: dict[str, tuple[np.dtype[Any], np.dtype[Any]]] = {
    "float32": (np.dtype(np.float32), np.dtype("<f4")),
    "int64": (np.dtype(np.int64), np.dtype("<i8")),
}


class GivenTensor(NamedTuple):
    """One input of a v2 request, unchecked."""

    name: str
    datatype: object
    shape: Sequence[Any]
    parameters: Mapping[str, Any]
    data: Any  # raw little-endian bytes, lists from JSON, or the numbers of a gRPC message; None if missing


class InferRequest(NamedTuple):
    """A request of the Open Inference Protocol v2, unchecked."""

    id: str  # empty if the client gave none
    inputs: Sequence[GivenTensor]
    outputs: Sequence[str]  # empty: all
    binary: bool  # whether to send the image as raw bytes


def prepare(model: HostedModel, request: InferRequest) -> Feeds:
    """Check a v2 request, and return its inputs as the graph takes them.

    `direction` and `alpha` may both be left out, and may be [batch] instead of [batch, edits]. Inputs of one number per
    image may be [batch, 1], as in Triton's configuration.

    Raises:
        InputError: If an input is missing, unknown or not acceptable, or an unknown output is requested.
        UnavailableError: If the model is not loaded.
    """
    signature, settings = model.info.signature, model.settings
    latent, output = signature.latent, signature.output.name
    if len(request.id) > MAX_ID:
        raise InputError(f"id must be a string of at most {MAX_ID} characters")
    for name in request.outputs:
        if name != output:
            raise InputError(f"the only output is {output!r}, got {name[:128]!r}")
    specs = signature.by_name
    most_edits = settings.max_batch * settings.max_edits
    arrays: dict[str, NDArray[Any]] = {}
    for tensor in request.inputs:
        name = tensor.name
        spec = specs.get(name)
        if spec is None:
            raise InputError(f"no input {name[:128]!r}: the inputs are {', '.join(specs)}")
        if name in arrays:
            raise InputError(f"input {name!r} is given twice")
        data = tensor.data
        if type(data) is memoryview or type(data) is bytes:  # Nothing has been read of them yet.
            array = _from_bytes(tensor, spec, data)
        else:
            array = _from_numbers(
                tensor, spec, max(most_edits, settings.max_batch * math.prod(model.info.latent_shape))
            )
        if EDITS in spec.shape and array.size > most_edits:
            raise InputError(f"input {name!r}: at most {model.max_edits} edits of an image")
        one_each = spec.shape == (BATCH,) and array.ndim == 2 and array.shape[1] == 1
        arrays[name] = array[:, 0] if one_each else array
    if latent.name not in arrays:
        raise InputError(f"input {latent.name!r} is missing")
    if ("direction" in arrays) != ("alpha" in arrays):
        raise InputError("direction and alpha belong together: give both or neither")
    images = arrays[latent.name]
    if images.ndim == len(latent.shape) and len(images) > settings.max_batch:
        raise InputError(f"at most {settings.max_batch} images in a request, got {len(images)}")
    return model.editor.prepare(Call(arrays))


async def generate(exchange: Exchange, model: HostedModel, feeds: Feeds) -> NDArray[Any]:
    """Return the images of prepared inputs, sharing runs with concurrent requests.

    Raises:
        UnavailableError, DeadlineError, InputError, RunError: As `HostedModel.infer`.
        NotFiniteError: If there is NaN or infinity in an image.
    """
    exchange.facts["images"] = len(feeds["direction"])
    answer = await model.infer(feeds)
    exchange.facts |= {
        "run_images": answer.run_images,
        "queue_ms": round(answer.queue_ns / 1e6, 3),
        "run_ms": round(answer.run_ns / 1e6, 3),
    }
    return check_finite(answer.image)


def check_numbers(data: Any, name: str) -> None:
    """Check that data are lists of numbers, before numpy converts them: it would pad strings to the longest.

    Raises:
        InputError: If they are something else.
    """
    lists = [data]
    while lists:
        values = lists.pop()
        kinds = set(map(type, values)) if isinstance(values, list) else {type(values)}
        if kinds == {list}:
            lists += values
        elif not kinds <= {int, float} or not isinstance(values, list):
            raise InputError(f"{name} must be lists of numbers, all nested alike")


def _from_bytes(tensor: GivenTensor, spec: TensorSpec, data: bytes | memoryview) -> NDArray[Any]:
    """Return an input that was given as raw bytes, in the shape that the client gave.

    Raises:
        InputError: If its type or shape is not acceptable, or its data do not match them.
    """
    _check_head(tensor, spec)
    dtype, sent = DTYPES[spec.dtype]
    if len(data) % dtype.itemsize:
        raise InputError(f"input {tensor.name!r}: {len(data)} raw bytes are not whole numbers")
    _check_size(tensor, len(data) // dtype.itemsize)
    array: NDArray[Any] = np.ndarray(tensor.shape, sent, data)
    return array.astype(dtype, copy=not array.flags.aligned)


def _from_numbers(tensor: GivenTensor, spec: TensorSpec, most: int) -> NDArray[Any]:
    """Return an input that was given as numbers, in the shape that the client gave.

    Args:
        tensor: The input.
        spec: What it should be.
        most: The most numbers that a gRPC message may list.

    Raises:
        InputError: If its type or shape is not acceptable, or its data do not match them.
    """
    _check_head(tensor, spec)
    what, data = f"input {tensor.name!r}", tensor.data
    if data is None:
        raise InputError(f"{what}: data, or the parameter binary_data_size, is missing")
    dtype, _ = DTYPES[spec.dtype]
    if isinstance(data, list):
        check_numbers(data, what)
        array = as_numbers(data, what, dtype.type)
        if array.ndim > 1 and array.shape != tuple(tensor.shape):
            raise InputError(f"{what}: data of shape {list(array.shape)}, the shape given is {list(tensor.shape)}")
    elif len(data) > most:
        raise InputError(f"{what}: at most {most} numbers, got {len(data)}")
    else:
        array = np.fromiter(data, dtype, len(data))
    _check_size(tensor, array.size)
    return array.reshape(tensor.shape)


def _check_head(tensor: GivenTensor, spec: TensorSpec) -> None:
    """Check an input's type and shape, and that it comes with the request."""
    shape = tensor.shape
    if tensor.datatype != spec.datatype:
        raise InputError(f"input {tensor.name!r} is {spec.datatype}, got {str(tensor.datatype)[:32]}")
    if len(shape) > MAX_DIMENSIONS or not all(type(size) is int and 0 <= size <= MAX_DIMENSION for size in shape):
        given = str(list(shape[: 2 * MAX_DIMENSIONS]))[:80]
        raise InputError(f"input {tensor.name!r}: shape must be a list of at most {MAX_DIMENSIONS} sizes, got {given}")
    if "shared_memory_region" in tensor.parameters:
        raise InputError(f"input {tensor.name!r}: shared memory is not offered here")


def _check_size(tensor: GivenTensor, size: int) -> None:
    """Check that there are as many numbers as the shape has, and that numpy takes it, even if there are none."""
    if size != math.prod(tensor.shape) or (not size and math.prod(filter(None, tensor.shape)) > MAX_DIMENSION):
        raise InputError(f"input {tensor.name!r}: {size} numbers do not fill the shape {list(tensor.shape)}")
