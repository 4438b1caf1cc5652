import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

from typer.main import get_command

from sefa_cli.app import app
from sefa_runtime.server.models import parse_model

Command = Callable[..., Any]


def test_what_serves_it_best(sefa_command: Command, golden: Path, tmp_path: Path) -> None:
    result = sefa_command("tune", golden / "tiny.onnx", "--seconds", "0.01", "-o", tmp_path / "tuning.json")
    assert result.code == 0
    assert result.err == ""
    document = json.loads((tmp_path / "tuning.json").read_text())
    assert document["one_caller"] in document["trials"]
    assert f"{document['many_callers']['images_per_second']:.0f} images/s" in result.out
    # The commands it prints are ones that `sefa serve` takes.
    commands = [line[line.index("sefa serve") :] for line in result.out.splitlines() if "sefa serve" in line]
    assert len(commands) == 2
    serve = get_command(app).commands["serve"]  # type: ignore[attr-defined]
    for command, best in zip(commands, ("one_caller", "many_callers"), strict=True):
        parsed = serve.make_context("serve", shlex.split(command)[2:])
        assert parsed.params["instances"] == document[best]["setting"]["instances"]
        assert parsed.params["threads"] == document[best]["setting"]["threads"]


def test_a_file_whose_name_cannot_stand_in_an_address(sefa_command: Command, golden: Path, tmp_path: Path) -> None:
    model = tmp_path / "the king's.onnx"
    model.write_bytes((golden / "tiny.onnx").read_bytes())
    result = sefa_command("tune", model, "--seconds", "0.01")
    command = next(line[line.index("sefa serve") :] for line in result.out.splitlines() if "sefa serve" in line)
    assert parse_model(shlex.split(command)[2]) == ("model", model)


def test_json(sefa_command: Command, golden: Path) -> None:
    document = json.loads(sefa_command("tune", golden / "tiny.onnx", "--seconds", "0.01", "--json").out)
    assert document["provider"] == "cpu"
    assert {"setting", "batch", "runs", "p50_ms", "images_per_second"} == set(document["trials"][0])


def test_the_model_is_not_overwritten(sefa_command: Command, golden: Path) -> None:
    result = sefa_command("tune", golden / "tiny.onnx", "-o", golden / "tiny.onnx")
    assert result.code == 1
    assert result.err.count("\n") == 1
