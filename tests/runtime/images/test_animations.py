from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageSequence

from sefa_runtime import InputError
from sefa_runtime.images import eased, save_animation


def numbered(*shape: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Images in which every value differs from its neighbours'."""
    return (np.arange(np.prod(shape)) * 37 % 251).astype(np.uint8).reshape(shape)


@pytest.mark.parametrize("name", ["a.gif", "a.webp"])
def test_an_animation_runs_forth_and_back_for_ever(tmp_path: Path, name: str) -> None:
    frames = np.stack([np.full((6, 6, 3), level, np.uint8) for level in (0, 80, 160, 240)])
    save_animation(frames, tmp_path / name, frames_per_second=10)
    with Image.open(tmp_path / name) as image:
        levels = [int(np.asarray(frame.convert("RGB"))[3, 3, 0]) for frame in ImageSequence.Iterator(image)]
        assert levels == pytest.approx([0, 80, 160, 240, 160, 80], abs=6)
        assert image.info["loop"] == 0


def test_an_animation_of_one_frame_is_an_image(tmp_path: Path) -> None:
    save_animation(numbered(1, 6, 6, 3), tmp_path / "a.gif")
    with Image.open(tmp_path / "a.gif") as image:
        assert len(list(ImageSequence.Iterator(image))) == 1


def test_an_animation_over_eased_alphas_turns_without_a_jerk() -> None:
    forth = eased(-3, 2, 12)
    round_trip = np.array([*forth, *forth[-2:0:-1]])
    # One oscillation of 22 steps: all of it is in the first harmonic, round the middle of the range.
    amplitudes = np.abs(np.fft.rfft(round_trip)) / len(round_trip)
    np.testing.assert_allclose(amplitudes[:2], [0.5, 1.25], atol=1e-12)
    np.testing.assert_allclose(amplitudes[2:], 0, atol=1e-12)
    assert (forth[0], forth[-1]) == pytest.approx((-3, 2))
    assert eased(-3, 2, 1) == [-3]


@pytest.mark.parametrize("pace", [0, -1, 51, 0.01, float("nan")])
def test_a_pace_out_of_range_is_refused(tmp_path: Path, pace: float) -> None:
    with pytest.raises(InputError, match="frames per second"):
        save_animation(numbered(2, 6, 6, 3), tmp_path / "a.gif", pace)
    assert not list(tmp_path.iterdir())
