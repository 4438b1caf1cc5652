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
    info, settings = model.info, model.settings
    latent, output = info.signature.latent, info.signature.output.name
    if len(request.id) > MAX_ID:
        raise InputError(f"id must be a string of at most {MAX_ID} characters")
    for name in request.outputs:
        if name != output:
            raise InputError(f"the only output is {output!r}, got {name[:128]!r}")
    specs = info.signature.by_name
    most_edits = settings.max_batch * settings.max_edits
    most = max(most_edits, settings.max_batch * math.prod(info.latent_shape))
    arrays: dict[str, NDArray[Any]] = {}
    for tensor in request.inputs:
        name = tensor.name
        spec = specs.get(name)
        if spec is None:
            raise InputError(f"no input {name[:128]!r}: the inputs are {', '.join(specs)}")
        if name in arrays:
            raise InputError(f"input {name!r} is given twice")
        array = _array(tensor, spec, most)
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


def _array(tensor: GivenTensor, spec: TensorSpec, most: int) -> NDArray[Any]:
    """Return an input's numbers in the shape that the client gave.

    Args:
        tensor: The input.
        spec: What it should be.
        most: The most numbers that a gRPC message may list; raw bytes cost nothing to read.

    Raises:
        InputError: If its type or shape is not acceptable, or its data do not match them.
    """
    what, data, shape = f"input {tensor.name!r}", tensor.data, list(tensor.shape[: 2 * MAX_DIMENSIONS])
    if tensor.datatype != spec.datatype:
        raise InputError(f"{what} is {spec.datatype}, got {str(tensor.datatype)[:32]}")
    are_sizes = {*map(type, shape)} <= {int} and min(shape, default=0) >= 0 and max(shape, default=0) <= MAX_DIMENSION
    if len(shape) > MAX_DIMENSIONS or not are_sizes:
        raise InputError(f"{what}: shape must be a list of at most {MAX_DIMENSIONS} sizes, got {str(shape)[:80]}")
    if "shared_memory_region" in tensor.parameters:
        raise InputError(f"{what}: shared memory is not offered here")
    if data is None:
        raise InputError(f"{what}: data, or the parameter binary_data_size, is missing")
    dtype, sent = DTYPES[spec.dtype]
    if isinstance(data, bytes | memoryview):
        if len(data) % dtype.itemsize:
            raise InputError(f"{what}: {len(data)} raw bytes are not whole numbers")
        array = np.frombuffer(data, sent)
        array = array.astype(dtype, copy=not array.flags.aligned)
    elif isinstance(data, list):
        check_numbers(data, what)
        array = as_numbers(data, what, dtype.type)
        if array.ndim > 1 and list(array.shape) != shape:
            raise InputError(f"{what}: data of shape {list(array.shape)}, the shape given is {shape}")
    elif len(data) > most:
        raise InputError(f"{what}: at most {most} numbers, got {len(data)}")
    else:
        array = np.fromiter(data, dtype, len(data))
    if array.size != math.prod(shape):
        raise InputError(f"{what}: {array.size} numbers do not fill the shape {shape}")
    return array.reshape(shape)
