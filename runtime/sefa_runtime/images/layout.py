"""Lay out several images in one: enlarged, side by side, or as a labelled sheet."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from sefa_runtime.errors import InputError
from sefa_runtime.images.conversion import PAPER, Images, on_white, to_pillow

INK = (40, 40, 40)


def enlarge(images: Images, factor: int) -> Images:
    """Scale images up for viewing: [..., H, W, C] -> [..., H·factor, W·factor, C].

    Raises:
        InputError: If `factor` is not 1 to 32.
    """
    if not 1 <= factor <= 32:
        raise InputError(f"scale must be 1 to 32, got {factor}")
    if factor == 1:
        return images
    *leading, height, width, channels = images.shape
    size = (width * factor, height * factor)
    flat = [
        np.asarray(to_pillow(image).resize(size, Image.Resampling.BICUBIC))
        for image in images.reshape(-1, height, width, channels)
    ]
    return np.stack(flat).reshape(*leading, size[1], size[0], channels)


def grid(images: Images, gap: int = 0) -> Images:
    """Join images: [R, A, H, W, C] -> [R·H, A·W, C], with `gap` white pixels between rows and between columns."""
    rows, columns, height, width, channels = images.shape
    spaced = np.pad(images, ((0, 0), (0, 0), (0, gap), (0, gap), (0, 0)), constant_values=255)
    joined = spaced.transpose(0, 2, 1, 3, 4).reshape(rows * (height + gap), columns * (width + gap), channels)
    return joined[: rows * (height + gap) - gap, : columns * (width + gap) - gap]


def side_by_side(images: Images, count: int, trim: int = 0) -> Images:
    """Join every `count` images, such as the letters of a word: [N·count, ..., H, W, C] -> [N, ..., H, count·W, C].

    Args:
        images: Shape [N·count, ..., H, W, C].
        count: How many stand side by side.
        trim: How many columns to cut off at the left and right of each, so that letters stand closer together.
    """
    images = images[..., trim : images.shape[-2] - trim, :]
    *leading, height, width, channels = images.shape[1:]
    groups = np.moveaxis(images.reshape(-1, count, *images.shape[1:]), 1, -3)  # [N, ..., H, count, W, C]
    return groups.reshape(-1, *leading, height, count * width, channels)


def mosaic(frames: Images, columns: int | None = None) -> Images:
    """Join several animations into one, in a tidy grid, in reading order.

    Up to 3 go in one row, 6 in two rows of 3; empty places at the end of the last row are white.

    Args:
        frames: Shape [N, A, H, W, C]: N animations of A frames.
        columns: How many go in one row, if not as many as make the grid tidy.

    Returns:
        One animation, shape [A, rows·H, columns·W, C].
    """
    count, *rest = frames.shape
    rows, columns = _tidy_shape(count) if columns is None else (-(-count // columns), columns)
    places = np.full((rows * columns, *rest), 255, np.uint8)
    places[:count] = frames
    return np.stack([grid(moment.reshape(rows, columns, *rest[1:])) for moment in places.swapaxes(0, 1)])


def contact_sheet(
    images: Images, titles: Sequence[str], row_labels: Sequence[str], column_labels: Sequence[str]
) -> Images:
    """Lay out sweeps for comparison: directions down, alphas across, one block per person.

    Args:
        images: Shape [blocks, rows, columns, H, W, C].
        titles: One per block.
        row_labels: One per row.
        column_labels: One per column.

    Returns:
        One RGB image, uint8 [H', W', 3].

    Examples:
        >>> sweeps = np.zeros((2, 1, 3, 64, 64, 3), np.uint8)
        >>> contact_sheet(sweeps, ["seed 7", "seed 8"], ["turn"], ["-3", "0", "3"]).shape
        (116, 438, 3)
    """
    blocks, rows, columns, height, width, _ = images.shape
    size = max(11, height // 5)
    font = ImageFont.load_default(size)
    line = round(size * 1.5)
    gap = max(4, width // 8)
    left = gap + max(round(font.getlength(label)) for label in row_labels) + gap
    top = gap + 2 * line
    block_width = columns * width + gap
    sheet = Image.new("RGB", (left + blocks * block_width, top + rows * height + gap), PAPER)
    draw = ImageDraw.Draw(sheet)
    for row, label in enumerate(row_labels):
        draw.text((gap, top + (row + 0.5) * height), label, INK, font, anchor="lm")
    for block, title in enumerate(titles):
        x = left + block * block_width
        draw.text((x + columns * width / 2, gap + line / 2), title, INK, font, anchor="mm")
        for column, label in enumerate(column_labels):
            draw.text((x + (column + 0.5) * width, gap + 1.5 * line), label, INK, font, anchor="mm")
        sheet.paste(on_white(to_pillow(grid(images[block])).convert("RGBA")), (x, top))
    return np.asarray(sheet)


def _tidy_shape(count: int) -> tuple[int, int]:
    """Return rows and columns of the squarest grid with the fewest empty places, among those wide but not too wide."""
    shapes = [(-(-count // columns), columns) for columns in range(1, count + 1)]
    fit = [(rows, columns) for rows, columns in shapes if rows <= columns <= max(3, 2.5 * rows)]
    return min(fit, key=lambda shape: (shape[0] * shape[1] - count, shape[1]))
