"""Glyphs of a font face as images of one size: cap height fixed, baselines aligned, one scale for the whole face."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from sefa.demo.ruler import BASELINE as BASELINE
from sefa.demo.ruler import CAP_HEIGHT as CAP_HEIGHT
from sefa.demo.ruler import CHARACTERS as CHARACTERS

SIZE = 64
OVERSAMPLING = 4
MEASURING_SIZE = 1000  # pixels per em at which the cap height is measured
NO_CHARACTER = "\uffff"  # drawn as the face's sign for what it lacks

Coverage = NDArray[np.uint8]  # share of each pixel that is inked: 0 paper, 255 ink


class UnusableFaceError(Exception):
    """A face whose glyphs cannot be drawn as the data set wants them."""


def render_face(path: Path, index: int = 0, instance: bytes | None = None) -> Coverage:
    """Draw all characters of a face, [62, 64, 64].

    Args:
        path: Font file.
        index: Which face of a collection.
        instance: Named instance of a variable font; None: its default, or a static font.

    Raises:
        UnusableFaceError: If the face lacks characters, or one does not fit.
    """
    try:
        measured = _open(path, MEASURING_SIZE, index, instance)
        _, top, _, bottom = measured.getbbox("H", anchor="ls")
        if not -0.95 * MEASURING_SIZE < top < -0.3 * MEASURING_SIZE or abs(bottom) > 0.06 * MEASURING_SIZE:
            raise UnusableFaceError("H does not stand on the baseline, or is of unusual height")
        pixels_per_em = CAP_HEIGHT * OVERSAMPLING * MEASURING_SIZE / -top
        font = _open(path, pixels_per_em, index, instance)
        missing = bytes(font.getmask(NO_CHARACTER))
        if any(bytes(font.getmask(character)) == missing for character in CHARACTERS):
            raise UnusableFaceError("it lacks characters")
        return np.stack([_render(font, character) for character in CHARACTERS])
    except (OSError, ValueError) as error:  # what Pillow raises for fonts that FreeType refuses
        raise UnusableFaceError(str(error)) from error


def variable_instances(path: Path, index: int = 0) -> list[bytes | None]:
    """Return the named instances of a variable font, or [None] for a static one."""
    try:
        return list(dict.fromkeys(ImageFont.truetype(path, 10, index).get_variation_names()))
    except OSError:
        return [None]


def as_images(coverage: Coverage) -> NDArray[np.float32]:
    """Turn coverage into dark ink on light paper, -1 to 1."""
    return 1 - coverage.astype(np.float32) / 127.5


def as_coverage(images: NDArray[np.float32]) -> Coverage:
    """Turn images into coverage; the inverse of `as_images`."""
    return np.rint((1 - images).clip(0, 2) * 127.5).astype(np.uint8)


def blurred(coverage: Coverage) -> NDArray[np.float32]:
    """Average over blocks of 4x4 pixels: [..., 64, 64] -> [..., 256]; what is alike then looks alike."""
    blocks = coverage.reshape(*coverage.shape[:-2], SIZE // 4, 4, SIZE // 4, 4)
    means: NDArray[np.float32] = blocks.mean(axis=(-3, -1), dtype=np.float32)
    return means.reshape(*coverage.shape[:-2], -1)


def sheet(coverage: Sequence[Coverage] | Coverage, columns: int) -> Image.Image:
    """Arrange glyphs [n, h, w] in rows, dark on light."""
    glyphs = np.asarray(coverage)
    count, height, width = glyphs.shape
    rows = -(-count // columns)
    padded = np.zeros((rows * columns, height, width), np.uint8)
    padded[:count] = glyphs
    grid = padded.reshape(rows, columns, height, width).swapaxes(1, 2).reshape(rows * height, columns * width)
    return Image.fromarray(255 - grid)


def _open(path: Path, size: float, index: int, instance: bytes | None) -> ImageFont.FreeTypeFont:
    font = ImageFont.truetype(path, size, index, layout_engine=ImageFont.Layout.BASIC)
    if instance is not None:
        font.set_variation_by_name(instance)
    return font


def _render(font: ImageFont.FreeTypeFont, character: str) -> Coverage:
    """Draw a character, the box of its ink in the middle of the width; all sizes are of oversampled pixels."""
    edge, baseline = SIZE * OVERSAMPLING, BASELINE * OVERSAMPLING
    canvas = Image.new("L", (3 * edge, 3 * edge))
    ImageDraw.Draw(canvas).text((edge, edge + baseline), character, fill=255, font=font, anchor="ls")
    box = canvas.getbbox()
    if box is None:
        raise UnusableFaceError(f"{character} is blank")
    left, top, right, bottom = box
    if right - left > edge or top < edge or bottom > 2 * edge:
        raise UnusableFaceError(f"{character} does not fit")
    start = (left + right - edge) // 2
    glyph = canvas.crop((start, edge, start + edge, 2 * edge))
    return np.asarray(glyph.resize((SIZE, SIZE), Image.Resampling.BOX))
