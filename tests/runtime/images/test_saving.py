from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sefa_runtime import InputError
from sefa_runtime.images import save_animation, save_image


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


def test_an_image_that_a_format_cannot_hold_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="2 channels cannot be shown"):
        save_image(numbered(8, 8, 2), tmp_path / "a.png")
    with pytest.raises(InputError, match=r"a\.webp: "):
        save_image(np.zeros((1, 16384, 3), np.uint8), tmp_path / "a.webp")
    assert not list(tmp_path.iterdir())


def test_an_unknown_suffix_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a\.bmp: the name must end in \.png"):
        save_image(numbered(8, 8, 3), tmp_path / "a.bmp")


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


@pytest.mark.parametrize(
    "image", [np.zeros((8, 8, 3), np.float32), np.zeros((8, 8), np.uint8), np.zeros((1, 8, 8, 3), np.uint8)]
)
def test_what_is_no_image_is_refused(tmp_path: Path, image: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> None:
    with pytest.raises(InputError, match=r"an image is uint8 \[H, W, C\], got"):
        save_image(image, tmp_path / "a.png")
    assert list(tmp_path.iterdir()) == []
