"""Videos and animations read back with ffmpeg."""

import warnings
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import numpy as np
from numpy.typing import NDArray


def decode(path: Path) -> tuple[dict[str, Any], NDArray[np.uint8]]:
    """Return what ffmpeg says of a video or GIF, and its frames: uint8 [A, H, W, 3]."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # The reader leaves its pipes to the garbage collector.
        reader = imageio_ffmpeg.read_frames(path)
        facts = next(reader)
        width, height = facts["size"]
        frames = [np.frombuffer(frame, np.uint8).reshape(height, width, 3) for frame in reader]
    return facts, np.stack(frames)
