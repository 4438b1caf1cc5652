import numpy as np
import pytest

from sefa_runtime import InputError
from sefa_runtime.images import contact_sheet, enlarge, grid, mosaic


def numbered(*shape: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Images in which every value differs from its neighbours'."""
    return (np.arange(np.prod(shape)) * 37 % 251).astype(np.uint8).reshape(shape)


def test_a_grid_joins_rows_and_columns() -> None:
    images = numbered(2, 3, 4, 5, 3)
    joined = grid(images)
    assert joined.shape == (8, 15, 3)
    np.testing.assert_array_equal(joined[4:8, 10:15], images[1, 2])


def test_enlarging_keeps_leading_axes_and_flat_colours() -> None:
    images = np.full((2, 3, 4, 5, 3), 77, np.uint8)
    large = enlarge(images, 3)
    assert large.shape == (2, 3, 12, 15, 3)
    assert (large == 77).all()
    assert enlarge(numbered(4, 5, 1), 2).shape == (8, 10, 1)


@pytest.mark.parametrize("factor", [0, -1, 33])
def test_a_scale_out_of_range_is_refused(factor: int) -> None:
    with pytest.raises(InputError, match="scale must be 1 to 32"):
        enlarge(numbered(4, 4, 3), factor)


@pytest.mark.parametrize(
    ("count", "shape"), [(1, (1, 1)), (2, (1, 2)), (3, (1, 3)), (4, (2, 2)), (6, (2, 3)), (7, (2, 4)), (16, (4, 4))]
)
def test_a_mosaic_shows_all_animations_at_once(count: int, shape: tuple[int, int]) -> None:
    animations = np.minimum(numbered(count, 3, 4, 5, 3), 254)
    frames = mosaic(animations)
    rows, columns = shape
    assert frames.shape == (3, rows * 4, columns * 5, 3)
    places = [frames[:, y : y + 4, x : x + 5] for y in range(0, rows * 4, 4) for x in range(0, columns * 5, 5)]
    np.testing.assert_array_equal(places[:count], animations)
    assert (np.array(places[count:]) == 255).all()


def test_a_mosaic_of_many_is_neither_narrow_nor_sparse() -> None:
    for count in range(4, 200):
        height, width = mosaic(np.zeros((count, 1, 1, 1, 1), np.uint8)).shape[1:3]
        assert height <= width <= 2.5 * height
        assert 0 <= height * width - count < width


def test_a_sheet_shows_every_image_unscaled() -> None:
    images = np.zeros((2, 3, 4, 16, 8, 3), np.uint8)
    images[1, 2, 3] = (250, 10, 10)
    sheet = contact_sheet(images, ["a", "b"], ["x", "y", "z"], ["1", "2", "3", "4"])
    assert int((sheet == (250, 10, 10)).all(axis=-1).sum()) == 16 * 8
    assert int((sheet == 0).all(axis=-1).sum()) == (2 * 3 * 4 - 1) * 16 * 8


def test_a_sheet_is_on_white_paper() -> None:
    sheet = contact_sheet(np.zeros((1, 1, 1, 32, 32, 4), np.uint8), [""], [""], [""])
    assert sheet.min() == 255
