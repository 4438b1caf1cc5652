"""From a request's inputs to its images, whatever asked and over whatever transport: limits, inputs, the run."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from sefa_runtime.editor import check_finite
from sefa_runtime.errors import InputError
from sefa_runtime.inputs.batches import Feeds
from sefa_runtime.inputs.call import Call
from sefa_runtime.model.signature import BATCH, EDITS, Signature, TensorSpec
from sefa_runtime.server.models import HostedModel
from sefa_runtime.server.pipeline import Exchange

MAX_DIMENSIONS = 8
MAX_DIMENSION = 2**31 - 1
MAX_ID = 1024


@dataclass(frozen=True)
class InferRequest:
    """A request of the Open Inference Protocol v2.

    Raises:
        InputError: If its id is too long.
    """

    id: str  # empty if the client gave none
    inputs: dict[str, NDArray[Any]]
    outputs: Sequence[str]  # empty: all
    binary: bool  # whether the image is to come as raw bytes

    def __post_init__(self) -> None:
        if len(self.id) > MAX_ID:
            raise InputError(f"id must be a string of at most {MAX_ID} characters")


class Inputs:
    """The inputs of a v2 request, checked one after another while they are decoded.

    Attributes:
        arrays: Those that are complete, by name.
    """

    def __init__(self, signature: Signature) -> None:
        self.arrays: dict[str, NDArray[Any]] = {}
        self._specs = {spec.name: spec for spec in signature.inputs}

    def check(self, name: str, datatype: object, shape: Any, parameters: Any) -> TensorSpec:
        """Check what is said of an input, before its numbers are read.

        Raises:
            InputError: If the model has no such input, or not of that type; or it was given already, its shape is no
                shape, or it lies in shared memory.
        """
        spec = self._specs.get(name)
        if spec is None:
            raise InputError(f"no input {name[:128]!r}: the inputs are {', '.join(self._specs)}")
        if name in self.arrays:
            raise InputError(f"input {name!r} is given twice")
        if datatype != spec.datatype:
            raise InputError(f"input {name!r} is {spec.datatype}, got {str(datatype)[:32]}")
        if len(shape) > MAX_DIMENSIONS or not all(type(size) is int and 0 <= size <= MAX_DIMENSION for size in shape):
            given = str(list(shape[:20]))[:80]
            raise InputError(f"input {name!r}: shape must be a list of at most {MAX_DIMENSIONS} sizes, got {given}")
        if "shared_memory_region" in parameters:
            raise InputError(f"input {name!r}: shared memory is not offered here")
        return spec

    def add(self, name: str, array: NDArray[Any], shape: Sequence[int]) -> None:
        """Take an input's numbers.

        Raises:
            InputError: If there are more or fewer than the shape holds.
        """
        try:
            self.arrays[name] = array.reshape(shape)
        except ValueError:
            raise InputError(f"input {name!r}: {array.size} numbers do not fill the shape {list(shape)}") from None


def prepare(model: HostedModel, request: InferRequest) -> Feeds:
    """Check the inputs of a v2 request and bring them to what the graph takes.

    `direction` and `alpha` may be left out, both or neither, and be [batch] instead of [batch, edits]; the inputs that
    are one number for each image may be [batch, 1], as Triton's configuration describes them.

    Raises:
        InputError: If an input is missing or cannot be taken, or an output is wanted that there is not.
        UnavailableError: If the model is not loaded.
    """
    signature, settings = model.info.signature, model.settings
    arrays, output = request.inputs, signature.output.name
    for name in request.outputs:
        if name != output:
            raise InputError(f"the only output is {output!r}, got {name[:128]!r}")
    latent = signature.latent
    if latent.name not in arrays:
        raise InputError(f"input {latent.name!r} is missing")
    if ("direction" in arrays) != ("alpha" in arrays):
        raise InputError("direction and alpha belong together: give both or neither")
    for spec in signature.inputs:
        array = arrays.get(spec.name)
        if array is None:
            continue
        if spec.shape == (BATCH,) and array.ndim == 2 and array.shape[1] == 1:
            arrays[spec.name] = array[:, 0]
        elif EDITS in spec.shape and array.size > settings.max_batch * settings.max_edits:
            raise InputError(f"input {spec.name!r}: at most {model.max_edits} edits of an image")
    images = arrays[latent.name]
    if images.ndim == len(latent.shape) and len(images) > settings.max_batch:
        raise InputError(f"at most {settings.max_batch} images in a request, got {len(images)}")
    return model.editor.prepare(Call(arrays))


async def generate(exchange: Exchange, model: HostedModel, feeds: Feeds) -> NDArray[Any]:
    """Return the images of prepared inputs, run together with what others ask at the same time.

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
