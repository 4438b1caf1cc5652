"""Ctrl-C and SIGTERM, of commands that Python itself cannot interrupt."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.patience import PATIENCE_S
from support.strange_graphs import endless

# As `sefa`; it says when a run begins, and may leave runs alone that are to be stopped.
PROGRAM = """
import sys, sefa_runtime.session.session as session
run = session._run
def told(*arguments):
    print("runs", flush=True)
    return run(*arguments)
session._run = told
if sys.argv.pop(1) == "stubborn":
    session.stop_run = lambda thread: print("asked", flush=True)
from sefa_cli import main
main()
"""


@contextmanager
def running(*arguments: str | Path, stubborn: bool = False) -> Iterator["subprocess.Popen[str]"]:
    """A command in a process of its own that is in a run of its graph."""
    program = [sys.executable, "-c", PROGRAM, "stubborn" if stubborn else "meek"]
    process = subprocess.Popen(
        [*program, *map(str, arguments), "--provider", "cpu"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Whoever runs these tests in the background may have asked to ignore it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler) and None,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line == "runs\n", process.communicate()
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
def model(golden: Path, tmp_path: Path) -> Path:
    """A model whose runs do not end."""
    return endless(golden / "tiny.onnx", tmp_path / "endless.onnx", always=True)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("command", ["edit", "sweep"])
def test_one_signal_ends_a_run_that_has_no_end(model: Path, tmp_path: Path, command: str, number: int) -> None:
    with running(command, model, "-o", tmp_path / "a.png") as process:
        process.send_signal(number)
        _, errors = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 128 + number
    assert "Traceback" not in errors
    assert list(tmp_path.iterdir()) == [model]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_second_signal_ends_the_process_whatever_holds_it(model: Path, tmp_path: Path, number: int) -> None:
    with running("edit", model, "-o", tmp_path / "a.png", stubborn=True) as process:
        process.send_signal(number)
        assert process.stdout is not None
        assert process.stdout.readline() == "asked\n"
        process.send_signal(number)
        process.communicate(timeout=PATIENCE_S)
    # By the signal itself if the first one came just before the run: then the second finds Python about to end.
    assert process.returncode in (128 + number, -number)


def test_what_was_printed_is_not_lost_with_the_process(tmp_path: Path) -> None:
    program = "from sefa_cli.signals import leave; print('written', end=''); leave(3)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (3, "written")


def test_ctrl_c_while_the_command_is_still_imported_is_no_traceback() -> None:
    program = """
import os, signal, sys
class Interrupts:
    def find_spec(self, name, path=None, target=None):
        if name == "typer":
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Interrupts())
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.argv = ["sefa", "--version"]
from sefa_cli import main
main()
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=PATIENCE_S)
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "", "")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_what_fails_because_it_was_stopped_is_no_error(number: int) -> None:
    program = f"""
import os, signal, sefa_cli.app as app
from sefa.errors import CheckpointError
signal.signal(signal.SIGINT, signal.default_int_handler)
def command(prog_name):
    try:
        os.kill(os.getpid(), {number:d})
    except BaseException:
        raise CheckpointError("torch does not take it")
app.app = command
app.main()
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=PATIENCE_S)
    assert (ended.returncode, ended.stdout, ended.stderr) == (128 + number, "", "")
