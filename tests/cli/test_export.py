import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import sefa_runtime

Command = Callable[..., Any]


@pytest.fixture
def checkpoint(golden: Path) -> Path:
    return golden / "checkpoints/dcgan_small_64/netG.pth"


def test_from_checkpoint_to_edited_image(sefa_command: Command, checkpoint: Path, tmp_path: Path) -> None:
    bank, model, image = (tmp_path / name for name in ("bank.safetensors", "model.onnx", "face.png"))
    assert sefa_command("factorize", checkpoint, "-o", bank, "--top", "5").code == 0
    assert sefa_command("export", checkpoint, "--bank", bank, "-o", model).code == 0
    assert sefa_command("edit", model, "-o", image, "--seed", "7", "--edit", "direction-4=2").code == 0
    editor = sefa_runtime.load(model)
    assert len(editor.info.directions) == 5
    with Image.open(image) as opened:
        np.testing.assert_array_equal(np.asarray(opened), editor.edit(seed=7, edits={4: 2.0})[0])


@pytest.mark.parametrize("kind", ["onnx", "torchscript"])
def test_export_tells_what_it_made(sefa_command: Command, checkpoint: Path, tmp_path: Path, kind: str) -> None:
    result = sefa_command(
        "export", checkpoint, "-o", tmp_path / "model", "--format", kind, "--top", "2", "--license", "MIT", "--json"
    )
    document = json.loads(result.out)
    assert document["info"]["license"] == "MIT"
    assert document["bytes"] == (tmp_path / "model").stat().st_size
    assert len(document["info"]["directions"]) == 2


def test_export_gives_floats_on_request(sefa_command: Command, checkpoint: Path, tmp_path: Path) -> None:
    result = sefa_command("export", checkpoint, "-o", tmp_path / "m.onnx", "--output-type", "float32")
    assert "largest error" in result.out
    assert sefa_runtime.load(tmp_path / "m.onnx").run(np.zeros(20), 0, 0).dtype == np.float32


def test_licence_and_note_are_in_the_file(sefa_command: Command, checkpoint: Path, tmp_path: Path) -> None:
    card = ("--license", "CC-BY-4.0 AND MIT", "--note", "Faces of nobody: 日本語 <b>")
    done = sefa_command("export", checkpoint, "-o", tmp_path / "m", "--top", "2", *card)
    assert "license: CC-BY-4.0 AND MIT\nnote: Faces of nobody: 日本語 <b>\n" in done.out
    shown = sefa_command("inspect", tmp_path / "m").out
    assert re.search(r"^license +CC-BY-4\.0 AND MIT\nnote +Faces of nobody: 日本語 <b>$", shown, re.MULTILINE)


def test_a_licence_is_the_checkpoints_unless_another_is_given(
    sefa_command: Command, checkpoint: Path, tmp_path: Path
) -> None:
    weights, model = tmp_path / "g.safetensors", tmp_path / "m.onnx"
    save_file(torch.load(checkpoint, weights_only=True), weights, {"license": "MIT", "note": "by somebody"})
    assert "MIT" in sefa_command("inspect", weights).out
    done = sefa_command("export", weights, "-o", model, "--top", "2", "--note", "")
    assert "license: MIT, as g.safetensors says\n" in done.out
    info = json.loads(sefa_command("inspect", model, "--json").out)["info"]
    assert (info["license"], info["note"]) == ("MIT", "")


@pytest.mark.parametrize(("option", "text"), [("--license", "x" * 201), ("--note", "a\nb"), ("--note", "\x1b[2J")])
def test_what_is_no_line_of_text_is_refused(
    sefa_command: Command, checkpoint: Path, tmp_path: Path, option: str, text: str
) -> None:
    done = sefa_command("export", checkpoint, "-o", tmp_path / "m.onnx", option, text)
    assert done.code == 1
    assert done.err.startswith(f"sefa: error: {option.removeprefix('--')} ") or done.err.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("m.ts", [], "m.ts: the name is that of a torchscript file, and the file would be onnx"),
        ("m.PT2", [], "give --format pt2, or another name"),
        ("m.safetensors", [], "m.safetensors: the name is that of a direction bank or of weights"),
        ("m.onnx", ["--format", "torchscript"], "give --format onnx, or another name"),
    ],
)
def test_a_name_that_promises_another_format_is_refused(
    sefa_command: Command, checkpoint: Path, tmp_path: Path, name: str, options: list[str], message: str
) -> None:
    done = sefa_command("export", checkpoint, "-o", tmp_path / name, *options)
    assert (done.code, done.out) == (1, "")
    assert message in done.err
    assert not list(tmp_path.glob("m.*"))
