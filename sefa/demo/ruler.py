"""What a ruler says of a font: six numbers from the images of its glyphs.

Each is measured on the characters that show it, in pixels or ratios of pixels, so that anyone can check it.
"""

import string
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

Ink = NDArray[np.floating]  # 0 paper, 1 ink

CHARACTERS = string.ascii_uppercase + string.ascii_lowercase + string.digits  # a letter's label is its index here
# Of images of 64x64 pixels: rows above the baseline; the 18 rows below hold descenders of half the cap height.
CAP_HEIGHT = 36
BASELINE = 46

STEMS = "HILhln"  # upright strokes, whose shear is the slant
FEET = "HIhln"  # stems that end on the baseline, where serifs are
ROUND = "Oo"
WIDE = "HOno"
X_HEIGHT = "noux"
MEASURED = "".join(sorted(set(STEMS + FEET + ROUND + WIDE + X_HEIGHT)))


def measure(font: Mapping[str, Ink]) -> dict[str, float]:
    """Measure a font from the ink [64, 64] of each character in `MEASURED`.

    Returns:
        weight: Share of the image that is inked, averaged over the characters.
        slant: Shear of upright strokes: pixels to the right per pixel up.
        width: Width of the box of ink, in pixels.
        x-height: Height of small letters, as a share of the cap height.
        contrast: Log of how much thicker round letters are at their sides than at top and bottom.
        serif: Log of how much wider stems are at the baseline than above it.
    """
    return {
        "weight": float(np.mean([font[character].mean() for character in MEASURED])),
        "slant": float(np.mean([slant(font[character]) for character in STEMS])),
        "width": float(np.mean([box(font[character])[0] for character in WIDE])),
        "x-height": float(np.mean([box(font[character])[1] for character in X_HEIGHT])) / CAP_HEIGHT,
        "contrast": float(np.mean([contrast(font[character]) for character in ROUND])),
        "serif": float(np.mean([serif(font[character]) for character in FEET])),
    }


def slant(ink: Ink) -> float:
    """Return the shear of the second moments: cov(x, y)/var(y), y upwards."""
    total = ink.sum()
    if total == 0:
        return 0.0
    rows, columns = np.indices(ink.shape)
    x, y = columns - (ink * columns).sum() / total, (ink * rows).sum() / total - rows
    return float((ink * x * y).sum() / max((ink * y * y).sum(), 1e-6))


def box(ink: Ink) -> tuple[float, float]:
    """Return the width and height of the box of ink, counting a pixel at its edge by its share of the darkest there."""
    return _extent(ink.max(axis=0)), _extent(ink.max(axis=1))


def contrast(ink: Ink) -> float:
    """Return log(thickness at the sides/thickness at top and bottom) of a round letter."""
    height, width = (_middle(ink.sum(axis=axis)) for axis in (1, 0))
    sides = ink[height - 1 : height + 2].sum(axis=1).mean()
    ends = ink[:, width - 1 : width + 2].sum(axis=0).mean()
    return float(np.log(max(sides, 0.5) / max(ends, 0.5)))


def serif(ink: Ink) -> float:
    """Return log(ink of the two rows on the baseline/ink of rows a quarter of the cap height above it)."""
    above = BASELINE - CAP_HEIGHT // 4
    foot, stem = (ink[row - 2 : row].sum(axis=1).mean() for row in (BASELINE, above))
    return float(np.log(max(foot, 0.5) / max(stem, 0.5)))


def _extent(profile: NDArray[np.floating]) -> float:
    inside = np.flatnonzero(profile >= 0.5)
    if not len(inside):
        return 0.0
    first, last = int(inside[0]), int(inside[-1])
    edges = (profile[first - 1] if first else 0.0) + (profile[last + 1] if last + 1 < len(profile) else 0.0)
    return last - first + 1 + float(edges)


def _middle(profile: NDArray[np.floating]) -> int:
    """Return the middle of the box of ink, kept clear of the edges."""
    inside = np.flatnonzero(profile > 0.5)
    middle = (int(inside[0]) + int(inside[-1])) // 2 if len(inside) else len(profile) // 2
    return min(max(middle, 1), len(profile) - 2)
