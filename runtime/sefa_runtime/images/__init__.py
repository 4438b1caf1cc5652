"""Images, grids, labelled sheets and animations from uint8 arrays."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from sefa_runtime.errors import InputError
from sefa_runtime.files import replacing

Images = NDArray[np.uint8]

IMAGE_SUFFIXES = (".png", ".webp", ".jpg", ".jpeg")
ANIMATION_SUFFIXES = (".gif", ".webp")
# Of files that hold an alpha channel; all others show the image on white.
TRANSPARENT_SUFFIXES = (".png", ".webp")
PAPER, INK = (255, 255, 255), (40, 40, 40)


def check_suffix(path: Path, suffixes: Sequence[str]) -> None:
    """Refuse a file name whose suffix names no format that can be written.

    Raises:
        InputError: If so.
    """
    if path.suffix.lower() not in suffixes:
        raise InputError(f"{path}: the name must end in {', '.join(suffixes)}")


def save_image(image: Images, path: Path) -> None:
    """Write one image; the suffix chooses the format.

    Args:
        image: Shape [H, W, C], 1 (grey), 3 (RGB) or 4 (RGBA) channels.
        path: Ends in one of `IMAGE_SUFFIXES`. A JPEG shows an RGBA image on white.

    Raises:
        InputError: If the suffix is another or the format cannot hold the image.
        OSError: If the file cannot be written.
    """
    check_suffix(path, IMAGE_SUFFIXES)
    pillow = to_pillow(image)
    if path.suffix.lower() not in TRANSPARENT_SUFFIXES:
        pillow = on_white(pillow)
    with replacing(path) as partial, _format_limits(path):
        pillow.save(partial, quality=95)


def save_animation(frames: Images, path: Path, frames_per_second: float = 12.0) -> None:
    """Write an endless animation that runs forth and back, so that it does not jump.

    Args:
        frames: Shape [A, H, W, C]; at `eased` alphas it also turns without a jerk.
        path: Ends in one of `ANIMATION_SUFFIXES`. A GIF shows RGBA images on white.
        frames_per_second: Pace, 0.1 to 50.

    Raises:
        InputError: If the suffix is another, the pace is out of range, or the format cannot hold the frames.
        OSError: If the file cannot be written.
    """
    check_suffix(path, ANIMATION_SUFFIXES)
    check_pace(frames_per_second)
    loop = [to_pillow(frame) for frame in forth_and_back(frames)]
    if path.suffix.lower() not in TRANSPARENT_SUFFIXES:
        loop = list(map(on_white, loop))
    with replacing(path) as partial, _format_limits(path):
        loop[0].save(
            partial,
            save_all=True,
            append_images=loop[1:],
            duration=round(1000 / frames_per_second),
            loop=0,
            quality=90,
        )


def forth_and_back(frames: Images) -> list[Images]:
    """The frames of one round of an endless animation; the first and the last, where it turns, are shown once.

    Args:
        frames: Shape [A, ...].

    Returns:
        2·A - 2 frames; one if A is 1.
    """
    return [*frames, *frames[-2:0:-1]]


def eased(start: float, end: float, count: int) -> list[float]:
    """`count` numbers from `start` to `end` that lie closer together at both ends.

    They sample half a period of a cosine, so that what runs forth and back over them is one smooth oscillation: it
    slows down before it turns, and turns without a jerk.
    """
    phases = np.linspace(0, np.pi, count)
    return [float(alpha) for alpha in start + (end - start) * (1 - np.cos(phases)) / 2]


def check_pace(frames_per_second: float) -> None:
    """Refuse a pace that GIF's clock of hundredths of a second, or viewers, would not keep.

    Raises:
        InputError: If it is not in 0.1 to 50.
    """
    if not 0.1 <= frames_per_second <= 50:
        raise InputError(f"frames per second must be in 0.1 to 50, got {frames_per_second}")


def grid(images: Images) -> Images:
    """Join images without gaps: [R, A, H, W, C] -> [R·H, A·W, C]."""
    rows, columns, height, width, channels = images.shape
    return images.transpose(0, 2, 1, 3, 4).reshape(rows * height, columns * width, channels)


def mosaic(frames: Images) -> Images:
    """Show several animations at once, in a tidy grid, in the order of reading.

    Up to 3 stand in a row, 6 in two rows of 3; the last row may end in empty places, which are white.

    Args:
        frames: Shape [N, A, H, W, C]: N animations of A frames.

    Returns:
        One animation, shape [A, rows·H, columns·W, C].
    """
    count, *rest = frames.shape
    rows, columns = _tidy(count)
    places = np.full((rows * columns, *rest), 255, np.uint8)
    places[:count] = frames
    return np.stack([grid(moment.reshape(rows, columns, *rest[1:])) for moment in places.swapaxes(0, 1)])


def _tidy(count: int) -> tuple[int, int]:
    """Rows and columns of the grid, wide but not too wide, with the fewest empty places; of such, the most square."""
    shapes = [(-(-count // columns), columns) for columns in range(1, count + 1)]
    fit = [(rows, columns) for rows, columns in shapes if rows <= columns <= max(3, 2.5 * rows)]
    return min(fit, key=lambda shape: (shape[0] * shape[1] - count, shape[1]))


def enlarge(images: Images, factor: int) -> Images:
    """Scale images up for looking at: [..., H, W, C] -> [..., H·factor, W·factor, C].

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


def contact_sheet(
    images: Images, titles: Sequence[str], row_labels: Sequence[str], column_labels: Sequence[str]
) -> Images:
    """Lay out sweeps to compare: directions down, alphas across, one block per person.

    Args:
        images: Shape [blocks, rows, columns, H, W, C].
        titles: One per block.
        row_labels: One per row.
        column_labels: One per column.

    Returns:
        One RGB image, uint8 [H', W', 3].
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


@contextmanager
def _format_limits(path: Path) -> Iterator[None]:
    """Turn what Pillow says of an image that a format cannot hold into our error."""
    try:
        yield
    except OSError as error:
        if error.strerror is not None:  # The system's: the disk is full, ...
            raise
        raise InputError(f"{path}: {error}") from error
    except (ValueError, OverflowError) as error:
        raise InputError(f"{path}: {error}") from error


def to_pillow(image: Images) -> Image.Image:
    """One image, [H, W, C], as Pillow sees it.

    Raises:
        InputError: If it has no colours that can be shown, or is no uint8 array of that shape.
    """
    if image.ndim != 3 or image.dtype != np.uint8:
        raise InputError(f"an image is uint8 [H, W, C], got {image.dtype} {list(image.shape)}")
    check_channels(image.shape[-1])
    return Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)


def check_channels(channels: int) -> None:
    """Refuse images without colours that can be shown.

    Raises:
        InputError: If so.
    """
    if channels not in (1, 3, 4):
        raise InputError(
            f"images of {channels} channels cannot be shown: 1 (grey), 3 (RGB) or 4 (RGBA) are needed; "
            "sefa_runtime.load(MODEL).edit gives them as an array"
        )


def on_white(image: Image.Image) -> Image.Image:
    """An RGBA image as it looks on white paper, as RGB; others as they are."""
    if image.mode != "RGBA":
        return image
    return Image.alpha_composite(Image.new("RGBA", image.size, PAPER), image).convert("RGB")
