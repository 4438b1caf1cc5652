from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageSequence

from sefa_runtime import InputError
from sefa_runtime.images import contact_sheet, eased, enlarge, grid, mosaic, save_animation, save_image


def numbered(*shape: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Images in which every value differs from its neighbours'."""
    return (np.arange(np.prod(shape)) * 37 % 251).astype(np.uint8).reshape(shape)


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB"), (4, "RGBA")])
def test_a_png_holds_the_very_values(tmp_path: Path, channels: int, mode: str) -> None:
    image = numbered(5, 7, channels)
    save_image(image, tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as opened:
        assert opened.mode == mode
        np.testing.assert_array_equal(np.asarray(opened).reshape(image.shape), image)


@pytest.mark.parametrize(("name", "kind"), [("a.jpg", "JPEG"), ("a.JPEG", "JPEG"), ("a.webp", "WEBP")])
def test_the_suffix_chooses_the_format(tmp_path: Path, name: str, kind: str) -> None:
    save_image(numbered(8, 8, 4), tmp_path / name)
    with Image.open(tmp_path / name) as image:
        assert image.format == kind


def test_a_image_that_a_format_cannot_hold_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="2 channels cannot be shown"):
        save_image(numbered(8, 8, 2), tmp_path / "a.png")
    with pytest.raises(InputError, match=r"a\.webp: "):
        save_image(np.zeros((1, 16384, 3), np.uint8), tmp_path / "a.webp")
    assert not list(tmp_path.iterdir())


def test_an_unknown_suffix_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a\.bmp: the name must end in \.png"):
        save_image(numbered(8, 8, 3), tmp_path / "a.bmp")


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


@pytest.mark.parametrize("name", ["a.gif", "a.webp"])
def test_an_animation_runs_forth_and_back_for_ever(tmp_path: Path, name: str) -> None:
    frames = np.stack([np.full((6, 6, 3), level, np.uint8) for level in (0, 80, 160, 240)])
    save_animation(frames, tmp_path / name, frames_per_second=10)
    with Image.open(tmp_path / name) as image:
        levels = [int(np.asarray(frame.convert("RGB"))[3, 3, 0]) for frame in ImageSequence.Iterator(image)]
        assert levels == pytest.approx([0, 80, 160, 240, 160, 80], abs=6)
        assert image.info["loop"] == 0


def test_an_animation_of_one_frame_is_a_image(tmp_path: Path) -> None:
    save_animation(numbered(1, 6, 6, 3), tmp_path / "a.gif")
    with Image.open(tmp_path / "a.gif") as image:
        assert len(list(ImageSequence.Iterator(image))) == 1


def test_an_animation_over_eased_alphas_turns_without_a_jerk() -> None:
    forth = eased(-3, 2, 12)
    round_trip = np.array([*forth, *forth[-2:0:-1]])
    # One oscillation of 22 steps: all of it is in the first harmonic, round the middle of the range.
    amplitudes = np.abs(np.fft.rfft(round_trip)) / len(round_trip)
    np.testing.assert_allclose(amplitudes[:2], [0.5, 1.25], atol=1e-12)
    np.testing.assert_allclose(amplitudes[2:], 0, atol=1e-12)
    assert (forth[0], forth[-1]) == pytest.approx((-3, 2))
    assert eased(-3, 2, 1) == [-3]


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


@pytest.mark.parametrize("pace", [0, -1, 51, 0.01, float("nan")])
def test_a_pace_out_of_range_is_refused(tmp_path: Path, pace: float) -> None:
    with pytest.raises(InputError, match="frames per second"):
        save_animation(numbered(2, 6, 6, 3), tmp_path / "a.gif", pace)
    assert not list(tmp_path.iterdir())


def test_a_sheet_shows_every_image_unscaled() -> None:
    images = np.zeros((2, 3, 4, 16, 8, 3), np.uint8)
    images[1, 2, 3] = (250, 10, 10)
    sheet = contact_sheet(images, ["a", "b"], ["x", "y", "z"], ["1", "2", "3", "4"])
    assert int((sheet == (250, 10, 10)).all(axis=-1).sum()) == 16 * 8
    assert int((sheet == 0).all(axis=-1).sum()) == (2 * 3 * 4 - 1) * 16 * 8


@pytest.mark.parametrize("name", ["a.jpg", "a.gif", "a.png", "a.webp"])
def test_what_has_no_transparency_shows_white_paper(tmp_path: Path, name: str) -> None:
    image = np.zeros((16, 16, 4), np.uint8)
    image[..., 0] = 255
    image[:8, :, 3] = 255  # Red above, and below red that is not seen.
    save = save_animation if name == "a.gif" else save_image
    save(image[None] if name == "a.gif" else image, tmp_path / name)
    with Image.open(tmp_path / name) as opened:
        colours = np.asarray(opened.convert("RGBA")).astype(int)
    above, below = colours[2:6, 2:14], colours[10:14, 2:14]
    assert np.abs(above - [255, 0, 0, 255]).max() < 8
    if name in ("a.png", "a.webp"):
        assert below[..., 3].max() == 0
    else:
        assert np.abs(below - [255, 255, 255, 255]).max() < 8


def test_a_sheet_is_on_white_paper() -> None:
    sheet = contact_sheet(np.zeros((1, 1, 1, 32, 32, 4), np.uint8), [""], [""], [""])
    assert sheet.min() == 255


@pytest.mark.parametrize(
    "image", [np.zeros((8, 8, 3), np.float32), np.zeros((8, 8), np.uint8), np.zeros((1, 8, 8, 3), np.uint8)]
)
def test_what_is_no_image_is_refused(tmp_path: Path, image: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> None:
    with pytest.raises(InputError, match=r"an image is uint8 \[H, W, C\], got"):
        save_image(image, tmp_path / "a.png")
    assert list(tmp_path.iterdir()) == []
