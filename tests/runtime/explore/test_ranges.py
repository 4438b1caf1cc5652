from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from sefa_runtime import Editor
from sefa_runtime.explore.ranges import End, find_end, limit_of, round_to_two_digits, suggest_range
from support.synthetic_images import BRIGHTNESS, NOTHING, OPPOSITE, PATCH_ONLY, PERIODIC, SATURATING, SyntheticImages

REFERENCE = 24.0  # Between neighbours of `SyntheticImages`; a range ends where half of it is reached.


@pytest.mark.parametrize(
    ("direction", "limit", "expected"),
    [
        (BRIGHTNESS, 5.0, End(2.0, "change")),  # 6 alpha = 12
        (PATCH_ONLY, 5.0, End(4.8, "change")),  # 20/8 alpha = 12
        (OPPOSITE, 5.0, End(4.0, "change")),  # 3 alpha = 12
        (OPPOSITE, 3.0, End(3.0, "limit")),
        (SATURATING, 5.0, End(2.4, "flat")),  # 5 levels at 1, 7.5 at 2.4 and at 3.8
        (NOTHING, 5.0, End(5.0, "nothing")),
    ],
)
def test_a_range_ends_where_its_effect_says(direction: int, limit: float, expected: End) -> None:
    assert suggest_range(SyntheticImages(), direction, REFERENCE, limit) == (expected, expected)


def test_a_strong_direction_ends_below_one() -> None:
    # 20 sin(2 pi alpha / 3) = 12; images have whole levels, hence the tolerance.
    expected = 3 / (2 * np.pi) * np.arcsin(12 / 20)
    below, above = suggest_range(SyntheticImages(), PERIODIC, REFERENCE, 5.0)
    assert above.alpha == pytest.approx(expected, abs=0.015)
    assert below == above
    assert above.reason == "change"


@pytest.mark.parametrize("slope", [1e-3, 0.3, 7.0, 1e4])
def test_the_place_is_found_whatever_the_scale(slope: float) -> None:
    end = find_end(lambda alpha: slope * alpha, 10.0, 1e6)
    assert end == End(round_to_two_digits(10 / slope), "change")


def test_a_curve_that_bends_is_followed() -> None:
    end = find_end(lambda alpha: 10 * alpha**1.5, 50.0, 100.0)
    assert end.alpha == pytest.approx(5 ** (2 / 3), rel=0.05)


def test_a_jump_ends_the_search() -> None:
    assert find_end(lambda alpha: 100.0, 10.0, 5.0).alpha < 1e-5


def test_the_limit_is_that_of_the_space_that_alpha_moves(tiny: Editor) -> None:
    info = tiny.info  # of z
    assert limit_of(info) == 5
    assert limit_of(replace(info, family="stylegan2")) == limit_of(replace(info, latent="w+")) == 50


@pytest.mark.parametrize("guess", [0.03, 1.0, 2.5, 40.0])
@pytest.mark.parametrize("direction", [BRIGHTNESS, PATCH_ONLY, OPPOSITE, SATURATING, NOTHING])
def test_a_rough_search_ends_nearby_wherever_it_begins(direction: int, guess: float) -> None:
    looked: list[float] = []

    class Watched(SyntheticImages):
        def sweep(self, direction: int, alphas: Sequence[float], rows: slice) -> NDArray[np.uint8]:
            looked.extend(alphas)
            return super().sweep(direction, alphas, rows)

    ends = suggest_range(Watched(), direction, REFERENCE, 50.0, guess)
    exact = suggest_range(SyntheticImages(), direction, REFERENCE, 50.0)
    for end, wanted, sign in zip(ends, exact, (-1, 1), strict=True):
        assert end.reason == wanted.reason
        if end.reason == "flat":  # It no longer grows from 1.5 on.
            assert 1.5 <= end.alpha < 3
        else:
            assert end.alpha == pytest.approx(wanted.alpha, rel=0.15)
        if end.reason == "change":
            assert sign * end.alpha in looked  # What was looked at need not be rendered again.


def test_a_search_takes_few_looks_from_a_good_guess() -> None:
    looked: list[float] = []

    def change(alpha: float) -> float:
        looked.append(alpha)
        return float(3 * alpha**0.8)

    end = find_end(change, 12.0, 50.0, start=4.0, near=0.15)
    assert end.alpha == pytest.approx(4 ** (1 / 0.8), rel=0.2)
    assert len(looked) == 2


def test_a_thorough_search_looks_at_few_images_until_it_is_near() -> None:
    looked: list[tuple[float, int]] = []

    class Watched(SyntheticImages):
        def sweep(self, direction: int, alphas: Sequence[float], rows: slice) -> NDArray[np.uint8]:
            looked.append((alphas[-1], rows.stop))
            return super().sweep(direction, alphas, rows)

    _, above = suggest_range(Watched(count=8), OPPOSITE, REFERENCE, 50.0)
    assert above == End(4.0, "change")
    # 3 alpha = 12: two images at 1 and 4, and at -4; then all at both ends.
    assert looked == [(1, 2), (4, 2), (-4, 2), (-4, 8), (4, 8)]
