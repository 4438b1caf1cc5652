from dataclasses import replace

import numpy as np
import pytest

from made_pictures import BRIGHTNESS, NOTHING, OPPOSITE, PATCH_ONLY, PERIODIC, SATURATING, MadePictures
from sefa_runtime import Editor
from sefa_runtime.explore.ranges import End, find_end, limit_of, round_to_two_digits, suggest_range

REFERENCE = 24.0  # Between neighbours of `MadePictures`; a range ends where half of it is reached.


@pytest.mark.parametrize(
    ("direction", "limit", "expected"),
    [
        (BRIGHTNESS, 5.0, End(2.0, "change")),  # 6 alpha = 12
        (PATCH_ONLY, 5.0, End(4.8, "change")),  # 20/8 alpha = 12
        (OPPOSITE, 5.0, End(4.0, "change")),  # 3 alpha = 12
        (OPPOSITE, 3.0, End(3.0, "limit")),
        (SATURATING, 5.0, End(2.0, "flat")),  # 7.5 levels at 2 and at 4
        (NOTHING, 5.0, End(5.0, "nothing")),
    ],
)
def test_a_range_ends_where_its_effect_says(direction: int, limit: float, expected: End) -> None:
    assert suggest_range(MadePictures(), direction, REFERENCE, limit) == (expected, expected)


def test_a_strong_direction_ends_below_one() -> None:
    # 20 sin(2 pi alpha / 3) = 12; pictures have whole levels, hence the tolerance.
    expected = 3 / (2 * np.pi) * np.arcsin(12 / 20)
    below, above = suggest_range(MadePictures(), PERIODIC, REFERENCE, 5.0)
    assert above.alpha == pytest.approx(expected, abs=0.015)
    assert below == above
    assert above.reason == "change"


@pytest.mark.parametrize("slope", [1e-3, 0.3, 7.0, 1e4])
def test_the_place_is_found_whatever_the_scale(slope: float) -> None:
    end = find_end(lambda alpha: slope * alpha, 10.0, 1e6)
    assert end == End(round_to_two_digits(10 / slope), "change")


def test_a_curve_that_bends_is_followed() -> None:
    end = find_end(lambda alpha: 10 * alpha**1.5, 50.0, 100.0)
    assert end.alpha == pytest.approx(5 ** (2 / 3), rel=0.03)


def test_a_jump_ends_the_search() -> None:
    assert find_end(lambda alpha: 100.0, 10.0, 5.0).alpha < 1e-5


def test_the_limit_is_that_of_the_space_that_alpha_moves(tiny: Editor) -> None:
    info = tiny.info  # of z
    assert limit_of(info) == 5
    assert limit_of(replace(info, family="stylegan2")) == limit_of(replace(info, latent="w+")) == 50
