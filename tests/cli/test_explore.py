import json
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import sefa
import sefa_runtime

Command = Callable[..., Any]


@pytest.fixture
def model(golden: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(golden / "tiny.onnx", tmp_path / "model.onnx"))


@pytest.fixture
def style_checkpoint(golden: Path) -> Path:
    return golden / "checkpoints/tf_stylegan2_32/network.pkl"


def test_a_model_is_explored_where_torch_is_not_installed(without_torch: Command, model: Path, tmp_path: Path) -> None:
    outputs = [tmp_path / name for name in ("sheet.html", "sheet.png", "effects.json")]
    named = [argument for output in outputs for argument in ("-o", output)]
    result = without_torch("explore", model, *named, "--samples", 10, "--seeds", "4,7")
    assert result.code == 0, result.err
    assert "pose" in result.out
    assert "measured on 10 images, on cpu" in result.out
    for output in outputs:
        assert f"{output}: " in result.out
    assert "seed 7" in outputs[0].read_text()
    with Image.open(outputs[1]) as sheet:
        assert sheet.mode == "RGB"
    document = json.loads(outputs[2].read_text())
    assert (document["model"], document["samples"]) == ("model.onnx", 10)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([model.name, *(path.name for path in outputs)])


def test_the_measures_are_printed_as_json(sefa_command: Command, model: Path, tmp_path: Path) -> None:
    result = sefa_command("explore", model, "-o", tmp_path / "a.json", "--samples", 5, "--json")
    assert json.loads(result.out) == json.loads((tmp_path / "a.json").read_text())


def test_a_quick_look(sefa_command: Command, model: Path, tmp_path: Path) -> None:
    outputs = [argument for name in ("a.json", "a.html", "a.png") for argument in ("-o", tmp_path / name)]
    result = sefa_command("explore", model, *outputs, "--quick")
    assert result.code == 0, result.err
    assert "measured on 2 images" in result.out
    document = json.loads((tmp_path / "a.json").read_text())
    assert (document["quick"], document["samples"]) == (True, 2)
    page = (tmp_path / "a.html").read_text()
    assert "measured on 2 images, a quick look" in page
    assert "--frames:7;" in page


def test_suggested_ranges_go_into_the_model(sefa_command: Command, golden: Path, model: Path, tmp_path: Path) -> None:
    assert sefa_command("explore", model, "-o", tmp_path / "a.json", "--samples", 5).code == 0
    assert model.read_bytes() == (golden / "tiny.onnx").read_bytes()
    result = sefa_command("explore", model, "-o", tmp_path / "a.json", "--samples", 5, "--write-ranges")
    assert result.code == 0, result.err
    assert f"{model}: suggested ranges of 4 directions" in result.out
    suggested = [entry["alpha_range"] for entry in json.loads((tmp_path / "a.json").read_text())["directions"]]
    info = sefa_runtime.load(model, provider="cpu").info
    assert [list(direction.alpha_range) for direction in info.directions] == suggested
    assert info.names[0] == "pose"


def test_groups_of_a_checkpoint_and_their_bank(sefa_command: Command, style_checkpoint: Path, tmp_path: Path) -> None:
    saved, page, measures = tmp_path / "bank.safetensors", tmp_path / "a.html", tmp_path / "a.json"
    result = sefa_command(
        "explore", style_checkpoint, "-o", page, "-o", measures, "--layers", "0-1", "--layers", "3-4", "--top", 2,
        "--samples", 4, "--seeds", "1", "--truncation", 0.7, "--save-bank", saved,
    )  # fmt: skip
    assert result.code == 0, result.err
    bank = sefa.DirectionBank.load(saved)
    generator = sefa.load(style_checkpoint)
    np.testing.assert_allclose(bank.vectors[2:], sefa.factorize(generator, layers="3-4", top=2).vectors, atol=1e-5)
    document = json.loads(measures.read_text())
    assert [entry["analysed_layers"] for entry in document["directions"]] == [[0, 1], [0, 1], [3, 4], [3, 4]]
    assert document["truncation"] == 0.7
    np.testing.assert_allclose(bank.alpha_range, [entry["alpha_range"] for entry in document["directions"]], rtol=1e-6)
    assert re.findall(r"Layers (\S+)</h2>", page.read_text()) == ["0–1", "3–4"]


def test_a_bank_is_explored_and_gets_its_ranges(sefa_command: Command, golden: Path, tmp_path: Path) -> None:
    checkpoint = golden / "checkpoints/dcgan_small_64/netG.pth"
    path = sefa.factorize(sefa.load(checkpoint), top=3).save(tmp_path / "bank.safetensors")
    assert sefa_command("name", path, "1=pose", "--keep", "1,2").code == 0
    before = sefa.DirectionBank.load(path)
    result = sefa_command(
        "explore", checkpoint, "-o", tmp_path / "a.json", "--bank", path, "--save-bank", path, "--samples", 3
    )
    assert result.code == 0, result.err
    document, after = json.loads((tmp_path / "a.json").read_text()), sefa.DirectionBank.load(path)
    assert [entry["name"] for entry in document["directions"]] == ["pose", "direction-2"]
    np.testing.assert_array_equal(after.vectors, before.vectors)
    np.testing.assert_allclose(after.alpha_range, [entry["alpha_range"] for entry in document["directions"]], rtol=1e-6)


def test_codes_of_a_checkpoint(sefa_command: Command, style_checkpoint: Path, tmp_path: Path) -> None:
    generator = sefa.load(style_checkpoint)
    codes = np.random.RandomState(0).randn(3, generator.num_layers, generator.code_dim).astype(np.float32)
    np.savez(tmp_path / "codes.npz", w=codes)
    arguments = ("--codes", tmp_path / "codes.npz", "--top", 2, "--json")
    result = sefa_command("explore", style_checkpoint, "-o", tmp_path / "a.html", *arguments)
    assert result.code == 0, result.err
    assert json.loads(result.out)["samples"] == 3


def test_sigterm_stops_it_and_the_same_command_goes_on(sefa_command: Command, model: Path, tmp_path: Path) -> None:
    output = tmp_path / "a.json"
    command = ("explore", model, "-o", output, "--samples", "20", "--seeds", "1", "--threads", "1")
    # Asked to stop when the first direction is measured.
    program = """
import os, signal
from sefa_cli import main
from sefa_runtime.explore import effects, exploration

def stop_at_the_second(samples, direction, *arguments):
    if direction == 1:
        signal.raise_signal(signal.SIGTERM)
    return effects.measure(samples, direction, *arguments)

exploration.measure = stop_at_the_second
main()
"""
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, command)], capture_output=True, text=True, check=False
    )
    folder = tmp_path / "a.json.measured"
    assert done.returncode == 128 + signal.SIGTERM
    assert f"the same command resumes from what {folder} has" in done.stderr
    assert not output.exists()
    kept = list(folder.glob("*.npz"))
    assert {path.name for path in kept} == {"unedited.npz", "direction-0.npz"}
    assert not list(folder.glob("*.part*"))

    # What is there is taken: marked, it turns up in the result.
    with np.load(folder / "direction-0.npz") as arrays:
        marked = dict(arrays)
    effect = json.loads(str(marked["effect"])) | {"strength": 12345.0}
    np.savez(folder / "direction-0.npz", **marked | {"effect": np.array(json.dumps(effect))})
    assert sefa_command(*command).code == 0
    strengths = [entry["strength"] for entry in json.loads(output.read_text())["directions"]]
    assert strengths[0] == 12345
    assert 0 < max(strengths[1:]) < 1000
    assert not folder.exists()


def test_a_model_of_codes_needs_codes(sefa_command: Command, golden: Path, tmp_path: Path) -> None:
    result = sefa_command("explore", golden / "style_w.onnx", "-o", tmp_path / "a.html")
    assert (result.code, result.err.count("\n")) == (1, 1)
    assert "the model takes w: give --codes FILE" in result.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("-o", "a.txt"), "must end in .html, .json"),
        (("-o", "missing/a.html"), "no such folder"),
        (("-o", "a.html", "--samples", "1"), "samples must be at least 2, got 1"),
        (("-o", "a.html", "--range", "3"), "a range looks like -3:3"),
        (("-o", "a.html", "--range", "1:3"), "the range must lie around 0"),
        (("-o", "a.html", "--range", "nan:3"), "the range must lie around 0"),
        (("-o", "a.html", "--range", "-1:3", "--write-ranges"), "--range leaves no ranges to suggest"),
        (("-o", "a.html", "--label", "1"), "takes no label"),
        (("-o", "a.html", "--truncation", "0.7"), "truncation is not an input of this model"),
        (("-o", "a.html", "--layers", "0"), "--layers is for checkpoints"),
        (("-o", "a.html", "--save-bank", "b.safetensors"), "--write-ranges writes ranges into it"),
        (("-o", "a.html", "--seeds", "x"), "numbers look like"),
    ],
)
def test_mistakes_get_one_line(
    sefa_command: Command, model: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], message: str
) -> None:
    monkeypatch.chdir(model.parent)
    result = sefa_command("explore", model.name, *arguments)
    assert result.code == 1
    assert message in result.err
    assert result.err.count("\n") == 1
    assert list(model.parent.iterdir()) == [model]


def test_mistakes_with_a_checkpoint_get_one_line(sefa_command: Command, golden: Path, tmp_path: Path) -> None:
    checkpoint = golden / "checkpoints/dcgan_small_64/netG.pth"
    bank = sefa.factorize(sefa.load(checkpoint), top=2).save(tmp_path / "bank.safetensors")
    for arguments, message in (
        ((checkpoint, "--write-ranges"), "--write-ranges is for exported models"),
        ((checkpoint, "--bank", bank, "--top", "3"), "leave out --top"),
        ((checkpoint, "--truncation", "0.7"), "truncat"),
        ((tmp_path / "none.onnx",), "none.onnx: no such file"),
        ((bank,), "bank.safetensors"),
    ):
        result = sefa_command("explore", *arguments, "-o", tmp_path / "a.html")
        assert (result.code, result.err.count("\n")) == (1, 1), result.err
        assert message in result.err
    assert list(tmp_path.iterdir()) == [bank]
