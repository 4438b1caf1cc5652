"""Videos that play everywhere, written with the ffmpeg program."""

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
QUALITY = "17"  # CRF; visually lossless.
# RGB to 4:2:0 by the BT.709 matrix, and tagged as such: players guess at an untagged video, and not all alike.
COLOURS = (
    "scale=out_color_matrix=bt709:out_range=tv,format=yuv420p,"
    "setparams=colorspace=bt709:color_primaries=bt709:color_trc=bt709:range=tv"
)


def save_video(frames: Images, path: Path, frames_per_second: float = 12.0, *, closed: bool = False) -> None:
    """Write one round of an animation that runs back and forth, as H.264: looped by the player, it does not jump.

    The file suits every player: 4:2:0 colours, tagged as BT.709; even sides, by repeating the last row or column of an
    odd one; and the index at the front, so that a browser can start before it has everything.

    Args:
        frames: Shape [A, H, W, C], 1 (grey), 3 (RGB) or 4 (RGBA, shown on white) channels.
        path: Ends in one of `VIDEO_SUFFIXES`.
        frames_per_second: Frame rate, 0.1 to 50.
        closed: See `save_animation`.

    Raises:
        InputError: If the suffix is not one of these, the frame rate is out of range, there is no ffmpeg, or it cannot
            encode the frames.
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
        problem = _feed(command, [*frames] if closed else forth_and_back(frames))
        if problem:
            raise InputError(f"{path}: ffmpeg: {problem}")


def find_ffmpeg() -> str:
    """Find an ffmpeg that encodes H.264: on the PATH, or in the package imageio-ffmpeg.

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
    except (ImportError, RuntimeError):  # The package is missing, or has no program for this machine.
        return None


def _encodes(program: str) -> bool:
    try:
        listed = subprocess.run([program, "-hide_banner", "-encoders"], capture_output=True, text=True, check=False)
    except OSError:
        return False
    return f" {ENCODER} " in listed.stdout


def _feed(command: list[str], frames: list[Images]) -> str:
    """Run ffmpeg on frames, [H, W, C] each, padded to even sides; return its error message, or an empty string."""
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        try:
            assert process.stdin is not None
            for frame in frames:
                colours = np.asarray(on_white(to_pillow(frame)).convert("RGB"))  # [H, W, 3]
                odd = [(0, side % 2) for side in colours.shape[:2]]
                process.stdin.write(np.pad(colours, (*odd, (0, 0)), mode="edge").tobytes())
        except BrokenPipeError:  # ffmpeg gave up; its message is read below.
            pass
        except BaseException:
            process.kill()
            raise
        _, said = process.communicate()
    if process.returncode == 0:
        return ""
    lines = said.decode(errors="replace").strip().splitlines()
    return re.sub(r"^\[.*?\] ", "", lines[0]) if lines else f"it ended with {process.returncode}"
