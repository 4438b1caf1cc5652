"""Encoding images and animations for an answer."""

import io
from enum import StrEnum
from functools import cache
from typing import Any

import PIL
from PIL import features

from sefa_runtime.errors import InputError
from sefa_runtime.images import Images, enlarge, forth_and_back, grid, mosaic, on_white, to_pillow
from sefa_runtime.version import VERSION

# Pixels of one answer, all frames together: bounds memory and time for any request.
MAX_PIXELS = 32_000_000


class Format(StrEnum):
    """The formats in which an image can be sent."""

    WEBP = "webp"
    PNG = "png"
    JPEG = "jpeg"
    GIF = "gif"

    @property
    def media_type(self) -> str:
        """The value of the Content-Type header."""
        return f"image/{self}"


# Fast rather than small: a client is waiting.
SAVE_OPTIONS: dict[Format, dict[str, Any]] = {
    Format.WEBP: {"lossless": True, "quality": 0, "method": 0},
    Format.PNG: {"compress_level": 3},
    Format.JPEG: {"quality": 95},
    Format.GIF: {},
}


@cache
def encoder_version() -> tuple[str | None, ...]:
    """Return the versions of everything that affects an image's encoded bytes."""
    return VERSION, PIL.__version__, *map(features.version, ("webp", "zlib", "jpg"))


def check_pixels(count: int, height: int, width: int, scale: int) -> None:
    """Check, before anything is generated, that an answer is not too large.

    Raises:
        InputError: If it is.
    """
    pixels = count * height * width * scale * scale
    if pixels > MAX_PIXELS:
        raise InputError(f"{pixels / 1e6:.0f} million pixels are too many, at most {MAX_PIXELS / 1e6:.0f} million")


def encode_sheet(images: Images, scale: int, kind: Format, gap: int = 0) -> bytes:
    """Encode several images as one, side by side.

    Args:
        images: Shape [rows, columns, H, W, C].
        scale: How many times to enlarge them.
        kind: The format; webp and png are lossless.
        gap: White pixels between them, before they are enlarged.

    Raises:
        InputError: If the format cannot hold an image of that size.
    """
    image = to_pillow(enlarge(grid(images, gap), scale))
    if kind is Format.JPEG:
        image = on_white(image)
    file = io.BytesIO()
    try:
        image.save(file, kind, **SAVE_OPTIONS[kind])
    except (OSError, ValueError) as error:  # What Pillow raises for sizes that a format cannot hold.
        raise InputError(f"{kind} cannot hold {image.width}x{image.height} pixels: {error}") from None
    return file.getvalue()


def encode_animation(
    images: Images, scale: int, kind: Format, frames_per_second: float, columns: int | None = None
) -> bytes:
    """Encode an endless animation that runs back and forth.

    Args:
        images: Shape [N, frames, H, W, C]; all N are shown at once, in a grid.
        scale: How many times to enlarge them.
        kind: gif or webp.
        frames_per_second: 0.1 to 50.
        columns: Of the grid; None: as many as make it tidy.

    Raises:
        InputError: If the format cannot hold an animation of that size.
    """
    loop = [to_pillow(frame) for frame in forth_and_back(mosaic(enlarge(images, scale), columns))]
    if kind is Format.GIF:
        loop = list(map(on_white, loop))
    file = io.BytesIO()
    try:
        loop[0].save(
            file,
            kind,
            save_all=True,
            append_images=loop[1:],
            duration=round(1000 / frames_per_second),
            loop=0,
            quality=90,
        )
    except (OSError, ValueError) as error:  # As above.
        raise InputError(f"{kind} cannot hold {loop[0].width}x{loop[0].height} pixels: {error}") from None
    return file.getvalue()
