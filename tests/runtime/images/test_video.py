import os
import stat
import struct
import sys
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
from numpy.typing import NDArray

from sefa_runtime import InputError
from sefa_runtime.images.video import find_ffmpeg, save_video
from support.videos import decode


def ramps(count: int, height: int, width: int, channels: int = 3) -> NDArray[np.uint8]:
    """Smooth colours that differ from place to place, and get brighter from frame to frame."""
    t, y, x, c = np.ogrid[0:count, 0:height, 0:width, 0:channels]
    colours: NDArray[np.float64] = 30 + 15 * t % 75 + 80 * y / height + 60 * x / width * (1 + c) / channels
    return colours.astype(np.uint8)


def boxes(content: bytes) -> list[str]:
    """The names of an MP4's outermost boxes, in order."""
    names, at = [], 0
    while at < len(content):
        size, name = struct.unpack_from(">I4s", content, at)
        names.append(name.decode())
        at += size
    return names


@pytest.fixture
def without_ffmpeg(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without ffmpeg and imageio-ffmpeg; the folder that is its PATH."""
    folder = tmp_path_factory.mktemp("path")
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    return folder


def put_program(folder: Path, script: str) -> None:
    program = folder / "ffmpeg"
    program.write_text(f"#!{sys.executable}\n{script}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)


def test_a_video_runs_forth_and_back_in_the_colours_of_its_frames(tmp_path: Path) -> None:
    frames = ramps(5, 48, 64)
    save_video(frames, tmp_path / "a.mp4", frames_per_second=12.5)
    facts, shown = decode(tmp_path / "a.mp4")
    expected = frames[[0, 1, 2, 3, 4, 3, 2, 1]]
    assert shown.shape == expected.shape
    difference = np.abs(shown.astype(int) - expected)
    # 4:2:0 at CRF 17: a wrong matrix or range would be off by 10 and more throughout.
    assert difference.mean() < 1.5
    assert difference.max() <= 10
    assert facts["fps"] == 12.5
    assert facts["duration"] == pytest.approx(8 / 12.5, abs=0.02)


@pytest.mark.parametrize(
    "colour", [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0), (200, 120, 90)], ids=str
)
def test_flat_colours_survive(tmp_path: Path, colour: tuple[int, int, int]) -> None:
    save_video(np.full((2, 32, 32, 3), colour, np.uint8), tmp_path / "a.mp4")
    _, shown = decode(tmp_path / "a.mp4")
    assert np.abs(shown.astype(int) - colour).max() <= 4  # 8 bits of luma in 16 to 235


def test_a_video_is_what_players_everywhere_take(tmp_path: Path) -> None:
    save_video(ramps(3, 32, 32), tmp_path / "a.mp4")
    facts, _ = decode(tmp_path / "a.mp4")
    assert (facts["codec"], facts["pix_fmt"]) == ("h264", "yuv420p(tv, bt709, progressive)")
    names = boxes((tmp_path / "a.mp4").read_bytes())
    assert names.index("moov") < names.index("mdat")


@pytest.mark.parametrize(("height", "width"), [(33, 32), (32, 33), (7, 5), (1, 1)])
def test_odd_sides_get_their_last_line_twice(tmp_path: Path, height: int, width: int) -> None:
    frames = np.repeat(ramps(1, height, width), 2, axis=0)
    save_video(frames, tmp_path / "a.mp4")
    _, shown = decode(tmp_path / "a.mp4")
    padded = np.pad(frames[0], ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    assert shown.shape[1:] == padded.shape
    assert np.abs(shown[0].astype(int) - padded).mean() < 4


@pytest.mark.parametrize("channels", [1, 4])
def test_grey_and_transparent_frames_are_shown_in_rgb(tmp_path: Path, channels: int) -> None:
    frames = ramps(2, 32, 32, channels)
    save_video(frames, tmp_path / "a.mp4")
    _, shown = decode(tmp_path / "a.mp4")
    opacity = frames[..., 3:] / 255 if channels == 4 else 1.0
    assert np.abs(shown - (frames[..., :3] * opacity + 255 * (1 - opacity))).mean() < 2.5


def test_a_video_of_one_frame_is_an_image(tmp_path: Path) -> None:
    save_video(ramps(1, 32, 32), tmp_path / "a.mp4")
    assert len(decode(tmp_path / "a.mp4")[1]) == 1


@pytest.mark.parametrize(
    ("name", "pace", "message"), [("a.avi", 12, r"must end in \.mp4"), ("a.mp4", 0, "in 0.1 to 50")]
)
def test_what_cannot_be_is_refused(tmp_path: Path, name: str, pace: float, message: str) -> None:
    with pytest.raises(InputError, match=message):
        save_video(ramps(2, 32, 32), tmp_path / name, pace)
    assert not list(tmp_path.iterdir())


def test_what_the_encoder_refuses_is_told_and_leaves_an_earlier_video_alone(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"earlier")
    with pytest.raises(InputError, match=r"a\.mp4: ffmpeg: invalid width x height \(20000x2\)"):
        save_video(np.zeros((1, 2, 20000, 3), np.uint8), tmp_path / "a.mp4")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"earlier"]


def test_an_encoder_that_dies_leaves_nothing(tmp_path: Path, without_ffmpeg: Path) -> None:
    script = """import sys
if "-encoders" in sys.argv:
    print(" V....D libx264 H.264")
else:
    open(sys.argv[-1], "w").write("half a video")
    sys.exit("No space left on device")"""
    put_program(without_ffmpeg, script)
    with pytest.raises(InputError, match="ffmpeg: No space left on device"):
        save_video(ramps(40, 256, 256), tmp_path / "a.mp4")  # More than a pipe holds.
    assert not list(tmp_path.iterdir())


def test_without_an_encoder_one_line_says_what_to_install(tmp_path: Path, without_ffmpeg: Path) -> None:
    with pytest.raises(InputError, match=r"not installed: pip install imageio-ffmpeg, or install ffmpeg"):
        save_video(ramps(2, 32, 32), tmp_path / "a.mp4")
    assert not list(tmp_path.iterdir())


def test_an_ffmpeg_without_h264_is_passed_over(without_ffmpeg: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_program(without_ffmpeg, 'print(" V....D mpeg4 MPEG-4")')
    with pytest.raises(InputError, match=f"{without_ffmpeg}{os.sep}ffmpeg was built without libx264"):
        find_ffmpeg()
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", imageio_ffmpeg)
    assert find_ffmpeg() == imageio_ffmpeg.get_ffmpeg_exe()
    put_program(without_ffmpeg, 'print(" V....D libx264 H.264")')
    assert find_ffmpeg() == str(without_ffmpeg / "ffmpeg")
