import re
from collections.abc import Callable
from typing import Any

import pytest
from typer.main import get_command

import sefa
from sefa_cli.app import app

Command = Callable[..., Any]


def test_the_version_is_told(sefa_command: Command) -> None:
    assert sefa_command("--version").out == f"sefa {sefa.__version__}\n"


def names_of_commands(group: Any) -> list[str]:
    """Every command, those of groups with the group's name before theirs."""
    names = []
    for name, command in group.commands.items():
        inner = names_of_commands(command) if hasattr(command, "commands") else []
        names += [name, *(f"{name} {other}" for other in inner)]
    return names


@pytest.mark.parametrize("ask", ["{} --help", "{} -h", "help {}"])
def test_every_command_has_a_help_text(sefa_command: Command, ask: str) -> None:
    commands = names_of_commands(get_command(app))
    assert {"edit", "bank", "bank show", "bank merge", "bench", "bench compare"} <= set(commands)
    for command in commands:
        result = sefa_command(*ask.format(command).split())
        assert result.code == 0
        assert f"Usage: sefa {command} [OPTIONS]" in result.out
        assert re.search(r"--help +-h +Show this message", result.out)  # No type, as if a value followed.
        assert "<bool>" not in result.out


@pytest.mark.parametrize(
    "arguments", [("bank",), ("bank", "-h"), ("bank", "help"), ("help", "bank"), ("bank", "help", "help")]
)
def test_a_group_shows_its_commands(sefa_command: Command, arguments: tuple[str, ...]) -> None:
    result = sefa_command(*arguments)
    for name in ("show", "merge", "subset", "compare", "import", "export"):
        assert re.search(rf"^\W+{name} ", result.out + result.err, re.MULTILINE)


@pytest.mark.parametrize(
    ("arguments", "meant"), [(("bnak",), "bank"), (("bank", "shw"), "show"), (("exprot",), "export"), (("foo",), None)]
)
def test_what_is_no_command_is_refused_with_what_was_meant(
    sefa_command: Command, arguments: tuple[str, ...], meant: str | None
) -> None:
    result = sefa_command(*arguments)
    assert result.code == 2
    assert f"No such command '{arguments[-1]}'" in result.err
    assert ("Did you mean" in result.err) == (meant is not None)
    assert meant is None or f"'{meant}'" in result.err.partition("Did you mean")[2]
