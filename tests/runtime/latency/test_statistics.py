import math
from fractions import Fraction

import numpy as np
import pytest

from sefa_runtime.latency.statistics import PERCENTILES, SAMPLES_BEYOND, least_samples, mean, percentile


@pytest.mark.parametrize("percent", PERCENTILES)
@pytest.mark.parametrize("count", [1000, 1001, 1999, 4321])
def test_a_percentile_is_numpys_inverted_distribution_function(percent: int, count: int) -> None:
    samples = np.random.default_rng(count).lognormal(size=count)
    expected = float(np.percentile(samples, percent, method="inverted_cdf"))
    assert percentile(samples.tolist(), percent) == expected


@pytest.mark.parametrize("percent", PERCENTILES)
def test_a_percentile_needs_ten_samples_beyond_it(percent: int) -> None:
    least = least_samples(percent)
    share = 1 - Fraction(percent, 100)
    assert least * share >= SAMPLES_BEYOND > (least - 1) * share
    assert percentile(range(least), percent) is not None
    assert percentile(range(least - 1), percent) is None


def test_what_falls_on_an_unknown_sample_is_unknown() -> None:
    samples = [1.0] * 60 + [math.inf] * 40
    assert percentile(samples, 50) == 1.0
    assert percentile(samples, 90) is None
    assert mean(samples) is None


def test_the_mean_of_nothing_is_unknown() -> None:
    assert mean([]) is None
    assert mean([1.0, 2.0, 6.0]) == 3.0
