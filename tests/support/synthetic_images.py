"""Images whose directions do what is known by construction."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SIDE = 16
GREY, APART = 100, 24  # Every second image is brighter: neighbours differ by 24 levels everywhere.
PATCH = (slice(2, 6), slice(4, 12))  # 4 x 8 of 16 x 16 pixels: an eighth of the area
BRIGHTNESS, PATCH_ONLY, PERIODIC, OPPOSITE, LEFT_RIGHT, NOTHING, SATURATING = range(7)


def _patch(alpha: float) -> NDArray[np.float64]:
    change = np.zeros((SIDE, SIDE, 3))
    change[PATCH] = 20 * alpha
    return change


def _left_right(alpha: float) -> NDArray[np.float64]:
    change = np.full((SIDE, SIDE, 3), 6 * alpha)
    change[:, SIDE // 2 :] *= -1
    return change


CHANGES: dict[int, Callable[[float], NDArray[np.float64] | float]] = {
    BRIGHTNESS: lambda alpha: 6 * alpha,
    PATCH_ONLY: _patch,
    PERIODIC: lambda alpha: 20 * np.sin(2 * np.pi * alpha / 3),
    OPPOSITE: lambda alpha: -3 * alpha,
    LEFT_RIGHT: _left_right,
    NOTHING: lambda alpha: 0.0,
    SATURATING: lambda alpha: 5 * float(np.clip(alpha, -1.5, 1.5)),
}


@dataclass(frozen=True)
class SyntheticImages:
    """As `sefa_runtime.explore.samples.Samples`."""

    count: int = 20
    image_shape: tuple[int, int, int] = (SIDE, SIDE, 3)

    def sweep(self, direction: int, alphas: Sequence[float], rows: slice) -> NDArray[np.uint8]:
        numbers = np.arange(self.count)[rows]
        images = np.empty((len(numbers), len(alphas), *self.image_shape))
        for step, alpha in enumerate(alphas):
            images[:, step] = GREY + CHANGES[direction](alpha)
        images += APART * (numbers % 2)[:, None, None, None, None]
        return np.rint(images).clip(0, 255).astype(np.uint8)
