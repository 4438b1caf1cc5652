import io
import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

import sefa_runtime
from sefa_runtime.server.models import parse_model
from support.patience import wait_until
from support.serving import serve

Command = Callable[..., Any]


@pytest.fixture
def tuned(sefa_command: Command, golden: Path, tmp_path: Path) -> Path:
    result = sefa_command("tune", golden / "tiny.onnx", "--seconds", "0.01", "-o", tmp_path / "tuned.json")
    assert result.code == 0
    assert "load average" in result.err
    assert "at least 40 dB" in result.out
    return tmp_path / "tuned.json"


def test_what_was_found_is_taken_by_the_other_commands(
    sefa_command: Command, golden: Path, tmp_path: Path, tuned: Path
) -> None:
    model = golden / "tiny.onnx"
    document = json.loads(tuned.read_text())
    assert document["one_caller"] in document["trials"]
    assert (tmp_path / document["models"][0]["file"]).resolve() == model.resolve()
    plain, chosen = tmp_path / "plain.png", tmp_path / "chosen.png"
    assert sefa_command("edit", model, "-o", plain, "--provider", "cpu").code == 0
    result = sefa_command("edit", model, "-o", chosen, "--tuned", tuned)
    assert result.code == 0
    assert not result.err
    assert chosen.read_bytes() == plain.read_bytes()
    assert sefa_command("sweep", model, "-o", chosen, "--tuned", tuned).code == 0
    record = sefa_command("bench", model, "--tuned", tuned, "--seconds", "0.01", "--json")
    assert json.loads(record.out)["threads"] == document["one_caller"]["setting"]["threads"]


def test_the_server_takes_what_is_best_for_many_callers(golden: Path, tuned: Path) -> None:
    model = golden / "tiny.onnx"
    images = sefa_runtime.load(model, "cpu").edit(7, edits={"pose": 1.0})
    with serve(model, "--tuned", tuned) as served:
        wait_until(lambda: httpx.get(f"{served.url}/v2/health/ready").status_code == 200)
        answer = httpx.get(f"{served.url}/models/tiny/image?seed=7&edit=pose:1&format=png")
    assert answer.status_code == 200, answer.text
    image = np.asarray(Image.open(io.BytesIO(answer.content)))
    np.testing.assert_allclose(image.astype(int), images[0], atol=1)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--provider", "cpu"), "--tuned decides --provider: leave out one or the other"),
        (("--threads", "1", "--provider-option", "a.b=1"), "--tuned decides --provider-option and --threads"),
    ],
)
def test_options_that_the_file_decides(
    sefa_command: Command, golden: Path, tmp_path: Path, tuned: Path, options: tuple[str, ...], said: str
) -> None:
    result = sefa_command("edit", golden / "tiny.onnx", "-o", tmp_path / "a.png", "--tuned", tuned, *options)
    assert result.code == 1
    assert said in result.err
    assert result.err.count("\n") == 1


def test_a_file_of_another_model(sefa_command: Command, golden: Path, tmp_path: Path, tuned: Path) -> None:
    for command in (("edit", "-o", tmp_path / "a.png"), ("bench",), ("serve", "--port", "0")):
        result = sefa_command(command[0], golden / "style_z.onnx", *command[1:], "--tuned", tuned)
        assert result.code == 1
        assert "is another model" in result.err
        assert result.err.count("\n") == 1
    result = sefa_command("serve", golden / "tiny.onnx", golden / "style_z.onnx", "--tuned", tuned)
    assert "--tuned is about one model" in result.err


def test_the_command_it_prints_is_one_that_serves(sefa_command: Command, golden: Path, tmp_path: Path) -> None:
    model = tmp_path / "the king's.onnx"
    model.write_bytes((golden / "tiny.onnx").read_bytes())
    result = sefa_command("tune", model, "--seconds", "0.01", "-o", tmp_path / "tuned.json")
    words = shlex.split(next(line for line in result.out.splitlines() if line.startswith("  sefa serve")))
    assert parse_model(words[2]) == ("model", model)
    assert words[3:] == ["--tuned", str(tmp_path / "tuned.json")]


def test_json(sefa_command: Command, golden: Path) -> None:
    (first, *_) = json.loads(sefa_command("tune", golden / "tiny.onnx", "--seconds", "0.01", "--json").out)["trials"]
    assert {"setting", "batch", "runs", "p50_ms", "images_per_second", "psnr_db", "rounds"} == set(first)


def test_an_option_that_no_file_can_carry(sefa_command: Command, golden: Path, tmp_path: Path) -> None:
    options = ("--provider", "cpu", "--provider-option", "session.x=y", "-o", tmp_path / "tuned.json")
    result = sefa_command("tune", golden / "tiny.onnx", *options)
    assert result.code == 1
    assert "cannot carry the option session.x" in result.err


def test_the_model_is_not_overwritten(sefa_command: Command, golden: Path) -> None:
    result = sefa_command("tune", golden / "tiny.onnx", "-o", golden / "tiny.onnx")
    assert result.code == 1
    assert result.err.count("\n") == 1
