"""Generate example inputs: for warming up, tracing, measuring and comparing."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sefa_runtime.inputs.batches import Feeds
from sefa_runtime.inputs.latents import latents_from_seeds
from sefa_runtime.model.info import ModelInfo
from sefa_runtime.model.signature import EDITS, REFERENCE_IMAGES, Signature, TensorSpec


def neutral_inputs(signature: Signature, batch: int = 1, edits: int = 0) -> Feeds:
    """Return zero latents, edits that do nothing, and everything else at its default."""
    return {spec.name: np.full(spec.sizes(batch, edits), spec.fill, spec.dtype) for spec in signature.inputs}


def random_inputs(
    signature: Signature,
    random: np.random.Generator,
    batch: int,
    edits: int,
    latents: NDArray[np.float32] | None = None,
) -> Feeds:
    """Draw inputs: standard normal latents unless given, and everything else within its bounds."""
    feeds = {} if latents is None else {signature.latent.name: latents}
    for spec in signature.inputs[len(feeds) :]:
        feeds[spec.name] = _draw(spec, random, spec.sizes(batch, edits))
    return feeds


def reference_inputs(info: ModelInfo) -> Feeds:
    """Return the inputs of `REFERENCE_IMAGES` images, the same for every model of one kind.

    They have one edit each, or none if the model was exported for none.
    """
    signature = info.signature
    edits = 0 if signature.num_edits == 0 else 1
    latents = seeded_latents(signature, REFERENCE_IMAGES) * np.float32(latent_scale(info))
    feeds: Feeds = {signature.latent.name: latents}
    for spec in signature.inputs[1:]:
        values = np.array(spec.reference, spec.dtype)
        feeds[spec.name] = values[:, None][:, :edits] if EDITS in spec.shape else values
    return feeds


def latent_scale(info: ModelInfo) -> float:
    """Return what standard normal numbers are multiplied by to be of the magnitude of a model's latents or codes."""
    return 1.0 if info.code_rms is None else sum(info.code_rms) / 2


def seeded_latents(signature: Signature, count: int) -> NDArray[np.float32]:
    """Return the latents of seeds 0, 1, ...; for a graph that takes codes, numbers drawn the same way."""
    shape = signature.latent.sizes(count, 0)
    return latents_from_seeds(range(count), int(np.prod(shape[1:]))).reshape(shape)


def as_arguments(feeds: Feeds) -> dict[str, Any]:
    """Return a graph's inputs as arguments of `Editor.run`: w as [N, 1, D], which is never one image's code."""
    return {name: value[:, None] if name == "w" else value for name, value in feeds.items()}


def _draw(spec: TensorSpec, random: np.random.Generator, shape: tuple[int, ...]) -> NDArray[Any]:
    if spec.bounds is None:
        return random.standard_normal(shape, np.float32)
    low, high = spec.bounds
    if spec.dtype == "int64":
        return random.integers(int(low), int(high), size=shape)
    return random.uniform(low, high, shape).astype(spec.dtype)
