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

# Pixels of one answer, all frames together: bounds memory and time, whatever is asked for.
MAX_PIXELS = 32_000_000


class Format(StrEnum):
    """What an image can be sent as."""

    WEBP = "webp"
    PNG = "png"
    JPEG = "jpeg"
    GIF = "gif"

    @property
    def media_type(self) -> str:
        """As in the header Content-Type."""
        return f"image/{self}"


# Quick rather than small: the answer is waited for.
SAVE_OPTIONS: dict[Format, dict[str, Any]] = {
    Format.WEBP: {"lossless": True, "quality": 0, "method": 0},
    Format.PNG: {"compress_level": 3},
    Format.JPEG: {"quality": 95},
    Format.GIF: {},
}


@cache
def encoder_version() -> tuple[str | None, ...]:
    """Return the versions of all that decides which bytes stand for an image."""
    return VERSION, PIL.__version__, *map(features.version, ("webp", "zlib", "jpg"))


def check_pixels(count: int, height: int, width: int, scale: int) -> None:
    """Refuse what would be too large an answer, before anything is generated.

    Raises:
        InputError: If so.
    """
    pixels = count * height * width * scale * scale
    if pixels > MAX_PIXELS:
        raise InputError(f"{pixels / 1e6:.0f} million pixels are too many, at most {MAX_PIXELS / 1e6:.0f} million")


def encode_sheet(images: Images, scale: int, kind: Format) -> bytes:
    """Encode many images as one, side by side without gaps.

    Args:
        images: Shape [rows, columns, H, W, C].
        scale: How many times to enlarge them.
        kind: webp and png are lossless.

    Raises:
        InputError: If the format cannot hold it.
    """
    image = to_pillow(enlarge(grid(images), scale))
    if kind is Format.JPEG:
        image = on_white(image)
    file = io.BytesIO()
    try:
        image.save(file, kind, **SAVE_OPTIONS[kind])
    except (OSError, ValueError) as error:  # Pillow's words for sizes that a format cannot hold.
        raise InputError(f"{kind} cannot hold {image.width}x{image.height} pixels: {error}") from None
    return file.getvalue()


def encode_animation(images: Images, scale: int, kind: Format, frames_per_second: float) -> bytes:
    """Encode an endless animation that runs forth and back.

    Args:
        images: Shape [N, frames, H, W, C]; the N are shown at once, in a grid.
        scale: How many times to enlarge them.
        kind: gif or webp.
        frames_per_second: Pace, 0.1 to 50.

    Raises:
        InputError: If the format cannot hold it.
    """
    loop = [to_pillow(frame) for frame in forth_and_back(mosaic(enlarge(images, scale)))]
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
