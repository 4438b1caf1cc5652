"""Latent codes from seeds, with numpy alone."""

import operator
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from sefa_runtime.errors import InputError

MAX_SEED = 2**32 - 1


def latents_from_seeds(seeds: Iterable[int], z_dim: int) -> NDArray[np.float32]:
    """Draw one standard normal latent per seed.

    `numpy.random.RandomState(seed).randn(z_dim)`: its stream is frozen by numpy's compatibility policy, so a
    seed means the same latent on every machine and in every batch. NVlabs' generator scripts draw theirs
    the same way.

    Returns:
        z: Shape [len(seeds), z_dim].

    Raises:
        InputError: If there is no seed or one is outside 0..2**32 - 1.
    """
    rows = [np.random.RandomState(_checked(seed)).randn(z_dim) for seed in seeds]
    if not rows:
        raise InputError("at least one seed is needed")
    return np.stack(rows).astype(np.float32)


def _checked(seed: object) -> int:
    try:
        number = operator.index(seed)  # type: ignore[arg-type]  # Raises for what is no integer.
    except TypeError:
        number = -1
    if isinstance(seed, bool) or not 0 <= number <= MAX_SEED:
        raise InputError(f"a seed must be an integer in 0..{MAX_SEED}, got {seed!r}")
    return number
