from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

from sefa_runtime.explore.effects import Effect, area_of_half, area_of_many, measure, reduce_to, reference_change
from sefa_runtime.explore.samples import MAX_BYTES, in_parts
from sefa_runtime.explore.similarity import looks_like, similarity
from support.synthetic_images import (
    BRIGHTNESS,
    LEFT_RIGHT,
    NOTHING,
    OPPOSITE,
    PATCH,
    PATCH_ONLY,
    PERIODIC,
    SATURATING,
    SyntheticImages,
)

RANGE = (-3.0, 3.0)
IMAGES = SyntheticImages()


def _effect(direction: int, alpha_range: tuple[float, float] = RANGE) -> Effect:
    return measure(IMAGES, direction, alpha_range).effect


def test_brightness_is_everywhere_and_as_strong_as_it_was_made() -> None:
    effect = _effect(BRIGHTNESS)  # 6 levels per alpha
    assert effect.strength == pytest.approx(6)
    assert effect.change == pytest.approx(18)
    assert effect.area == pytest.approx(0.5)
    assert effect.monotone == 1
    assert effect.ends == ("given", "given")


def test_a_range_need_not_be_symmetric() -> None:
    effect = _effect(BRIGHTNESS, (-1.5, 4.5))
    assert effect.strength == pytest.approx(6)
    assert effect.change == pytest.approx((6 * 1.5 + 6 * 4.5) / 2)


def test_a_patch_is_local_and_where_it_was_put() -> None:
    measurement = measure(IMAGES, PATCH_ONLY, RANGE)  # 20 levels per alpha in an eighth of the area
    assert measurement.effect.strength == pytest.approx(20 / 8)
    assert measurement.effect.area == pytest.approx(1 / 16)
    expected = np.zeros((16, 16))
    expected[PATCH] = 60
    np.testing.assert_allclose(measurement.change_map, expected)


def test_what_comes_and_goes_is_not_monotone() -> None:
    # |sin| at thirds of a period of 3: 0, .87, .87, 0: one step of three leads away.
    assert _effect(PERIODIC).monotone == pytest.approx(1 / 3)
    assert _effect(PERIODIC, (-0.75, 0.75)).monotone == 1
    # Two of three steps up to where it stays as it is, at 1.5.
    assert _effect(SATURATING).monotone == pytest.approx(2 / 3)


def test_nothing_is_nothing() -> None:
    effect = _effect(NOTHING)
    assert (effect.strength, effect.change, effect.area, effect.monotone) == (0, 0, 0, 0)


def test_duplicates_are_alike_and_orthogonal_effects_are_not() -> None:
    directions = (BRIGHTNESS, OPPOSITE, LEFT_RIGHT, PATCH_ONLY, NOTHING)
    cosines = similarity([measure(IMAGES, direction, (-1.0, 1.0)).signature for direction in directions])
    bright, opposite, left_right, patch, nothing = range(5)
    assert cosines[bright, opposite] == pytest.approx(1)
    assert cosines[bright, left_right] == pytest.approx(0)
    # Of vectors that are 1 everywhere, and 1 in an eighth of the places: 1/8 / sqrt(1/8).
    assert cosines[bright, patch] == pytest.approx(np.sqrt(1 / 8))
    assert (cosines[nothing] == 0).all()
    np.testing.assert_array_equal(cosines, cosines.T)
    assert [other for other, _ in looks_like(cosines, bright)] == [opposite]
    assert looks_like(cosines, nothing) == []


def test_similarity_is_the_cosine_however_long_the_changes_are(monkeypatch: pytest.MonkeyPatch) -> None:
    signatures = np.random.RandomState(0).randn(5, 3, 7, 5, 2).astype(np.float16)
    flat = signatures.reshape(5, -1).astype(np.float64)
    lengths = np.linalg.norm(flat, axis=1)
    monkeypatch.setattr("sefa_runtime.explore.similarity.COLUMNS", 16)
    np.testing.assert_allclose(
        similarity(list(signatures)), np.abs(flat @ flat.T) / np.outer(lengths, lengths), atol=1e-6
    )


@pytest.mark.parametrize(
    ("change_map", "share"),
    [
        ([[4, 2], [1, 1]], 1 / 4),  # The first of four pixels holds 4 of 8.
        ([[3, 1], [0, 0]], 1 / 6),  # Two thirds of a pixel hold 2 of 4.
        ([[1, 1], [1, 1]], 1 / 2),
        ([[0, 0], [0, 0]], 0),
    ],
)
def test_the_area_that_holds_half(change_map: list[list[float]], share: float) -> None:
    assert area_of_half(np.array(change_map, np.float32)) == pytest.approx(share)


def test_the_reference_is_how_much_images_differ() -> None:
    reference, error, mean = reference_change(IMAGES)
    assert (reference, error) == pytest.approx((24, 0))
    assert mean.shape == (16, 16, 3)
    assert (mean == 112).all()  # Half of them 100, half 124.


@dataclass(frozen=True)
class Uneven(SyntheticImages):
    """Images that alpha makes brighter by 6 levels each, on average, with a known standard deviation."""

    deviation: float = 0.0

    def sweep(self, direction: int, alphas: Sequence[float], rows: slice) -> NDArray[np.uint8]:
        numbers = np.arange(self.count)[rows]
        slopes = 6 + self.deviation * np.where(numbers % 2, 1, -1)
        images = np.full((len(numbers), len(alphas), *self.image_shape), 100.0)
        images += (slopes[:, None] * np.asarray(alphas))[..., None, None, None]
        rounded: NDArray[np.uint8] = np.rint(images).clip(0, 255).astype(np.uint8)
        return rounded


@pytest.mark.parametrize(("deviation", "images"), [(0, 8), (1, 12), (2, 32), (5, 40)])
def test_images_are_measured_until_the_numbers_are_precise(deviation: float, images: int) -> None:
    # The deviation of n of them is deviation * sqrt(n / (n - 1)); the error is to be at most 6 % of 6 levels.
    effect = measure(Uneven(count=40, deviation=deviation), BRIGHTNESS, RANGE, least=8).effect
    assert effect.images == images
    assert effect.errors.strength == pytest.approx(deviation / np.sqrt(images - 1))
    assert effect.errors.change == pytest.approx(3 * effect.errors.strength)
    assert effect.is_precise == (effect.errors.strength <= 0.36)
    assert measure(Uneven(count=40, deviation=deviation), BRIGHTNESS, RANGE).effect.images == 40


def test_an_end_is_as_certain_as_the_change_there() -> None:
    images = Uneven(count=16, deviation=2)
    below, above = measure(images, BRIGHTNESS, RANGE, ("change", "limit"), searched=8).effect.errors.alpha_range
    # At -3 the change is 18 +- 6 levels on 8 images, and grows by 6 per alpha.
    assert below == pytest.approx(6 / np.sqrt(7) / 6)
    assert above is None


def test_the_area_of_many_images_is_told_from_few() -> None:
    # Each image's map is a ramp with noise of its own, which lowers the area of few.
    maps = np.random.RandomState(0).gamma(4, size=(2000, 32, 32)) * np.linspace(0, 2, 32)
    many = area_of_half(maps.sum(0))
    few = np.mean([area_of_half(part.sum(0)) for part in maps.reshape(-1, 8, 32, 32)])
    areas, errors = np.array([area_of_many(part) for part in maps.reshape(-1, 8, 32, 32)]).T
    assert many - few > 0.01
    assert abs(areas.mean() - many) < (many - few) / 4
    assert errors.mean() == pytest.approx(areas.std(), rel=0.5)
    assert area_of_many(np.ones((8, 4, 4))) == pytest.approx((0.5, 0))


def test_directions_are_compared_on_the_images_of_both() -> None:
    signatures = list(np.random.RandomState(0).randn(3, 9, 7, 5, 2).astype(np.float16))
    signatures[1] = signatures[1][:4]
    cosines = similarity(signatures)
    shorter = similarity([signature[:4] for signature in signatures])
    np.testing.assert_allclose(cosines[1], shorter[1], atol=1e-6)
    np.testing.assert_allclose(cosines[0, 2], similarity([signatures[0], signatures[2]])[0, 1], atol=1e-6)


def test_the_size_of_parts_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = measure(IMAGES, PERIODIC, RANGE)
    monkeypatch.setattr("sefa_runtime.explore.samples.MAX_BYTES", 3 * 7 * 16 * 16 * 3)
    assert [part.stop - part.start for part in in_parts(IMAGES, 7)] == [3] * 6 + [2]
    parts = measure(IMAGES, PERIODIC, RANGE)
    assert parts.effect == whole.effect
    np.testing.assert_allclose(parts.change_map, whole.change_map)
    np.testing.assert_array_equal(parts.signature, whole.signature)


def test_large_images_come_few_at_once() -> None:
    large = SyntheticImages(count=5, image_shape=(1024, 1024, 3))
    parts = list(in_parts(large, 7))
    assert [part.start for part in parts] == [0, 3]
    assert all((part.stop - part.start) * 7 * 1024 * 1024 * 3 <= MAX_BYTES for part in parts)


def test_images_are_averaged_to_few_pixels() -> None:
    images = np.random.RandomState(0).randint(-255, 256, (2, 12, 20, 3))
    blocks = images.reshape(2, 4, 3, 4, 5, 3).mean((2, 4))
    np.testing.assert_allclose(reduce_to(images, 4), blocks, atol=1e-4)
    np.testing.assert_array_equal(reduce_to(images, 20)[:, :, ::5], images[:, :, ::5])
    # Sides that are no multiple: parts differ by a pixel, and each is a mean.
    np.testing.assert_allclose(reduce_to(np.ones((1, 7, 13, 1)), 5), 1)
    assert reduce_to(np.ones((1, 7, 13, 1)), 5).shape == (1, 5, 5, 1)
