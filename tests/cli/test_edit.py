from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import sefa_runtime

Command = Callable[..., Any]


def test_several_seeds_stand_side_by_side(sefa_command: Command, golden: Path, tmp_path: Path) -> None:
    assert sefa_command("edit", golden / "tiny.onnx", "-o", tmp_path / "a.png", "--seed", "1,3-4").code == 0
    expected = sefa_runtime.load(golden / "tiny.onnx").edit(seed=[1, 3, 4])
    with Image.open(tmp_path / "a.png") as image:
        np.testing.assert_array_equal(np.asarray(image), np.concatenate(list(expected), axis=1))


def test_latents_of_ones_own(sefa_command: Command, golden: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "z.npy", sefa_runtime.latents_from_seeds([5], 6))
    assert sefa_command("edit", golden / "tiny.onnx", "-o", tmp_path / "z.png", "--z", tmp_path / "z.npy").code == 0
    assert sefa_command("edit", golden / "tiny.onnx", "-o", tmp_path / "s.png", "--seed", "5").code == 0
    assert (tmp_path / "z.png").read_bytes() == (tmp_path / "s.png").read_bytes()
