"""What is printed: everything through one place, which escapes."""

import ast
import io
import os
import shlex
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

import sefa.cli
from conftest import Result
from sefa.cli import output
from sefa.cli.tune import _flags

Command = Callable[..., Result]

EVIL = "\x1b]52;c;bHM=\x07\r[b]bold[/b] :smile:\u202e\nsefa: all is well"
SHOWN = r"\x1b]52;c;bHM=\x07\r[b]bold[/b] :smile:\u202e\nsefa: all is well"
# What prints: of the standard library, typer and rich.
PRINTERS = {"print", "echo", "secho", "Console", "Progress"}
WRITERS = {"write", "writelines"}  # Methods, of a stream.


def calls(path: Path) -> list[str]:
    """What a module calls by these names, as `line: name`."""
    found = []
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Call):
            called = node.func
            name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
            if name in PRINTERS or (isinstance(called, ast.Attribute) and name in WRITERS):
                found.append(f"{path.name}:{node.lineno}: {name}")
    return found


def test_no_command_prints_but_through_output() -> None:
    modules = sorted(Path(sefa.cli.__file__).parent.glob("*.py"))
    assert len(modules) > 10
    assert [call for module in modules if module.name != "output.py" for call in calls(module)] == []
    assert calls(Path(output.__file__))


def test_lines_tables_facts_and_warnings_are_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    output.say(EVIL, "second")
    output.warn(EVIL)
    output.print_facts([("name", EVIL), (EVIL, 1)])
    output.print_table(("name", EVIL), [(EVIL, 1)])
    with output.working(EVIL), output.progress_bar(EVIL):
        pass
    printed = capsys.readouterr()
    lines = printed.out.splitlines()
    assert lines[:2] == [SHOWN, "second"]
    assert [line.split("  ", 1)[1].strip() for line in lines[2:3]] == [SHOWN]
    assert lines[4].split("  ")[-1].strip() == SHOWN
    assert lines[5].split("  ")[0] == SHOWN
    assert len(lines) == 6
    assert f"sefa: warning: {SHOWN}\n" in printed.err
    assert set(printed.out + printed.err) & set("\x1b\x07\r\u202e") == set()


def test_json_stays_json_and_is_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_json({"name": EVIL + "\x9b\ud800"})
    assert r"\u202e" in (printed := capsys.readouterr().out)
    assert r"\u009b\ud800" in printed
    assert printed.isascii()


def test_text_of_a_file_reaches_the_terminal_escaped(sefa_command: Command, tmp_path: Path) -> None:
    path = tmp_path / "netG.pth"
    torch.save({EVIL: torch.ones(2, 2)}, path)
    result = sefa_command("inspect", path)
    assert result.code == 1
    assert result.err.count("\n") == 1
    assert result.err.rstrip("\n").isprintable()


def test_a_file_name_that_is_not_utf_8_is_shown_by_its_bytes(sefa_command: Command, tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff\x1b[2J.pth"))
    result = sefa_command("inspect", path)
    assert (result.code, result.err) == (1, f"sefa: {tmp_path}/\\xff\\x1b[2J.pth: no such file\n")


@pytest.mark.parametrize(
    "arguments", [["--\x1b[31mno"], ["inspect", "a.pth", "b\x1b[31m.pth"], ["inspect", "--no\x1b[31m"], ["no\x1b[31m"]]
)
def test_words_that_are_not_understood_are_escaped(sefa_command: Command, arguments: list[str]) -> None:
    result = sefa_command(*arguments)
    assert result.code == 2
    assert r"\x1b[31m" in result.err
    assert "\x1b[31mno" not in result.err


def test_no_text_is_too_odd_for_a_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    content = io.BytesIO()
    stream = io.TextIOWrapper(content, "utf-8")
    monkeypatch.setattr("sys.stdout", stream)
    output.say("\udcff\ud800")
    stream.flush()
    assert content.getvalue() == b"\\xff\\ud800\n"


def test_a_printed_command_is_one_that_a_shell_takes_apart_again() -> None:
    words = ["sefa", "serve", "my faces; rm -rf x.onnx", "--provider-option", "key=two words"]
    assert shlex.split(output.command_line(*words)) == words


def test_tune_names_options_as_words() -> None:
    setting = SimpleNamespace(instances=2, threads=3, options={"a.b": "c d"})
    flags = _flags(cast(Any, SimpleNamespace(setting=setting, batch=4)), "cpu")
    assert shlex.split(output.command_line(*flags)) == [
        *("--provider", "cpu", "--instances", "2", "--threads", "3"),
        *("--provider-option", "a.b=c d", "--max-batch", "4"),
    ]
