"""Latent codes from seeds, with numpy alone."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sefa_runtime.errors import InputError

MAX_SEED = 2**32 - 1


def latents_from_seeds(seeds: Sequence[int], z_dim: int) -> NDArray[np.float32]:
    """Draw one standard normal latent per seed.

    `numpy.random.RandomState(seed).randn(z_dim)`: its stream is frozen by numpy's compatibility policy, so a
    seed means the same picture on every machine and in every batch. NVlabs' generator scripts draw theirs
    the same way.

    Returns:
        z: Shape [len(seeds), z_dim].

    Raises:
        InputError: If there is no seed or one is outside 0..2**32 - 1.
    """
    if not seeds:
        raise InputError("at least one seed is needed")
    for seed in seeds:
        if isinstance(seed, bool) or not 0 <= int(seed) <= MAX_SEED or int(seed) != seed:
            raise InputError(f"a seed must be an integer in 0..{MAX_SEED}, got {seed!r}")
    rows = [np.random.RandomState(int(seed)).randn(z_dim) for seed in seeds]
    return np.stack(rows).astype(np.float32)
