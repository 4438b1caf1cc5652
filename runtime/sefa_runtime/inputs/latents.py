"""The latents of a call: from seeds, or given by the caller."""

import operator
import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sefa_runtime.errors import InputError
from sefa_runtime.inputs.coercion import as_array, as_numbers
from sefa_runtime.model.info import ModelInfo

MAX_SEED = 2**32 - 1
LATENTS = ("z", "w", "codes")


class _Stream(threading.local):
    """A generator of random numbers for each thread: making one takes twenty times as long as seeding it again."""

    def __init__(self) -> None:
        self.state = np.random.RandomState()


_stream = _Stream()


def latents_from_seeds(seeds: Iterable[int], z_dim: int) -> NDArray[np.float32]:
    """Draw one standard normal latent per seed.

    `numpy.random.RandomState(seed).randn(z_dim)`: its stream is frozen by numpy's compatibility policy, so a
    seed means the same latent on every machine and in every batch. NVlabs' generator scripts draw theirs
    the same way.

    Args:
        seeds: At least one, each 0 to 2**32 - 1.
        z_dim: Length of a latent, `ModelInfo.z_dim`.

    Returns:
        z: float32, shape [len(seeds), z_dim].

    Raises:
        InputError: If there are no seeds or one is outside 0..2**32 - 1.

    Examples:
        >>> sefa_runtime.latents_from_seeds([7, 8], 512).shape
        (2, 512)
    """
    rows = []
    for seed in seeds:
        _stream.state.seed(_check_seed(seed))
        rows.append(_stream.state.randn(z_dim))
    if not rows:
        raise InputError("at least one seed is needed")
    return np.stack(rows).astype(np.float32)


def prepare_latents(
    info: ModelInfo, inputs: Mapping[str, ArrayLike | None], seed: int | Sequence[int] | None, *, takes_seed: bool
) -> NDArray[np.float32]:
    """Return the latents of a call, float32 [batch, ...], from a seed or whichever latent input was given.

    Args:
        info: The model's description.
        inputs: The call's inputs, with `z`, `w` or `codes` among them.
        seed: One seed or several, instead of `z`.
        takes_seed: Whether the caller could have given a seed.

    Raises:
        InputError: Unless exactly one is given; if the model takes another of them, or the shape does not match.
    """
    spec = info.signature.latent
    name, shape = spec.name, spec.shape[1:]
    used = [way for way in LATENTS if inputs.get(way) is not None]
    if seed is not None:
        used.insert(0, "seed")
    if used != [name] and (used != ["seed"] or name != "z"):
        ways = "either seed or z" if takes_seed and name == "z" else name
        raise InputError(f"give {ways}" + (f", got {' and '.join(used)}" if used else ""))
    if seed is not None:
        return latents_from_seeds(_as_list(seed), info.z_dim)
    latents = as_numbers(inputs[name], name, np.float32)
    given_shape = latents.shape
    if latents.ndim == len(shape):
        latents = latents[None]
    elif name == "w" and latents.ndim == 3 and latents.shape[1] and (latents == latents[:, :1]).all():
        latents = latents[:, 0]  # Equal in all layers.
    if latents.shape[1:] != shape or not len(latents):
        wanted = ", ".join(map(str, shape))
        hint = _hint_of_other_space(info, given_shape)
        raise InputError(f"{name} must have shape [batch, {wanted}], got {list(given_shape)}{hint}")
    return np.ascontiguousarray(latents)


def is_ambiguous(info: ModelInfo, w: Any) -> bool:
    """Return whether `w` is [L, D]: L images' w, or one image's code for each layer."""
    dimensions, rows = 0, w
    while isinstance(w, list | tuple) and w:
        dimensions, w = dimensions + 1, w[0]
    return len(rows) == info.num_layers > 1 and dimensions + getattr(w, "ndim", 0) == 2


def _hint_of_other_space(info: ModelInfo, shape: tuple[int, ...]) -> str:
    """Return a hint at what a latent of the wrong shape probably is, or an empty string."""
    if shape[-1:] != (info.code_dim,) or 0 in shape:
        return ""
    if info.latent == "w" and len(shape) == 3:
        return ": codes that differ from layer to layer need a model of w+ (sefa export --latent w+)"
    if info.latent == "w+" and len(shape) == 2:
        return f": w must be repeated for each layer, to [batch, {info.num_layers}, {info.code_dim}]"
    return ""


def _as_list(seeds: Any) -> list[Any]:
    """Return one seed or several as a list, of whatever type they are."""
    if isinstance(seeds, list | tuple | range):
        return list(seeds)
    array = as_array(seeds, "seed")
    return [seeds] if array.dtype == object else np.atleast_1d(array).tolist()


def _check_seed(seed: object) -> int:
    try:
        number = operator.index(seed)  # type: ignore[arg-type]  # Raises unless it is an integer.
    except TypeError:
        number = -1
    if isinstance(seed, bool) or not 0 <= number <= MAX_SEED:
        raise InputError(f"a seed must be an integer in 0..{MAX_SEED}, got {seed!r}")
    return number
