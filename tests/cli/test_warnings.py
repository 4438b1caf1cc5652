"""What is probably not meant is said, and done."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import sefa
from descriptions import replace_description
from sefa_runtime.exported import read_info

Command = Callable[..., Any]

SAME_PICTURE = "sefa: warning: truncation psi 0 is the centre itself: the same picture for every seed\n"


def test_edit_says_how_far_it_went(sefa_command: Command, golden: Path, tmp_path: Path) -> None:
    for name, edits in (("plain.png", []), ("edited.png", ["--edit", "pose=2", "--edit", "light=-1"])):
        result = sefa_command("edit", golden / "tiny.onnx", "-o", tmp_path / name, "--seeds", "1,2", *edits)
        assert result.err == ""
    plain, edited = (np.asarray(Image.open(tmp_path / name)).astype(int) for name in ("plain.png", "edited.png"))
    told = re.search(r"changed by (\S+) of 255 levels on average", result.out)
    assert told is not None
    assert float(told[1]) == pytest.approx(np.abs(edited - plain).mean(), rel=0.01)


def test_an_edit_that_changes_nothing(sefa_command: Command, golden: Path, tmp_path: Path) -> None:
    arguments = ("edit", golden / "tiny.onnx", "-o", tmp_path / "a.png", "--edit")
    result = sefa_command(*arguments, "pose=1e-7")
    assert result.code == 0
    assert result.err.startswith("sefa: warning: the edits change no pixel")
    assert "changed" not in result.out
    assert "warning" not in sefa_command(*arguments, "pose=1").err


@pytest.mark.parametrize("command", ["edit", "sweep"])
def test_no_seed_is_left_at_psi_0(sefa_command: Command, golden: Path, tmp_path: Path, command: str) -> None:
    arguments = (command, golden / "style_z.onnx", "-o", tmp_path / "a.png", "--label", "1", "--truncation")
    assert sefa_command(*arguments, "0").err == SAME_PICTURE
    assert sefa_command(*arguments, "0.1").err == ""


@pytest.mark.parametrize("command", ["export", "explore"])
def test_nor_in_a_model_of_psi_0(sefa_command: Command, tmp_path: Path, command: str) -> None:
    output = tmp_path / ("a.onnx" if command == "export" else "a.html")
    result = sefa_command(command, tmp_path / "missing.pth", "-o", output, "--truncation", "0")
    assert result.err.startswith(SAME_PICTURE)


def test_latents_where_codes_are_meant(sefa_command: Command, golden: Path, tmp_path: Path) -> None:
    model = tmp_path / "model.onnx"
    info = read_info(golden / "style_pinned.onnx")
    assert info.code_rms is not None
    smallest, largest = info.code_rms
    # A generator whose w are smaller than standard normal numbers, as trained ones have them.
    replace_description(golden / "style_pinned.onnx", model, f"{smallest},{largest}", f"{smallest},0.7")
    random = np.random.RandomState(0)
    for name, codes, told in (
        ("z.npy", random.randn(2, info.code_dim), True),
        ("codes.npy", 0.5 * random.randn(2, *info.latent_shape), False),
    ):
        np.save(tmp_path / name, codes)
        result = sefa_command("edit", model, "-o", tmp_path / "a.png", "--codes", tmp_path / name)
        assert result.code == 0
        assert (f"{name}: these look like latents z, not like codes" in result.err) == told


def test_the_range_of_codes_is_that_of_the_mapping(golden: Path) -> None:
    generator = sefa.load(golden / "checkpoints" / "sefa_stylegan2_cond_32" / "checkpoint.pth")
    z = torch.from_numpy(np.random.default_rng(3).standard_normal((500, generator.z_dim), np.float32))
    codes = generator.encode(z, torch.arange(500) % generator.num_classes)[:, 0].numpy()
    rms = np.linalg.norm(codes, axis=1) / np.sqrt(generator.code_dim)
    code_rms = read_info(golden / "style_w.onnx").code_rms
    assert code_rms is not None
    assert code_rms[0] == pytest.approx(rms.min(), rel=0.4)
    assert code_rms[1] == pytest.approx(rms.max(), rel=0.4)
    assert ((code_rms[0] <= rms) & (rms <= code_rms[1])).mean() > 0.99
    assert read_info(golden / "style_z.onnx").code_rms is None
