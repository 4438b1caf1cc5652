"""Image files: the supported formats, and writing them whole."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from sefa_runtime.errors import InputError
from sefa_runtime.files import replacing
from sefa_runtime.images.conversion import Images, on_white, to_pillow

IMAGE_SUFFIXES = (".png", ".webp", ".jpg", ".jpeg")
# Suffixes of formats with an alpha channel; all others show the image on white.
TRANSPARENT_SUFFIXES = (".png", ".webp")


def save_image(image: Images, path: str | Path) -> None:
    """Write one image; the suffix chooses the format.

    Args:
        image: Shape [H, W, C], 1 (grey), 3 (RGB) or 4 (RGBA) channels.
        path: Ends in one of `IMAGE_SUFFIXES`. A JPEG shows an RGBA image on white.

    Raises:
        InputError: If the suffix is not one of these or the format cannot hold the image.
        OSError: If the file cannot be written.
    """
    path = Path(path)
    check_suffix(path, IMAGE_SUFFIXES)
    pillow = to_pillow(image)
    if path.suffix.lower() not in TRANSPARENT_SUFFIXES:
        pillow = on_white(pillow)
    with replacing(path) as partial, format_limits(path):
        pillow.save(partial, quality=95)


def check_suffix(path: Path, suffixes: Sequence[str]) -> None:
    """Check that a file name's suffix names a format that can be written.

    Raises:
        InputError: If not.
    """
    if path.suffix.lower() not in suffixes:
        raise InputError(f"{path}: the name must end in {', '.join(suffixes)}")


@contextmanager
def format_limits(path: Path) -> Iterator[None]:
    """Turn Pillow's error for an image that a format cannot hold into ours.

    Raises:
        InputError: If Pillow rejects the image.
        OSError: If the system cannot write the file.
    """
    try:
        yield
    except OSError as error:
        if error.strerror is not None:  # From the system: the disk is full, ...
            raise
        raise InputError(f"{path}: {error}") from error
    except (ValueError, OverflowError) as error:
        raise InputError(f"{path}: {error}") from error
