"""The README's examples, run as they stand."""

import io
import re
import shlex
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import sefa
import sefa_runtime
from sefa.bank.editing import change
from sefa.bank.naming import Change
from sefa_export import export_onnx
from support.paths import ROOT
from support.serving import Running, starting
from support.trained_generators import trained_faces

README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def letters(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model like the demo's, whose directions have names that were not measured."""
    generator = sefa.load("letters")
    bank = change(sefa.factorize(generator, top=4), {0: Change("weight"), 1: Change("slant")})
    return export_onnx(generator, bank, tmp_path_factory.mktemp("demo") / "letters.onnx", truncation=None)


@pytest.fixture
def folder(letters: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a reader stands after `make demo`, with a checkpoint of their own."""
    (tmp_path / "demo").mkdir()
    shutil.copy(letters, tmp_path / "demo" / "letters.onnx")
    shutil.copy(trained_faces(), tmp_path / "netG.pth")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_python_examples(folder: Path) -> None:
    train_to_serve, from_anywhere = blocks("python")
    names: dict[str, Any] = {}
    exec(train_to_serve, names)
    assert names["images"].shape == (2, 64, 64, 3)
    exec(from_anywhere, names)
    assert names["image"].shape == (64, 64, 1)
    # The graph alone and the Editor draw the same image for the same seed.
    editor = sefa_runtime.load("demo/letters.onnx", "cpu")
    expected = editor.edit(seed=7, edits={"weight": 1.5, "slant": 1.0}, label="g", truncation=0.7)[0]
    assert abs(names["image"].astype(int) - expected).max() <= 1


def test_command_examples(folder: Path, sefa_command: Callable[..., Any]) -> None:
    commands = [shlex.split(line, comments=True) for line in "".join(blocks("bash")).splitlines()]
    run = [command[1:] for command in commands if command[0] == "sefa"]
    assert len(run) == 10
    for arguments in run:
        result = sefa_command(*arguments)
        assert result.code == 0, result.err
    made = {"netG.onnx", "look.png", "face.png", "latency.json", "tuned.json"}
    assert {path.name for path in folder.iterdir()} >= made


def test_the_server_example(folder: Path) -> None:
    lines = [shlex.split(line, comments=True) for line in "".join(blocks("sh")).splitlines()]
    (arguments,) = (line[1:] for line in lines if line[0] == "sefa")
    (address,) = (line[-1] for line in lines if line[0] == "curl")
    for running in starting_servers(*arguments[1:]):
        response = running.http.get(address.removeprefix("http://127.0.0.1:8000"))
        assert (response.status_code, response.headers["content-type"]) == (200, "image/webp")
        image = np.asarray(Image.open(io.BytesIO(response.content)).convert("L"))[..., None]
        expected = sefa_runtime.load("demo/letters.onnx", "cpu").edit(seed=7, edits={0: 1.5}, label="g")[0]
        assert np.abs(image.astype(int) - expected).max() <= 1
        assert running.http.get("/").headers["content-type"].startswith("text/html")


def starting_servers(*models: str) -> Iterator[Running]:
    """A server of the models, for as long as the loop over this has its only turn."""
    for start in starting():
        yield start(*models)


def test_make_targets_that_are_named_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in set(re.findall(r"(?:`|^)make ([a-z-]+)", README, re.MULTILINE)):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_files_that_are_linked_exist() -> None:
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", README):
        assert (ROOT / target.partition("#")[0]).exists(), target
