"""The ruler, on shapes whose sizes are known."""

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from sefa.demo.ruler import BASELINE, CAP_HEIGHT, MEASURED, box, contrast, measure, serif, slant

Ink = NDArray[np.float64]
SCALE = 8  # shapes are drawn larger and averaged, as glyphs are


def draw(*polygons: Sequence[tuple[float, float]], light: Sequence[tuple[float, float, float, float]] = ()) -> Ink:
    """Draw polygons in pixels, and paper-coloured ellipses over them."""
    canvas = Image.new("L", (64 * SCALE, 64 * SCALE))
    pen = ImageDraw.Draw(canvas)
    for polygon in polygons:
        pen.polygon([(x * SCALE, y * SCALE) for x, y in polygon], fill=255)
    for ellipse in light:
        pen.ellipse([value * SCALE for value in ellipse], fill=0)
    return np.asarray(canvas.resize((64, 64), Image.Resampling.BOX)) / 255


def stem(width: float = 6, shear: float = 0, foot: float = 0) -> Ink:
    """Draw an upright stroke from the baseline to the cap height; `foot`: how much a serif adds to each side."""
    top, right = BASELINE - CAP_HEIGHT, shear * CAP_HEIGHT
    left = 32 - width / 2
    stroke = [(left, BASELINE), (left + width, BASELINE), (left + width + right, top), (left + right, top)]
    serifs = [(left - foot, BASELINE - 2), (left + width + foot, BASELINE - 2)]
    serifs += [(left + width + foot, BASELINE), (left - foot, BASELINE)]
    return draw(stroke, serifs) if foot else draw(stroke)


def ring(sides: float, ends: float) -> Ink:
    """Draw a block of 30x36 with an elliptic hole that leaves so much at the sides, and at top and bottom."""
    return draw([(17, 10), (47, 10), (47, 46), (17, 46)], light=[(17 + sides, 10 + ends, 47 - sides, 46 - ends)])


@pytest.mark.parametrize("shear", [0, 0.2, -0.1])
@pytest.mark.parametrize("width", [3, 9])
def test_slant_is_the_shear(shear: float, width: float) -> None:
    assert slant(stem(width, shear)) == pytest.approx(shear, abs=0.02)


def test_box_counts_parts_of_pixels() -> None:
    assert box(stem(6.5)) == pytest.approx((6.5, CAP_HEIGHT), abs=0.3)
    assert box(np.zeros((64, 64))) == (0, 0)


@pytest.mark.parametrize(("sides", "ends"), [(4, 4), (8, 2), (3, 6)])
def test_contrast_compares_sides_with_ends(sides: float, ends: float) -> None:
    assert contrast(ring(sides, ends)) == pytest.approx(np.log(sides / ends), abs=0.15)


def test_serifs_widen_the_foot() -> None:
    assert serif(stem(6)) == pytest.approx(0, abs=0.02)
    assert serif(stem(6, foot=6)) == pytest.approx(np.log(18 / 6), abs=0.1)
    assert serif(stem(6, shear=0.2)) == pytest.approx(0, abs=0.02)


def test_blank_images_have_measures() -> None:
    blank = np.zeros((64, 64))
    assert all(np.isfinite(value) for value in measure(dict.fromkeys(MEASURED, blank)).values())


def test_a_font_is_measured_over_its_characters() -> None:
    thin, thick = (measure(dict.fromkeys(MEASURED, stem(width, 0.1))) for width in (4, 8))
    assert thick["weight"] == pytest.approx(2 * thin["weight"], rel=0.02)
    assert thick["slant"] == pytest.approx(0.1, abs=0.02)
    assert thick["x-height"] == pytest.approx(1, abs=0.05)
