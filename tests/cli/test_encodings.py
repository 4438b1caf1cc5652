"""Names that are not UTF-8, and terminals that are not."""

import json
import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import sefa
from sefa.custom import load_torchscript
from sefa_runtime import ModelFileError, load

Command = Callable[..., Any]

NOT_UTF8 = os.fsdecode(b"gr\xf6\xdfe")  # As a system with names in Latin-1 writes "größe".
REFUSED = "its name, or its folder's, is not UTF-8, which is needed here: rename it"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder whose name is not UTF-8."""
    folder = tmp_path / NOT_UTF8
    try:
        folder.mkdir()
    except OSError:
        pytest.skip("this file system takes no such names")
    return folder


def test_models_images_and_codes_may_have_any_name(golden: Path, folder: Path, sefa_command: Command) -> None:
    model = folder / "tiny.onnx"
    shutil.copy(golden / "tiny.onnx", model)
    assert (load(model, "cpu").edit(7) == load(golden / "tiny.onnx", "cpu").edit(7)).all()
    for output in ("a.png", "a.gif"):
        arguments = ("edit", model, "--seed", "7") if output == "a.png" else ("sweep", model)
        result = sefa_command(*arguments, "-o", folder / f"{NOT_UTF8}-{output}")
        assert (result.code, result.err) == (0, "")
        assert r"gr\xf6\xdfe-a" in result.out
        assert (folder / f"{NOT_UTF8}-{output}").stat().st_size
    with pytest.raises(ModelFileError, match="no such file"):
        load(folder / "missing.onnx")


def test_what_a_library_cannot_open_is_told_as_that(golden: Path, folder: Path, sefa_command: Command) -> None:
    checkpoint = golden / "checkpoints" / "dcgan_small_64" / "netG.pth"
    generator = sefa.load(checkpoint)
    bank = folder.parent / "bank.safetensors"
    sefa.factorize(generator).save(bank)
    shutil.copy(bank, folder)
    for arguments in (
        ("factorize", checkpoint, "-o", folder / "b.safetensors"),
        ("bank", "show", folder / "bank.safetensors"),
        ("export", checkpoint, "-o", folder / "a.onnx"),
        ("export", checkpoint, "-o", folder / "a.ts", "--format", "torchscript"),
        ("export", checkpoint, "-o", folder / "a.pt2", "--format", "pt2"),
    ):
        result = sefa_command(*arguments)
        assert result.code == 1
        assert result.err.endswith(f"{REFUSED}\n")
        assert result.err.count("\n") == 1


def test_torchscript_of_any_name_is_loaded(folder: Path) -> None:
    module = torch.nn.Linear(3, 2)
    with (folder / "a.ts").open("wb") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch advises torch.export instead.
        torch.jit.save(torch.jit.trace(module, torch.zeros(1, 3)), file)  # type: ignore[no-untyped-call]
    loaded = load_torchscript(folder / "a.ts", run_code=True)
    torch.testing.assert_close(loaded(torch.ones(1, 3)), module(torch.ones(1, 3)))


HELP = """
import sys
from typer.main import get_command
from sefa_cli import main
from sefa_cli.app import app

def walk(command, *words):
    yield words
    for name, inner in getattr(command, "commands", {}).items():
        yield from walk(inner, *words, *name.split())

for command in walk(get_command(app)):
    sys.argv = ["sefa", *command, "--help"]
    try:
        main()
    except SystemExit as end:
        assert not end.code, command
"""


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_help_can_be_read_in_any_encoding(encoding: str) -> None:
    environment = os.environ | {"PYTHONIOENCODING": encoding}
    done = subprocess.run([sys.executable, "-c", HELP], env=environment, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode(encoding)
    assert done.stdout.decode(encoding).count("Usage: sefa") > 20


def test_json_stays_json_where_letters_are_missing(golden: Path, tmp_path: Path) -> None:
    model = tmp_path / "größe.onnx"
    shutil.copy(golden / "tiny.onnx", model)
    program = "import sys; from sefa_cli import main; main()"
    command = [sys.executable, "-c", program, "name", str(model), "0=größe", "-o", str(tmp_path / "b.onnx")]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
    for encoding in ("ascii", "latin-1", "utf-8"):
        environment = os.environ | {"PYTHONIOENCODING": encoding}
        command = [sys.executable, "-c", program, "inspect", str(tmp_path / "b.onnx"), "--json"]
        done = subprocess.run(command, env=environment, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr
        assert "größe" in json.dumps(json.loads(done.stdout.decode(encoding)), ensure_ascii=False)
