"""Every name that the packages offer, and every one that the documents speak of, is there."""

import importlib
import json
import re
from importlib.util import find_spec
from pathlib import Path

import pytest

import sefa
import sefa_export
import sefa_runtime
from support.paths import ROOT

DOCUMENTS = [
    *sorted(ROOT.glob("*.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "docs").rglob("*.ipynb")),
]
DOCUMENTS.remove(ROOT / "CHANGELOG.md")  # It speaks of what was.
OPTIONS = set(re.findall(r"--[a-z][\w-]*", (ROOT / "tests/cli/commands.json").read_text()))
MAP = ROOT / "ARCHITECTURE.md"
# Not the middle of a file's name, nor its beginning: faces-sefa.safetensors, sefa.json.
DOTTED = re.compile(r"(?<![\w./-])(?:sefa|sefa_export|sefa_runtime)(?:\.[A-Za-z_]\w*)+")
FROM = re.compile(r"^from ((?:sefa|sefa_export|sefa_runtime)[\w.]*) import (.+)$", re.MULTILINE)
FILES = (".json", ".safetensors")


def name_of(document: Path) -> str:
    return document.relative_to(ROOT).as_posix()


def text_of(document: Path) -> str:
    text = document.read_text()
    if document.suffix == ".ipynb":
        return "\n".join("".join(cell["source"]) for cell in json.loads(text)["cells"])
    return text


def check(name: str) -> None:
    """Find the longest part of a dotted name that is a module, and attributes from there."""
    module, attributes = name, list[str]()
    while True:
        try:
            found: object = importlib.import_module(module)
            break
        except ModuleNotFoundError as error:
            if error.name is None or not f"{module}.".startswith(f"{error.name}."):
                assert find_spec(module), module  # It is there, and what it needs (ray) is not installed.
                return
            module, _, attribute = module.rpartition(".")
            attributes.insert(0, attribute)
    for attribute in attributes:
        found = getattr(found, attribute)


@pytest.mark.parametrize("package", [sefa, sefa_export, sefa_runtime], ids=lambda package: package.__name__)
def test_packages_have_what_they_offer(package: object) -> None:
    offered = package.__all__  # type: ignore[attr-defined]
    assert len(offered) == len(set(offered)) > 5
    for name in offered:
        getattr(package, name)


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_names_in_documents(document: Path) -> None:
    text = text_of(document)
    names = {name for name in DOTTED.findall(text) if not name.endswith(FILES)}
    names |= {f"{module}.{name.strip()}" for module, listed in FROM.findall(text) for name in listed.split(",")}
    for name in sorted(names):
        check(name)


def test_files_on_the_map_are_there() -> None:
    folders = ("cli", "docs", "export", "runtime", "sefa", "tests")
    paths = [f"/{path.relative_to(ROOT).as_posix()}" for folder in folders for path in (ROOT / folder).rglob("*")]
    named = {name for name in re.findall(r"`([\w./-]+)`", MAP.read_text()) if "/" in name or name.endswith(".py")}
    assert len(named) > 20
    for name in named:
        assert any(path.endswith("/" + name.strip("/")) for path in paths), name


# Of other programs: GANSpace, Ray, gunicorn, pip; and typer's own.
OTHER_OPTIONS = {
    "--use_w",
    "--route-prefix",
    "--preload",
    "--timeout",
    "--graceful-timeout",
    "--no-control-socket",
    "--index-url",
    "--no-deps",
    "--ignore-requires-python",
    "--help",
}


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_options_in_documents(document: Path) -> None:
    text = text_of(document)
    code = [*re.findall(r"`([^`\n]+)`", text), *re.findall(r"^ *sefa .+$", text, re.MULTILINE)]
    named = {option for part in code for option in re.findall(r"(?<![\w-])--[a-z][\w-]*", part)}
    assert named <= OPTIONS | OTHER_OPTIONS, named - OPTIONS - OTHER_OPTIONS


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_linked_files_are_there(document: Path) -> None:
    text = re.sub(r"^```.*?^```|`[^`\n]+`", "", text_of(document), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\((?![a-z]+:|#)([^()#\s]+)[^()]*\)", text):
        assert (document.parent / target).exists(), target
