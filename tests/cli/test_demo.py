import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

import sefa
import sefa_runtime
from sefa.demo.ruler import MEASURED
from sefa_runtime.inputs.latents import latents_from_seeds
from support.exported_archives import load_torchscript
from support.paths import GOLDEN
from support.trained_generators import trained_faces

Command = Callable[..., Any]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sefa_cli.commands.demo.BENCH_SECONDS", 0.1)
    monkeypatch.setattr("sefa_cli.commands.demo.MEASURED_FONTS", 16)
    return tmp_path


def test_the_demo_of_letters(sefa_command: Command, here: Path) -> None:
    result = sefa_command("demo", "-o", "demo")
    assert result.code == 0, result.err
    folder = here / "demo"
    files = {"letters.safetensors", "letters.onnx", "letters.ts", "sheet.png", "word.gif", "latency.json"}
    assert {path.name for path in folder.iterdir()} == files
    editor = sefa_runtime.load(folder / "letters.onnx")
    assert [one.name for one in editor.info.signature.inputs] == ["z", "direction", "alpha", "label", "truncation"]

    names = sefa.DirectionBank.load(folder / "letters.safetensors").names
    assert names == editor.info.names
    assert set(names) >= {"weight", "slant"}
    for font in range(4):  # What the names say, by other measures than those that gave them.
        light, bold = ends(editor, font, "weight")
        assert (light.mean(axis=(1, 2)) < bold.mean(axis=(1, 2))).mean() > 0.9
    leaning = [lean(slanted) - lean(upright) for font in range(4) for upright, slanted in [ends(editor, font, "slant")]]
    assert np.mean(leaning) > 2

    # The models render what the code that trained the generator rendered.
    with np.load(GOLDEN / "letters.npz") as golden:
        expected = (golden["image"][:, 0] * 127.5 + 128).clip(0, 255).astype(np.uint8)
        given = {"label": golden["label"], "truncation": golden["truncation"]}
        rendered = editor.edit(seed=golden["seed"].tolist(), edits={"weight": 0.0}, **given)[..., 0]
        archive = load_torchscript(folder / "letters.ts")
        tensors = {name: torch.from_numpy(array) for name, array in given.items()}
        tensors["z"] = torch.from_numpy(latents_from_seeds(golden["seed"].tolist(), 64))
        none = {"direction": torch.zeros(4, 0, dtype=torch.int64), "alpha": torch.zeros(4, 0)}
        scripted = archive(**tensors, **none).numpy()[..., 0]
    for images in (rendered, scripted):
        assert np.abs(images.astype(int) - expected).max() <= 1

    with Image.open(folder / "word.gif") as animation, Image.open(folder / "sheet.png") as sheet:
        assert (animation.size, animation.n_frames) == ((4 * 48 * 2, 2 * 64 * 2), 64)  # type: ignore[attr-defined]
        pixels = np.asarray(sheet.convert("L"))
    # An unedited letter is on the sheet as it is.
    letter = editor.edit(seed=3, label=["R"], truncation=0.7)[0, :, 8:-8, 0]
    assert is_in(letter, pixels)
    record = json.loads((folder / "latency.json").read_text())
    assert [entry["batch"] for entry in record["results"]] == [1, 8]
    repeat_commands(sefa_command, result.out, folder, {})


def ends(editor: sefa_runtime.Editor, font: int, direction: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Ink of the letters of a font at both ends of a direction's range, [letters, 64, 64] each."""
    low, high = editor.info.directions[editor.direction_index(direction)].alpha_range
    images = editor.sweep(seed=[font] * len(MEASURED), label=list(MEASURED), direction=direction, alphas=[low, high])
    ink = 1 - images[..., 0] / 255
    return ink[:, 0], ink[:, 1]


def lean(ink: NDArray[np.float64]) -> float:
    """By how many pixels the upper half of letters lies to the right of the lower half, on average."""
    columns = np.arange(ink.shape[2])
    upper, lower = (
        (half.sum(axis=1) * columns).sum(axis=1) / half.sum(axis=(1, 2)) for half in (ink[:, :28], ink[:, 28:])
    )
    return float((upper - lower).mean())


def test_the_demo_of_faces(sefa_command: Command, here: Path) -> None:
    faces = trained_faces()
    folder = here / "demo"
    result = sefa_command("demo", "-o", folder, "--model", "faces")
    assert result.code == 0, result.err
    names = {"faces.safetensors", "faces.onnx", "faces.ts", "sheet.png", "turn.gif", "latency.json"}
    assert {path.name for path in folder.iterdir()} == names
    editor = sefa_runtime.load(folder / "faces.onnx")
    directions = sefa.DirectionBank.load(folder / "faces.safetensors").names
    assert directions == editor.info.names
    assert (len(directions), directions[1], directions[4]) == (16, "turn", "brightness")
    darker, brighter = (editor.edit(seed=range(16), edits={"brightness": alpha}).mean((1, 2, 3)) for alpha in (-1, 1))
    assert (brighter > darker + 10).all()
    with Image.open(folder / "sheet.png") as sheet:
        pixels = np.asarray(sheet)
    # The unedited face of the first person is on the sheet as it is: right way up and RGB.
    assert is_in(editor.edit(seed=7)[0], pixels)
    record = json.loads((folder / "latency.json").read_text())
    assert record["provider"] == editor.provider
    repeat_commands(sefa_command, result.out, folder, {"$FACES": str(faces)})


def is_in(image: NDArray[np.uint8], larger: NDArray[np.uint8]) -> bool:
    """Whether an image is a part of another."""
    first = np.lib.stride_tricks.sliding_window_view(larger, image.shape[1], axis=1)  # [H, W', (C,) w]
    row = image[0] if image.ndim == 2 else image[0].T
    candidates = np.argwhere((first == row).all(axis=tuple(range(2, first.ndim))))
    height, width = image.shape[:2]
    return any(np.array_equal(larger[y : y + height, x : x + width], image) for y, x in candidates)


def repeat_commands(sefa_command: Command, printed: str, folder: Path, variables: dict[str, str]) -> None:
    """Run the quick ones of the commands that the demo printed: they make the same files."""
    commands = [line for line in printed.splitlines() if re.match(r"\$ sefa (factorize|name|sweep) ", line)]
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    for command in commands:
        for name, value in variables.items():
            command = command.replace(name, value)
        assert sefa_command(*shlex.split(command)[2:]).code == 0
    assert len(commands) == 3
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_demo_without_faces_says_how_to_install_them(
    sefa_command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sefa.demo.faces.PACKAGE", "gan-face-generate-not-installed")
    result = sefa_command("demo", "-o", tmp_path / "demo", "--model", "faces")
    assert result.code == 1
    assert "not installed: pip install --no-deps" in result.err
    assert not (tmp_path / "demo").exists()
