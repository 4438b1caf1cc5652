"""The reference of the Python interface: every public name is on it once, and the examples in docstrings run."""

import ast
import doctest
import re
import shutil
from importlib import import_module
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

import sefa
import sefa_export
import sefa_runtime
from sefa.bank.editing import change
from sefa.bank.naming import parse_change, resolve
from support.paths import CHECKPOINTS, ROOT

PACKAGES = (sefa, sefa_export, sefa_runtime)
PAGES = sorted((ROOT / "docs" / "reference" / "python").glob("*.md"))
# The package's function has the name of its module, which the reader of code takes for the other.
MODULES = {"sefa_runtime.latency.measure.measure": "sefa_runtime.latency.measure"}
LISTED = [name for page in PAGES for name in re.findall(r"^::: (\S+)$", page.read_text(), re.MULTILINE)]


def found(name: str) -> object:
    """Return what a dotted name stands for; `test_names.py` makes sure that there is something."""
    parts = name.split(".")
    for end in range(len(parts) - 1, 0, -1):
        try:
            value: object = import_module(".".join(parts[:end]))
        except ModuleNotFoundError:
            continue
        for part in parts[end:]:
            value = getattr(value, part)
        return value
    raise AssertionError(name)


def examples_of(thing: object, name: str) -> list[doctest.DocTest]:
    """Return the examples in a docstring, and in those of a class's methods."""
    names = {"np": np, "torch": torch} | {package.__name__: package for package in PACKAGES}
    if isinstance(thing, ModuleType):
        return [doctest.DocTestParser().get_doctest(thing.__doc__ or "", names, name, None, None)]
    names |= vars(import_module(thing.__module__))
    tests = doctest.DocTestFinder().find(thing, name, globs=names)
    return [test for test in tests if test.examples]


EXAMPLES = [
    example
    for name in [*(package.__name__ for package in PACKAGES), *LISTED]
    for example in examples_of(import_module(name) if "." not in name else found(name), name)
]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the examples speak of."""
    folder = tmp_path_factory.mktemp("examples")
    shutil.copy(CHECKPOINTS / "dcgan_small_64" / "netG.pth", folder)
    generator = sefa.load(folder / "netG.pth")
    bank = sefa.factorize(generator, top=8)
    bank = change(bank, resolve(bank.names, [parse_change("1=turn")]))
    bank.save(folder / "faces.safetensors")
    sefa_export.export_onnx(generator, bank, folder / "faces.onnx")
    return folder


def test_every_public_name_is_listed_once() -> None:
    """Those that the packages offer, and those that `typing_of_public_api.py` imports from their modules."""
    offered = {f"{package.__name__}.{name}" for package in PACKAGES for name in package.__all__}
    tree = ast.parse((ROOT / "tests" / "typing_of_public_api.py").read_text())
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.module is not None and node.module.startswith("sefa"):
            offered |= {f"{node.module}.{alias.name}" for alias in node.names}
    assert len(LISTED) == len(set(LISTED))
    assert {MODULES.get(name, name) for name in LISTED} >= {
        name for name in offered if not name.endswith(".__version__")
    }


@pytest.mark.usefixtures("steady_clock")
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_examples_in_docstrings(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, example: doctest.DocTest
) -> None:
    shutil.copytree(files, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    reports: list[str] = []
    failed, tried = doctest.DocTestRunner().run(example, out=reports.append)
    assert tried
    assert not failed, "".join(reports)


def test_the_names_that_most_users_meet_have_examples() -> None:
    names = {example.name for example in EXAMPLES}
    assert {"sefa.load", "sefa.factorize", "sefa_export.export_onnx", "sefa_runtime.load"} < names
    assert {f"sefa_runtime.Editor.{method}" for method in ("run", "edit", "sweep")} < names
