"""Videos that play everywhere, written by the program ffmpeg."""

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np

from sefa_runtime.errors import InputError
from sefa_runtime.files import replacing
from sefa_runtime.images.animations import check_pace, forth_and_back
from sefa_runtime.images.conversion import Images, on_white, to_pillow
from sefa_runtime.images.saving import check_suffix

VIDEO_SUFFIXES = (".mp4",)
ENCODER = "libx264"
QUALITY = "17"  # CRF: the eye sees no loss.
# RGB to 4:2:0 by the matrix of BT.709, and tagged so: players guess at an untagged video, and not all the same.
COLOURS = (
    "scale=out_color_matrix=bt709:out_range=tv,format=yuv420p,"
    "setparams=colorspace=bt709:color_primaries=bt709:color_trc=bt709:range=tv"
)


def save_video(frames: Images, path: Path, frames_per_second: float = 12.0) -> None:
    """Write one round of an animation that runs forth and back, as H.264: repeated by the player, it does not jump.

    Written as every player wants it: 4:2:0 colours, tagged as BT.709; even sides, for which the last row or column of
    an odd one is repeated; and the index at the front, so that a browser can start before it has everything.

    Args:
        frames: Shape [A, H, W, C], 1 (grey), 3 (RGB) or 4 (RGBA, shown on white) channels.
        path: Ends in one of `VIDEO_SUFFIXES`.
        frames_per_second: Pace, 0.1 to 50.

    Raises:
        InputError: If the suffix is another, the pace is out of range, there is no ffmpeg, or it cannot encode this.
        OSError: If the file cannot be written.
    """
    check_suffix(path, VIDEO_SUFFIXES)
    check_pace(frames_per_second)
    ffmpeg = find_ffmpeg()
    height, width = (side + side % 2 for side in frames.shape[1:3])
    with replacing(path) as partial:
        command = [ffmpeg, "-y", "-loglevel", "error", "-f", "rawvideo", "-pixel_format", "rgb24"]
        command += ["-video_size", f"{width}x{height}", "-framerate", str(frames_per_second), "-i", "pipe:0"]
        command += ["-vf", COLOURS]
        command += ["-c:v", ENCODER, "-crf", QUALITY, "-movflags", "+faststart", "-f", "mp4", str(partial)]
        problem = _feed(command, forth_and_back(frames))
        if problem:
            raise InputError(f"{path}: ffmpeg: {problem}")


def find_ffmpeg() -> str:
    """Find an ffmpeg that encodes H.264: the one on the PATH, or the one of the package imageio-ffmpeg.

    Raises:
        InputError: If there is none.
    """
    on_path = shutil.which("ffmpeg")
    for program in (on_path, _packaged_ffmpeg()):
        if program is not None and _encodes(program):
            return program
    found = f"{on_path} was built without {ENCODER}" if on_path else "it is not installed"
    raise InputError(f"a video needs ffmpeg, and {found}: pip install imageio-ffmpeg, or install ffmpeg")


def _packaged_ffmpeg() -> str | None:
    try:
        import imageio_ffmpeg

        return str(imageio_ffmpeg.get_ffmpeg_exe())
    except (ImportError, RuntimeError):  # The package is missing, or comes without a program for this machine.
        return None


def _encodes(program: str) -> bool:
    try:
        listed = subprocess.run([program, "-hide_banner", "-encoders"], capture_output=True, text=True, check=False)
    except OSError:
        return False
    return f" {ENCODER} " in listed.stdout


def _feed(command: list[str], frames: list[Images]) -> str:
    """Run ffmpeg on frames, [H, W, C] each, padded to even sides; return what went wrong in its words, or nothing."""
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        try:
            assert process.stdin is not None
            for frame in frames:
                colours = np.asarray(on_white(to_pillow(frame)).convert("RGB"))  # [H, W, 3]
                odd = [(0, side % 2) for side in colours.shape[:2]]
                process.stdin.write(np.pad(colours, (*odd, (0, 0)), mode="edge").tobytes())
        except BrokenPipeError:  # It gave up, and says why below.
            pass
        except BaseException:
            process.kill()
            raise
        _, said = process.communicate()
    if process.returncode == 0:
        return ""
    lines = said.decode(errors="replace").strip().splitlines()
    return re.sub(r"^\[.*?\] ", "", lines[0]) if lines else f"it ended with {process.returncode}"
