"""The runtime and its commands where torch and onnx cannot be imported."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageSequence

import sefa_runtime

Command = Callable[..., Any]


def test_edit(without_torch: Command, golden: Path, tmp_path: Path) -> None:
    arguments = (
        "edit",
        golden / "tiny.onnx",
        "-o",
        tmp_path / "a.png",
        "--seed",
        "7",
        "--edit",
        "pose=2",
        "--edit",
        "3=-1",
    )
    result = without_torch(*arguments)
    assert (result.code, result.err) == (0, "")
    expected = sefa_runtime.load(golden / "tiny.onnx").edit(seed=7, edits={"pose": 2.0, 3: -1.0})[0]
    with Image.open(tmp_path / "a.png") as image:
        np.testing.assert_array_equal(np.asarray(image), expected)


def test_sweep_grid(without_torch: Command, golden: Path, tmp_path: Path) -> None:
    arguments = ("sweep", golden / "tiny.onnx", "-o", tmp_path / "a.png", "--seeds", "1,2", "--direction", "light")
    result = without_torch(*arguments, "--alphas", "-3:3:5")
    assert (result.code, result.err) == (0, "")
    expected = sefa_runtime.load(golden / "tiny.onnx").edit(seed=2, edits={"light": 3.0})[0]
    with Image.open(tmp_path / "a.png") as image:
        assert image.size == (5 * 4, 2 * 8)
        np.testing.assert_array_equal(np.asarray(image)[8:, 16:], expected)


def test_sweep_animation(without_torch: Command, golden: Path, tmp_path: Path) -> None:
    arguments = ("sweep", golden / "tiny.onnx", "-o", tmp_path / "a.gif", "--alphas", "-3:3:5", "--scale", "2")
    assert without_torch(*arguments).code == 0
    with Image.open(tmp_path / "a.gif") as image:
        assert image.size == (8, 16)
        assert len(list(ImageSequence.Iterator(image))) == 2 * 5 - 2


def test_bench(without_torch: Command, golden: Path, tmp_path: Path) -> None:
    record = tmp_path / "record.json"
    result = without_torch("bench", golden / "tiny.onnx", "--seconds", "0.1", "--batch", "1,4", "-o", record, "--json")
    assert result.code == 0
    assert json.loads(record.read_text()) == json.loads(result.out)
    assert [entry["batch"] for entry in json.loads(result.out)["results"]] == [1, 4]


def test_bench_table(without_torch: Command, golden: Path) -> None:
    result = without_torch("bench", golden / "tiny.onnx", "--seconds", "0.1", "--provider", "cpu")
    assert result.code == 0
    assert "images/s" in result.out
    assert "cpu, asked for: cpu" in result.out


def test_inspect(without_torch: Command, golden: Path) -> None:
    result = without_torch("inspect", golden / "tiny.onnx")
    assert result.code == 0
    assert "4x8 pixels, RGB" in result.out
    assert "pose" in result.out
    document = json.loads(without_torch("inspect", golden / "tiny.onnx", "--json").out)
    assert document["info"]["directions"][0]["name"] == "pose"


def test_doctor(without_torch: Command) -> None:
    result = without_torch("doctor")
    assert result.code == 0
    assert "ok    provider cpu" in result.out
    assert json.loads(without_torch("doctor", "--json").out)["healthy"] is True


def test_help(without_torch: Command) -> None:
    result = without_torch("--help")
    assert result.code == 0
    assert "sefa export netG.pth -o netG.onnx" in result.out


def test_what_needs_torch_says_so(without_torch: Command, golden: Path, tmp_path: Path) -> None:
    result = without_torch(
        "factorize", golden / "checkpoints/dcgan_small_64/netG.pth", "-o", tmp_path / "bank.safetensors"
    )
    assert result.code == 1
    assert (
        result.err
        == "sefa: this command needs torch, which is not installed: pip install torch onnx onnxscript safetensors\n"
    )


def test_starting_imports_nothing_that_is_not_needed() -> None:
    program = "import sys, sefa_runtime, sefa, sefa_cli; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    heavy = {
        "torch",
        "onnx",
        "onnxscript",
        "safetensors",
        "onnxruntime",
        "sefa_export",
        "numpy",
        "PIL",
        "importlib.metadata",
    }
    assert not heavy & set(done.stdout.split())
