"""Comparing images."""

from typing import Any

import numpy as np


def assert_same(images: np.ndarray[Any, Any], expected: np.ndarray[Any, Any]) -> None:
    """Assert that images are the same, but for one grey level: runs of other sizes round differently."""
    assert images.shape == expected.shape
    assert np.abs(images.astype(int) - expected).max() <= 1
