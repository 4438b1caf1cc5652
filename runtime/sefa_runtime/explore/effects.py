"""Measuring what one direction does to many images."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sefa_runtime.explore.samples import Samples, in_parts
from sefa_runtime.images import Images

# Steps from 0 to each end of a range, at which images are compared.
STEPS = 3
# Changes are compared between directions on images averaged down to at most this many pixels a side.
SIGNATURE_SIDE = 32


@dataclass(frozen=True)
class Effect:
    """What one direction does to the images, over a range of alpha.

    Attributes:
        direction: Its index.
        alpha_range: Least and greatest alpha, suggested or requested.
        ends: Why the range ends there, below and above 0: see `sefa_runtime.explore.ranges`; `given`: it was requested.
        strength: Mean absolute change per unit of alpha near 0, in grey levels (0 to 255).
        change: Mean absolute change at the ends of the range, in grey levels.
        area: Share of the image's area, 0 to 0.5, that holds half of the change: 0.5 is uniform.
        monotone: Share of the steps away from 0, 0 to 1, that take an image further from the unedited one.
    """

    direction: int
    alpha_range: tuple[float, float]
    ends: tuple[str, str]
    strength: float
    change: float
    area: float
    monotone: float

    @property
    def is_nothing(self) -> bool:
        """Whether the direction changes nothing."""
        return self.ends == ("nothing", "nothing")


@dataclass(frozen=True, eq=False)
class Measurement:
    """An effect, and where in the images it acts.

    Attributes:
        effect: The numbers.
        change_map: Mean absolute change of each pixel at the ends of the range, grey levels, float32 [H, W].
        signature: The image at the upper end minus the one at the lower end, for each sample, averaged down to few
            pixels: float16 [N, h, w, C].
    """

    effect: Effect
    change_map: NDArray[np.float32]
    signature: NDArray[np.float16]


def measure(
    samples: Samples,
    direction: int,
    alpha_range: tuple[float, float],
    ends: tuple[str, str] = ("given", "given"),
) -> Measurement:
    """Measure one direction over a range.

    Args:
        samples: The images, at least one.
        direction: Its index.
        alpha_range: Least and greatest alpha, on either side of 0.
        ends: Why the range ends there.
    """
    low, high = alpha_range
    sides = np.arange(1, STEPS + 1) / STEPS
    alphas = [0.0, *(low * sides), *(high * sides)]
    height, width, _ = samples.image_shape
    distances = np.zeros((samples.count, 2, STEPS + 1))
    change_map = np.zeros((height, width))
    signatures = []
    for rows in in_parts(samples, len(alphas)):
        still, *moved = samples.sweep(direction, alphas, rows).astype(np.int16).swapaxes(0, 1)
        for index, images in enumerate(moved):
            changes = np.abs(images - still)  # [n, H, W, C]
            side, step = divmod(index, STEPS)
            distances[rows, side, step + 1] = changes.mean((1, 2, 3))
            if step == STEPS - 1:
                change_map += changes.mean(3).sum(0) / 2
        signatures.append(reduce_to(moved[-1] - moved[STEPS - 1], SIGNATURE_SIDE).astype(np.float16))
    change_map /= samples.count
    near, far = distances[:, :, 1].mean(0), distances[:, :, STEPS].mean(0)  # [2] each: below and above 0
    effect = Effect(
        direction=direction,
        alpha_range=alpha_range,
        ends=ends,
        strength=float(np.mean(near * STEPS / np.abs(alpha_range))),
        change=float(far.mean()),
        area=area_of_half(change_map),
        monotone=float((np.diff(distances, axis=2) > 0).mean()),
    )
    return Measurement(effect, change_map.astype(np.float32), np.concatenate(signatures))


def area_of_half(change_map: NDArray[np.floating]) -> float:
    """Return the share of the area, 0 to 0.5, that holds half of the change; 0 if there is no change."""
    change = np.sort(change_map, axis=None)[::-1].astype(np.float64)
    total = change.sum()
    if total == 0:
        return 0.0
    held = np.cumsum(change)
    whole = int(np.searchsorted(held, total / 2))  # pixels counted whole
    before = held[whole - 1] if whole else 0.0
    return float((whole + (total / 2 - before) / change[whole]) / change.size)


def reference_change(samples: Samples) -> tuple[float, Images]:
    """Measure how much different images differ, and compute their mean.

    Returns:
        reference: Mean absolute difference between each sample and the next, in grey levels.
        mean: uint8 [H, W, C].
    """
    total = np.zeros(samples.image_shape)
    differences: list[float] = []
    last = None
    first = None
    for rows in in_parts(samples, 1):
        images = samples.sweep(0, [0.0], rows)[:, 0].astype(np.int16)
        total += images.sum(0)
        for image in images:
            if last is None:
                first = image
            else:
                differences.append(float(np.abs(image - last).mean()))
            last = image
    if first is not None and last is not None:
        differences.append(float(np.abs(first - last).mean()))
    return float(np.mean(differences)), np.rint(total / samples.count).astype(np.uint8)


def reduce_to(images: NDArray[np.number], side: int) -> NDArray[np.float32]:
    """Average images down to at most `side` pixels a side: [N, H, W, C] -> [N, h, w, C]."""
    averaged = images.astype(np.float32)
    for axis in (1, 2):
        size = averaged.shape[axis]
        if size > side:
            edges = np.arange(side) * size // side
            sums = np.add.reduceat(averaged, edges, axis=axis)
            shape = [1] * averaged.ndim
            shape[axis] = side
            averaged = sums / np.diff(edges, append=size).astype(np.float32).reshape(shape)
    return averaged
