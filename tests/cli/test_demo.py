import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import sefa
import sefa_runtime
from support.trained_generators import trained_faces

Command = Callable[..., Any]


def test_the_demo_leaves_what_it_says(sefa_command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    faces = trained_faces()
    monkeypatch.setattr("sefa_cli.commands.demo.BENCH_SECONDS", 0.1)
    folder = tmp_path / "demo"
    result = sefa_command("demo", "-o", folder)
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
    face = editor.edit(seed=7)[0]
    windows = np.lib.stride_tricks.sliding_window_view(pixels, face.shape)[::, ::, 0]
    assert (windows[:, :, 0, 0] == face[0, 0]).all(axis=-1).any()
    rows, columns = np.nonzero((windows[:, :, 0, 0] == face[0, 0]).all(axis=-1))
    assert any(np.array_equal(windows[row, column], face) for row, column in zip(rows, columns, strict=True))
    record = json.loads((folder / "latency.json").read_text())
    assert record["provider"] == editor.provider
    assert [entry["batch"] for entry in record["results"]] == [1, 8]
    # The commands that it prints make the same files.
    commands = [line for line in result.out.splitlines() if re.match(r"\$ sefa (factorize|name|sweep) ", line)]
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    for command in commands:
        assert sefa_command(*shlex.split(command.replace("$FACES", str(faces)))[2:]).code == 0
    assert len(commands) == 3
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_demo_without_its_generator_says_how_to_install_it(
    sefa_command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sefa.demo.PACKAGE", "gan-face-generate-not-installed")
    result = sefa_command("demo", "-o", tmp_path / "demo")
    assert result.code == 1
    assert "not installed: pip install --no-deps" in result.err
    assert not (tmp_path / "demo").exists()
