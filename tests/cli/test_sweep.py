import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sefa_runtime
from sefa_runtime.images import enlarge
from support.videos import decode

Command = Callable[..., Any]


@pytest.mark.parametrize("suffix", ["gif", "mp4"])
def test_a_sweep_in_motion_shows_all_seeds_in_a_grid(
    sefa_command: Command, golden: Path, tmp_path: Path, suffix: str
) -> None:
    arguments = ("--seeds", "1-6", "--direction", "light", "--alphas", "-3:3:5", "--scale", "4", "--fps", "10")
    result = sefa_command("sweep", golden / "tiny.onnx", "-o", tmp_path / f"a.{suffix}", *arguments)
    assert result.code == 0, result.err
    _, frames = decode(tmp_path / f"a.{suffix}")
    assert frames.shape == (8, 2 * 32, 3 * 16, 3)
    editor = sefa_runtime.load(golden / "tiny.onnx")

    def off(moments: list[int], alphas: list[float]) -> float:
        """How far the sixth image's brightness is from that at these alphas."""
        sixth = enlarge(editor.sweep(seed=6, direction="light", alphas=alphas), 4)[0]
        return float(np.abs((frames[moments, 32:, 32:] - sixth.astype(float)) @ (0.2126, 0.7152, 0.0722)).mean())

    # The slow start: half a cosine from -3 to 3 has its second of five steps at -3 / sqrt(2), not at -1.5.
    slow = 3 / 2**0.5
    assert off([0, 1, 2, 3, 4, 5, 6, 7], [-3, -slow, 0, slow, 3, slow, 0, -slow]) < 7  # GIF has 256 colours.
    assert off([1, 3, 5, 7], [-1.5, 1.5, 1.5, -1.5]) > 9


def test_a_video_without_an_encoder_says_what_to_install(
    sefa_command: Command, golden: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    result = sefa_command("sweep", golden / "tiny.onnx", "-o", tmp_path / "a.mp4")
    assert result.code == 1
    assert result.err == (
        "sefa: a video needs ffmpeg, and it is not installed: pip install imageio-ffmpeg, or install ffmpeg\n"
    )
    assert not list(tmp_path.iterdir())
