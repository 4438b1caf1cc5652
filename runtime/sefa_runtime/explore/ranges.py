"""How far to go along a direction: a suggested range of alpha, from how much the images change.

d(alpha) is the mean absolute difference, in grey levels, between edited and unedited images; the reference is the
mean absolute difference between different images. On either side of 0, a range ends

- `change`: where d reaches `TARGET` of the reference, halfway to a different image; or before that
- `flat`: where d has stopped growing: doubling alpha would add less than `LEAST_GROWTH`; or
- `limit`: at `limit_of` the model, beyond which latents are unlike those it was trained on.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from sefa_runtime.explore.samples import Samples, in_parts
from sefa_runtime.model.info import ModelInfo

TARGET = 0.5
LEAST_GROWTH = 0.05
START = 1.0
SMALLEST = 1e-6
# A search ends at the first alpha tried where the change is this close to the target, as a share of it.
NEAR, ROUGHLY_NEAR = 0.05, 0.15
# Images that a thorough search begins with, to come near the end on few.
PILOT = 2
MOST_STEP = 4.0
# A mean change, in grey levels, that nobody can see and that rounding to uint8 does not account for.
NOTHING = 0.01
# In standard deviations, where alpha moves z itself: only one in two million latents lies beyond.
LIMIT_OF_Z = 5.0
# Style codes have no natural scale: this only keeps the search from being endless.
LIMIT_OF_STYLE = 50.0
# Why a range may end; `given`: it was requested.
ENDS = ("change", "flat", "limit", "nothing", "given")


@dataclass(frozen=True)
class End:
    """One end of a range.

    Attributes:
        alpha: Distance from 0, positive, two significant digits.
        reason: `change`, `flat`, `limit`, or `nothing`: the limit was reached with the images unchanged.
    """

    alpha: float
    reason: str


def limit_of(info: ModelInfo) -> float:
    """Return the largest alpha ever suggested for a model."""
    moves_z = info.latent == "z" and "stylegan" not in info.family
    return LIMIT_OF_Z if moves_z else LIMIT_OF_STYLE


def suggest_range(
    samples: Samples, direction: int, reference: float, limit: float, guess: float | None = None
) -> tuple[End, End]:
    """Find a range of alpha.

    Args:
        samples: The images.
        direction: Index of the direction.
        reference: Mean absolute difference between different images, in grey levels.
        limit: The largest alpha to suggest.
        guess: Search only roughly, and begin here. None: search on a few of the images first.

    Returns:
        The ends below and above 0.
    """

    def change(alpha: float, count: int) -> float:
        changes = []
        for rows in in_parts(samples, 2, most=count):
            before, after = samples.sweep(direction, [0.0, alpha], rows).astype(np.int16).swapaxes(0, 1)
            changes.append(np.abs(after - before).mean((1, 2, 3)))
            if rows.stop >= count:
                break
        return float(np.concatenate(changes)[:count].mean())

    def search(sign: int, start: float, count: int, near: float) -> End:
        return find_end(lambda alpha: change(sign * alpha, count), TARGET * reference, limit, start, near)

    pilot = samples.count if guess is not None else min(PILOT, samples.count)
    above = search(1, START if guess is None else guess, pilot, ROUGHLY_NEAR)
    below = search(-1, above.alpha, pilot, ROUGHLY_NEAR)
    if guess is not None:
        return below, above
    return search(-1, below.alpha, samples.count, NEAR), search(1, above.alpha, samples.count, NEAR)


def find_end(
    change: Callable[[float], float], target: float, limit: float, start: float = START, near: float = NEAR
) -> End:
    """Find where `change(alpha)` reaches `target` or stops growing, or alpha reaches the limit.

    Steps scaled by how far off the change is come near or bracket the alpha; false position then finds it.

    Args:
        change: Returns how much the images change at an alpha.
        target: The value of `change` to reach.
        limit: The largest alpha.
        start: The first alpha to try.
        near: End at the first alpha where the change is within this share of `target`. At 0.05 or more, steps do not
            vanish in the rounding of alpha to two digits.
    """

    def is_near(reached: float) -> bool:
        return abs(reached - target) < near * target

    def next_alpha(alpha: float, reached: float) -> float:
        factor = target / max(reached, target / MOST_STEP)
        return round_to_two_digits(alpha * max(factor, 1 / MOST_STEP))

    below = (0.0, 0.0)
    alpha = min(start, limit)
    reached = change(alpha)
    if reached >= target:
        while reached >= target and alpha > SMALLEST:
            if is_near(reached):
                return End(alpha, "change")
            above, alpha = (alpha, reached), next_alpha(alpha, reached)
            reached = change(alpha)
        below = (alpha, reached) if reached < target else below  # A jump at 0.
    else:
        while reached < target:
            if is_near(reached):
                return End(alpha, "change")
            before, below = below, (alpha, reached)
            # A doubling must add at least LEAST_GROWTH, a shorter step in proportion.
            growth = LEAST_GROWTH * (alpha / before[0] - 1) if before[0] else 0.0
            if before[1] > NOTHING and reached < before[1] * (1 + growth):
                if before[0] == start > START:  # It may have gone flat long before.
                    return find_end(change, target, limit, START, near)
                return End(before[0], "flat")
            if alpha >= limit:
                return End(limit, "limit" if reached > NOTHING else "nothing")
            alpha = min(next_alpha(alpha, reached), limit)
            reached = change(alpha)
        above = (alpha, reached)
    for _ in range(2):
        if is_near(reached):
            return End(alpha, "change")
        alpha = round_to_two_digits(_between(below, above, target))
        reached = change(alpha)
        if reached < target:
            below = (alpha, reached)
        else:
            above = (alpha, reached)
    if is_near(reached):
        return End(alpha, "change")
    return End(round_to_two_digits(_between(below, above, target)), "change")


def round_to_two_digits(number: float) -> float:
    """Round to two significant digits: 1.2345 -> 1.2, 12.345 -> 12."""
    return float(f"{number:.2g}")


def _between(below: tuple[float, float], above: tuple[float, float], target: float) -> float:
    share = (target - below[1]) / (above[1] - below[1])
    return below[0] + share * (above[0] - below[0])
