"""Which package, wing and module may import which: the arrows that ARCHITECTURE.md shows.

Imports are read from the source, those inside functions and those for type checkers among them.
"""

import ast
import fnmatch
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from importlib.util import find_spec
from pathlib import Path

import pytest

from sefa_runtime.machine.packages import EXPORT_PACKAGES
from support.paths import ROOT

PACKAGES = {
    "sefa_cli": ROOT / "cli/sefa_cli",
    "sefa_export": ROOT / "export/sefa_export",
    "sefa": ROOT / "sefa",
    "sefa_runtime": ROOT / "runtime/sefa_runtime",
}

# The floors of each house, from the ground up. What stands on one floor imports from the floors below it, and nothing
# from its neighbours. Of the four packages, every module and folder has its place; of a wing, every folder in it.
FLOORS = {
    "": ["sefa_runtime", "sefa", "sefa_export", "sefa_cli"],
    "sefa_runtime": [
        "errors version lazy_names",
        "archives files json_text printable",
        "machine",
        "model",
        "images",
        "pickles",
        "inputs",
        "session",
        "editor",
        "instances verification",
        "explore latency server",
        "sealing deploy ray_app",
    ],
    "sefa_runtime.server": ["network", "http grpc"],
    "sefa": [
        "errors",
        "choices bundled",
        "linear_algebra",
        "generators",
        "checkpoints",
        "custom bank",
        "directions",
        "bank_files",
        "method_comparison",
        "opening finding demo",
    ],
    "sefa.generators": ["common"],
    "sefa.checkpoints": ["parts", "formats"],
    "sefa.custom": ["calls sources style_space"],
    "sefa.checkpoints.formats": ["nvidia residual rosinality tensorflow", "genforce openmmlab"],
    "sefa_export": ["onnx_graph torch_archives"],
    "sefa_cli": ["commands"],
}
WHOLE = ("sefa_runtime", "sefa")  # Here, modules have their floor as folders do.

MOST_MODULES = 12
ONE_FILE_EACH = {"sefa_cli.commands"}  # A list of the commands, as long as it is.


@cache
def modules() -> dict[str, Path]:
    """Every module of the four packages, by its name."""
    found = {}
    for package, folder in PACKAGES.items():
        for path in sorted(folder.rglob("*.py")):
            parts = path.relative_to(folder).with_suffix("").parts
            found[".".join((package, *parts)).removesuffix(".__init__")] = path
    return found


@cache
def imports() -> dict[str, set[str]]:
    """What each module imports of the four packages."""
    return {name: set(_imported(path)) - {name} for name, path in modules().items()}


def _imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: imports here are absolute"
            assert node.module
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            if name.split(".")[0] in PACKAGES:
                yield name if name in modules() else name.rpartition(".")[0]


def arrows() -> Iterator[tuple[str, str]]:
    """Every import that the floors speak of: from, to, as far as their names differ."""
    for importer, imported in imports().items():
        for target in imported:
            one, other = importer.split("."), target.split(".")
            common = 0
            while common < min(len(one), len(other)) and one[common] == other[common]:
                common += 1
            if common < min(len(one), len(other)):  # Else it is a folder's own __init__.
                yield ".".join(one[: common + 1]), ".".join(other[: common + 1])


def floor_of(name: str) -> int | None:
    """The floor that a module or folder stands on in the folder around it; None: that leaves it open."""
    folder, _, last = name.rpartition(".")
    return next((level for level, names in enumerate(FLOORS.get(folder, [])) if last in names.split()), None)


def folders() -> dict[str, list[str]]:
    """The modules of each folder, the packages' among them, without its `__init__`."""
    found: dict[str, list[str]] = {}
    for name, path in modules().items():
        if path.name == "__init__.py":
            found.setdefault(name, [])
        else:
            found.setdefault(name.rpartition(".")[0], []).append(name)
    return found


def test_every_folder_has_its_floor() -> None:
    missing = [name for name in folders() if floor_of(name) is None]
    missing += [name for package in WHOLE for name in folders()[package] if floor_of(name) is None]
    assert not missing, "give these a floor in FLOORS"
    named = {f"{folder}.{name}".lstrip(".") for folder, levels in FLOORS.items() for name in " ".join(levels).split()}
    assert named <= set(modules()), "FLOORS names what is not there"


def test_nothing_is_imported_from_its_own_floor_or_above() -> None:
    upwards = set()
    for importer, imported in arrows():
        own, other = floor_of(importer), floor_of(imported)
        if own is not None and other is not None and other >= own:
            upwards.add(f"{importer} -> {imported}")
    assert not upwards


def test_imports_have_no_circles() -> None:
    try:
        TopologicalSorter(imports()).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_no_folder_is_a_crowd() -> None:
    crowds = {name: len(inside) for name, inside in folders().items() if len(inside) > MOST_MODULES}
    assert set(crowds) <= ONE_FILE_EACH, crowds


def light_modules() -> list[str]:
    """Those that ruff keeps free of heavy imports: pyproject.toml makes no exception for them."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        exceptions = tomllib.load(file)["tool"]["ruff"]["lint"]["per-file-ignores"]
    patterns = []
    for pattern, rules in exceptions.items():
        if "TID253" in rules:
            before, brace, rest = pattern.partition("{")
            inside, _, after = rest.partition("}")
            patterns += [f"{before}{one}{after}" for one in inside.split(",")] if brace else [pattern]
    return [
        name
        for name, path in modules().items()
        if not any(fnmatch.fnmatch(path.relative_to(ROOT).as_posix(), pattern) for pattern in patterns)
    ]


def test_light_modules_import_where_nothing_heavy_can_be() -> None:
    light = light_modules()
    assert {name.split(".")[0] for name in light} == {"sefa_cli", "sefa", "sefa_runtime"}
    assert {name for name in modules() if name.split(".")[0] in ("sefa_cli", "sefa_runtime")} <= set(light)
    heavy = {*EXPORT_PACKAGES, "onnxruntime", "sefa_export"}
    if find_spec("ray") is None:
        light.remove("sefa_runtime.ray_app")
    light.remove("sefa_cli.__main__")
    program = f"""
import sys
from importlib import import_module
sys.modules.update(dict.fromkeys({heavy!r}))
for name in {light!r}:
    import_module(name)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
