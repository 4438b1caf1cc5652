"""onnxruntime sends nothing and writes nothing below HOME, whoever of ours imports it."""

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sefa_runtime.session import importing
from support.paths import ROOT

# Writes down what the variable is at the moment when the package loads its library.
WATCHED = """
import os, sys
class Watch:
    def find_spec(self, name, path=None, target=None):
        if name == "onnxruntime.capi":
            with open(os.environ["SEEN"], "a") as file:
                print(os.environ.get("ORT_DISABLE_TELEMETRY"), file=file)
sys.meta_path.insert(0, Watch())
from sefa_cli import main
main()
"""
# With one of these onnxruntime keeps silent by itself.
OF_CI = ("CI", "GITHUB_ACTIONS", "TF_BUILD", "JENKINS_URL")


@pytest.mark.parametrize("command", ["edit", "export"])
def test_nothing_appears_in_home(golden: Path, tmp_path: Path, command: str) -> None:
    if command == "export":
        pytest.importorskip("torch")
    home = tmp_path / "home"
    home.mkdir()
    environment = {
        name: value for name, value in os.environ.items() if name not in (*OF_CI, importing.DISABLE_TELEMETRY)
    }
    environment |= {"HOME": str(home), "SEEN": str(tmp_path / "seen")}
    model = golden / {"edit": "tiny.onnx", "export": "checkpoints/dcgan_small_64/netG.pth"}[command]
    arguments = [command, str(model), "-o", str(tmp_path / ("a.png" if command == "edit" else "a.onnx"))]
    done = subprocess.run(
        [sys.executable, "-c", WATCHED, *arguments], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "seen").read_text() == "1\n"
    assert list(home.rglob("*")) == []


@pytest.mark.parametrize(("before", "after"), [("0", "0"), (None, "1")])
def test_what_the_user_set_stays(monkeypatch: pytest.MonkeyPatch, before: str | None, after: str) -> None:
    monkeypatch.delitem(sys.modules, "onnxruntime", raising=False)
    monkeypatch.setenv(importing.DISABLE_TELEMETRY, before or "")
    if before is None:
        monkeypatch.delenv(importing.DISABLE_TELEMETRY)
    importing.import_onnxruntime()  # Its library stays loaded, and does not look again.
    assert os.environ[importing.DISABLE_TELEMETRY] == after


def test_there_is_one_way_to_import_it() -> None:
    files = [file for folder in ("cli", "export", "runtime", "sefa") for file in (ROOT / folder).rglob("*.py")]
    importers = {file.name for file in files if "onnxruntime" in set(_imported(ast.parse(file.read_text("utf-8"))))}
    assert importers == {"importing.py"}


def _imported(node: ast.AST) -> Iterator[str]:
    """Names of packages that a module imports when it runs, not for types alone."""
    if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
        return
    if isinstance(node, ast.Import):
        yield from (alias.name.split(".")[0] for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        yield (node.module or "").split(".")[0]
    for child in ast.iter_child_nodes(node):
        yield from _imported(child)
