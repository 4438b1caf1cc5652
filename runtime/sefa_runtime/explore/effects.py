"""Measuring what one direction does to many images, and how certain that is."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sefa_runtime.explore.samples import Samples, in_parts
from sefa_runtime.images import Images

# Steps from 0 to each end of a range, at which images are compared.
STEPS = 3
# Changes are compared between directions on images averaged down to at most this many pixels a side.
SIGNATURE_SIDE = 32
# Images measured between two looks at the standard errors.
ROUND = 4
# Standard errors to reach: shares of the strength and of the change; parts of the area and of the steps.
RELATIVE_ERROR, AREA_ERROR, MONOTONE_ERROR = 0.06, 0.02, 0.03
# Where directions act is compared between groups of images, on maps averaged down to at most this many pixels a side.
GROUPS, MAP_SIDE = 16, 128


@dataclass(frozen=True)
class StandardErrors:
    """How far an effect's numbers are likely to be from those of very many images.

    Attributes:
        alpha_range: Of each end that was searched for and found by the change; None of others. It does not count the
            error of the reference, which all directions share.
        strength: In grey levels per unit of alpha.
        change: In grey levels.
        area: As a share of the image.
        monotone: As a share of the steps.
    """

    alpha_range: tuple[float | None, float | None]
    strength: float
    change: float
    area: float
    monotone: float


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
        images: How many images it was measured on.
        errors: Standard errors of the numbers.
    """

    direction: int
    alpha_range: tuple[float, float]
    ends: tuple[str, str]
    strength: float
    change: float
    area: float
    monotone: float
    images: int
    errors: StandardErrors

    @property
    def is_nothing(self) -> bool:
        """Whether the direction changes nothing."""
        return self.ends == ("nothing", "nothing")

    @property
    def is_precise(self) -> bool:
        """Whether more images would change little."""
        return (
            self.errors.strength <= RELATIVE_ERROR * self.strength
            and self.errors.change <= RELATIVE_ERROR * self.change
            and self.errors.area <= AREA_ERROR
            and self.errors.monotone <= MONOTONE_ERROR
        )


@dataclass(frozen=True, eq=False)
class Measurement:
    """An effect, and where in the images it acts.

    Attributes:
        effect: The numbers.
        change_map: Mean absolute change of each pixel at the ends of the range, grey levels, float32 [H, W].
        signature: The image at the upper end minus the one at the lower end, for each image measured, averaged down to
            few pixels: float16 [N, h, w, C].
    """

    effect: Effect
    change_map: NDArray[np.float32]
    signature: NDArray[np.float16]


def measure(
    samples: Samples,
    direction: int,
    alpha_range: tuple[float, float],
    ends: tuple[str, str] = ("given", "given"),
    least: int | None = None,
    searched: int | None = None,
) -> Measurement:
    """Measure one direction over a range.

    Args:
        samples: The images, at least two.
        direction: Its index.
        alpha_range: Least and greatest alpha, on either side of 0.
        ends: Why the range ends there.
        least: Measure on this many images, then on a few more until the standard errors are small or there are no more;
            None: measure on all.
        searched: How many of the images the range was found on; None: all.
    """
    low, high = alpha_range
    sides = np.arange(1, STEPS + 1) / STEPS
    alphas = [0.0, *(low * sides), *(high * sides)]
    height, width, _ = samples.image_shape
    distances = np.zeros((samples.count, 2, STEPS + 1))
    change_map = np.zeros((height, width))
    groups = np.zeros((GROUPS, *reduce_to(change_map[None, ..., None], MAP_SIDE).shape[1:3]))
    signatures: list[NDArray[np.float16]] = []
    for rows in in_parts(samples, len(alphas), most=ROUND):
        still, *moved = samples.sweep(direction, alphas, rows).astype(np.int16).swapaxes(0, 1)
        for index, images in enumerate(moved):
            changes = np.abs(images - still)  # [n, H, W, C]
            side, step = divmod(index, STEPS)
            distances[rows, side, step + 1] = changes.mean((1, 2, 3))
            if step == STEPS - 1:
                maps = changes.mean(3) / 2  # [n, H, W]
                change_map += maps.sum(0)
                reduced = reduce_to(maps[..., None], MAP_SIDE)[..., 0]  # [n, h, w]
                np.add.at(groups, np.arange(rows.start, rows.stop) % GROUPS, reduced)
        signatures.append(reduce_to(moved[-1] - moved[STEPS - 1], SIGNATURE_SIDE).astype(np.float16))
        is_last = rows.stop == samples.count
        if is_last or (least is not None and rows.stop >= least):
            effect = _effect(direction, alpha_range, ends, distances[: rows.stop], groups, searched)
            if is_last or effect.is_precise:
                break
    return Measurement(effect, (change_map / effect.images).astype(np.float32), np.concatenate(signatures))


def _effect(
    direction: int,
    alpha_range: tuple[float, float],
    ends: tuple[str, str],
    distances: NDArray[np.float64],
    groups: NDArray[np.float64],
    searched: int | None,
) -> Effect:
    """Return an effect and its standard errors.

    Args:
        direction: Its index.
        alpha_range: Its range.
        ends: Why the range ends there.
        distances: Mean absolute change of each image, side, and step from 0, [n, 2, STEPS + 1].
        groups: Sum of the images' change maps in each group, [GROUPS, h, w].
        searched: How many of the images the range was found on; None: all.
    """
    count = len(distances)
    near, far = distances[:, :, 1], distances[:, :, STEPS]  # [n, 2] each: below and above 0
    strengths = (near * STEPS / np.abs(alpha_range)).mean(1)
    changes = far.mean(1)
    monotone = (np.diff(distances, axis=2) > 0).mean((1, 2))
    slopes = (far - distances[:, :, STEPS - 1]).mean(0) * STEPS / np.abs(alpha_range)  # levels per alpha at each end
    below, above = (
        standard_error(far[:searched, side]) / float(slopes[side])
        if ends[side] == "change" and slopes[side] > 0
        else None
        for side in range(2)
    )
    area, error = area_of_many(groups[:count])
    return Effect(
        direction=direction,
        alpha_range=alpha_range,
        ends=ends,
        strength=float(strengths.mean()),
        change=float(changes.mean()),
        area=area,
        monotone=float(monotone.mean()),
        images=count,
        errors=StandardErrors(
            alpha_range=(below, above),
            strength=standard_error(strengths),
            change=standard_error(changes),
            area=error,
            monotone=standard_error(monotone),
        ),
    )


def standard_error(values: NDArray[np.float64]) -> float:
    """Return the standard error of the mean of independent values, at least two."""
    return float(values.std(ddof=1) / np.sqrt(len(values)))


def area_of_many(groups: NDArray[np.float64]) -> tuple[float, float]:
    """Return what `area_of_half` would be of very many images, and its standard error, by the jackknife.

    The map of few images is uneven by chance, which makes its area smaller. The jackknife finds how much from what the
    area is without each group of images in turn.

    Args:
        groups: Each group's change map, [G, h, w], at least two.
    """
    count, total = len(groups), groups.sum(0)
    without = np.array([area_of_half(total - group) for group in groups])
    area = count * area_of_half(total) - (count - 1) * without.mean()
    error = np.sqrt((count - 1) / count * ((without - without.mean()) ** 2).sum())
    return float(np.clip(area, 0, 0.5)), float(error)


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


def reference_change(samples: Samples) -> tuple[float, float, Images]:
    """Measure how much different images differ, and compute their mean.

    Returns:
        reference: Mean absolute difference between each sample and the next, in grey levels.
        error: Its standard error.
        mean: uint8 [H, W, C].
    """
    total = np.zeros(samples.image_shape)
    differences: list[float] = []
    first = last = None
    for rows in in_parts(samples, 1):
        images = samples.sweep(0, [0.0], rows)[:, 0].astype(np.int16)
        total += images.sum(0)
        first = images[0] if first is None else first
        for image in images:
            if last is not None:
                differences.append(float(np.abs(image - last).mean()))
            last = image
    if first is not None and last is not None:
        differences.append(float(np.abs(first - last).mean()))
    mean = np.rint(total / samples.count).astype(np.uint8)
    return float(np.mean(differences)), standard_error(np.array(differences)), mean


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
