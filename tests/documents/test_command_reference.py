"""The reference of commands: every command and option is on it, and the examples of the help run as they stand."""

import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.main import get_command

import command_reference
import sefa
from sefa.bank.editing import change, subset
from sefa.bank.naming import parse_change, resolve
from sefa_cli.app import app
from sefa_export import export_onnx
from support.descriptions import change_description
from support.paths import CHECKPOINTS, GOLDEN, ROOT

COMMANDS = command_reference.commands()
EXAMPLES = [(name, line) for name, command in COMMANDS.items() for line in command_reference.examples(command.help)]
# `sefa serve` goes on until it is stopped, and `sefa demo` takes long: other tests run both.
NOT_RUN = ("demo", "serve")
# So that an example takes no longer than it must, and needs no GPU.
MORE = {
    "bench": "--seconds 0.02 --provider cpu",
    "compare-methods": "--samples 500 --images 1 --repeats 1",
    "explore": "--quick --samples 4",
    "sweep": "--scale 1",
    "tune": "--seconds 0.01",
    "verify": "--provider cpu",
}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the examples speak of."""
    folder = tmp_path_factory.mktemp("reference")
    shutil.copy(CHECKPOINTS / "mm_dcgan_32" / "iter_300000.pth", folder / "netG.pth")
    shutil.copy(CHECKPOINTS / "sefa_stylegan_64" / "checkpoint.pth", folder / "stylegan.pth")
    generator = sefa.load(folder / "netG.pth")
    bank = sefa.factorize(generator)
    bank = change(bank, resolve(bank.names, [parse_change(text) for text in ("0=pose", "1=turn", "3=light")]))
    export_onnx(generator, bank, folder / "faces.onnx")
    for name in ("faces", "mine", "theirs"):
        bank.save(folder / f"{name}.safetensors")
    subset(bank, [0]).save(folder / "pose.safetensors")
    subset(bank, [3]).save(folder / "light.safetensors")
    change_description(GOLDEN / "style_z.onnx", folder / "letters.onnx", name_letters)
    np.save(folder / "pose_boundary.npy", np.eye(sefa.load(folder / "stylegan.pth").latent_dim, dtype=np.float32)[:1])
    return folder


def name_letters(document: dict[str, Any]) -> None:
    """Let a model's six classes be letters, and its first directions be what the letters' are."""
    document["class_names"] = list("SeFabc")
    for direction, name in zip(document["directions"], ("weight", "slant"), strict=False):
        direction["name"] = name


@pytest.fixture
def folder(files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(files, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def prepare(name: str, sefa_command: Callable[..., Any]) -> None:
    """Make what an example needs besides."""
    if name == "bench compare":
        for record in ("before.json", "after.json"):
            sefa_command("bench", "faces.onnx", *MORE["bench"].split(), "--batch", "1", "-o", record)
    if name == "seal":
        import onnx
        from onnx import version_converter

        onnx.save(version_converter.convert_version(onnx.load("faces.onnx"), 21), "small.onnx")


@pytest.mark.parametrize(("name", "line"), EXAMPLES, ids=[name for name, _ in EXAMPLES])
def test_examples(folder: Path, sefa_command: Callable[..., Any], name: str, line: str) -> None:
    program, *arguments = shlex.split(line)
    assert program == "sefa"
    assert line.startswith(f"sefa {name}")
    if name in NOT_RUN:
        COMMANDS[name].make_context(name, arguments[1:])
        return
    prepare(name, sefa_command)
    result = sefa_command(*arguments, *MORE.get(name, "").split())
    assert result.code == 0, result.err


def test_every_command_has_an_example() -> None:
    assert {name for name, _ in EXAMPLES} == set(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_page_has_every_option(name: str) -> None:
    page = command_reference.page(name)
    options = {option for one in COMMANDS[name].params for option in one.opts if option.startswith("-")}
    assert options
    for option in options:
        assert re.search(rf"^`(?:[^`]*, )?{re.escape(option)}[, `]", page, re.MULTILINE), option
    assert "[b]" not in page
    assert page.count("```bash") == len(command_reference.examples(COMMANDS[name].help))


def test_the_overview_lists_every_command_under_its_heading() -> None:
    text = command_reference.overview()
    assert re.findall(r"^\[`sefa (.+)`\]", text, re.MULTILINE) == [
        name for names in command_reference.panels().values() for name in names
    ]
    assert set(command_reference.panels()) == {
        command.rich_help_panel
        for command in get_command(app).commands.values()  # type: ignore[attr-defined]
    }
    document = (ROOT / "docs" / command_reference.OVERVIEW).read_text()
    assert document.count(command_reference.LIST_HERE) == 1
