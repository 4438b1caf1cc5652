"""What becomes of errors: one line for what the user can fix, a traceback for bugs, and for all with SEFA_TRACEBACK."""

import ast
import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sefa_cli import app

Command = Callable[..., Any]

PROGRAM = """
import sys
import sefa_runtime.session.doctor as doctor

def examine():
    {}

doctor.examine = examine
sys.argv = ["sefa", "doctor"]
from sefa_cli import main
main()
"""


def run(statement: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command in which a statement of ours fails."""
    environment = os.environ | {"SEFA_TRACEBACK": ""} | variables
    return subprocess.run(
        [sys.executable, "-c", PROGRAM.format(statement)], capture_output=True, text=True, env=environment, check=False
    )


@pytest.mark.parametrize(
    "bug",
    [
        "assert 1 == 2",
        "[].pop()",
        "None.size",
        "raise MemoryError",
        "raise ValueError('a bug')",
        "import a_module_that_is_missing",
        "import os; os.fstat(987654)",  # EBADF: as if a file had been used after it was closed.
        "raise OSError('without a number')",
    ],
)
def test_a_bug_of_ours_keeps_its_traceback(bug: str) -> None:
    done = run(bug)
    assert done.returncode == 1
    assert done.stderr.startswith("Traceback (most recent call last)")
    assert ", in examine" in done.stderr


@pytest.mark.parametrize(
    ("statement", "line"),
    [
        ("from sefa_runtime.errors import InputError; raise InputError('seeds are numbers')", "seeds are numbers"),
        ("from sefa.errors import BankError; raise BankError('a.safetensors: damaged')", "a.safetensors: damaged"),
        ("open('gone/a.png', 'wb')", "gone/a.png: No such file or directory"),
        ("raise OSError(28, 'No space left on device')", "No space left on device"),
    ],
)
def test_what_the_user_can_fix_is_one_line_unless_the_traceback_is_wanted(statement: str, line: str) -> None:
    done = run(statement)
    assert (done.returncode, done.stderr) == (1, f"sefa: {line}\n")
    done = run(statement, SEFA_TRACEBACK="1")
    assert done.returncode == 1
    assert done.stderr.startswith("Traceback (most recent call last)")
    assert ", in examine" in done.stderr
    assert line.rpartition(": ")[2] in done.stderr.splitlines()[-1]


def test_the_variable_is_in_the_help(sefa_command: Command) -> None:
    assert f"{app.TRACEBACK_VARIABLE}=1" in sefa_command("--help").out
    assert errno.EBADF in app.OUR_ERRNO


def test_no_command_imports_another() -> None:
    modules = sorted((Path(app.__file__).parent / "commands").glob("*.py"))
    assert len(modules) > 15
    for module in modules:
        for node in ast.walk(ast.parse(module.read_text())):
            if isinstance(node, ast.ImportFrom):
                assert node.level == 0, module.name
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            else:
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            assert not [name for name in names if name.startswith("sefa_cli.commands")], module.name
