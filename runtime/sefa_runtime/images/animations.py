"""Animations that run back and forth, as GIF or WebP."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sefa_runtime.errors import InputError
from sefa_runtime.files import replacing
from sefa_runtime.images.conversion import Images, on_white, to_pillow
from sefa_runtime.images.saving import TRANSPARENT_SUFFIXES, check_suffix, format_limits

ANIMATION_SUFFIXES = (".gif", ".webp")


def save_animation(frames: Images, path: str | Path, frames_per_second: float = 12.0, *, closed: bool = False) -> None:
    """Write an endless animation that runs back and forth, so that it does not jump.

    Args:
        frames: Shape [A, H, W, C]; with `eased` alphas it also turns around without a jerk.
        path: Ends in one of `ANIMATION_SUFFIXES`. A GIF shows RGBA images on white.
        frames_per_second: Frame rate, 0.1 to 50.
        closed: Whether the last frame leads to the first as it is: no way back is added.

    Raises:
        InputError: If the suffix is not one of these, the frame rate is out of range, or the format cannot hold the
            frames.
        OSError: If the file cannot be written.
    """
    path = Path(path)
    check_suffix(path, ANIMATION_SUFFIXES)
    check_pace(frames_per_second)
    loop = [to_pillow(frame) for frame in (frames if closed else forth_and_back(frames))]
    if path.suffix.lower() not in TRANSPARENT_SUFFIXES:
        loop = list(map(on_white, loop))
    with replacing(path) as partial, format_limits(path):
        loop[0].save(
            partial,
            save_all=True,
            append_images=loop[1:],
            duration=round(1000 / frames_per_second),
            loop=0,
            quality=90,
        )


def forth_and_back(frames: Images) -> list[Images]:
    """Return the frames of one round of an endless animation; the first and last, where it turns around, appear once.

    Args:
        frames: Shape [A, ...].

    Returns:
        2·A - 2 frames; one if A is 1.
    """
    return [*frames, *frames[-2:0:-1]]


def round_trip(alphas: Sequence[float]) -> list[int]:
    """Return the order in which steps, from low to high, make a closed round that starts and ends near alpha 0.

    Rounds along several directions can follow each other without a jump: each leads back to where the others begin.

    Returns:
        2·A - 2 indices into `alphas`, or one.
    """
    back_and_forth = [*range(len(alphas)), *range(len(alphas) - 2, 0, -1)]
    first = int(np.abs(alphas).argmin())
    return back_and_forth[first:] + back_and_forth[:first]


def eased(start: float, end: float, count: int) -> list[float]:
    """Return `count` numbers from `start` to `end` that lie closer together at both ends.

    They sample half a period of a cosine, so that running back and forth over them is one smooth oscillation, which
    slows down before it turns around and does so without a jerk.
    """
    phases = np.linspace(0, np.pi, count)
    return [float(alpha) for alpha in start + (end - start) * (1 - np.cos(phases)) / 2]


def check_pace(frames_per_second: float) -> None:
    """Reject a frame rate that GIF's clock, in hundredths of a second, or viewers would not keep.

    Raises:
        InputError: If it is outside 0.1 to 50.
    """
    if not 0.1 <= frames_per_second <= 50:
        raise InputError(f"frames per second must be in 0.1 to 50, got {frames_per_second}")
