"""Percentiles that are meaningful, and None where there are too few samples for one."""

import math
from collections.abc import Sequence

import numpy as np

PERCENTILES = (50, 90, 95, 99)
# A percentile is given only if at least this many samples lie beyond it: with fewer it is the maximum or an outlier by
# another name, and varies from one measurement to the next. p50 needs 20 samples, p90 100, p95 200, p99 1000.
SAMPLES_BEYOND = 10


def least_samples(percent: int) -> int:
    """Return how many samples a percentile needs for `SAMPLES_BEYOND` of them to lie beyond it."""
    return math.ceil(SAMPLES_BEYOND * 100 / (100 - percent))


def percentile(samples: Sequence[float], percent: int) -> float | None:
    """Return the smallest sample that at least `percent` % of all samples do not exceed (nearest rank).

    It is always an observed sample, never a mean of two.

    Args:
        samples: In any order; infinity is a sample of unknown value, but beyond all others.
        percent: 1 to 99.

    Returns:
        None if there are fewer than `least_samples(percent)` samples, or the value of the one it falls on is unknown.
    """
    if len(samples) < least_samples(percent):
        return None
    rank = -(-percent * len(samples) // 100)  # rounded up, in integers
    value = float(np.partition(np.asarray(samples), rank - 1)[rank - 1])
    return value if math.isfinite(value) else None


def mean(samples: Sequence[float]) -> float | None:
    """Return the arithmetic mean; None if there are no samples or one is unknown."""
    value = float(np.mean(samples)) if len(samples) else math.inf
    return value if math.isfinite(value) else None
