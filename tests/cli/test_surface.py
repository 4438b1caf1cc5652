"""The commands, their options and defaults, against `commands.json`: a change of the surface shows in a diff of it.

`python tests/cli/test_surface.py` writes the file anew.
"""

import json
from enum import Enum
from pathlib import Path
from typing import Any

from typer.main import get_command

from sefa_cli.app import app

SURFACE = Path(__file__).with_name("commands.json")


def surface_of(group: Any) -> dict[str, Any]:
    """Return what each command takes: arguments and options, with their metavar or choices, and the default."""
    return {
        name: surface_of(command) if hasattr(command, "commands") else dict(map(parameter, command.params))
        for name, command in group.commands.items()
    }


def parameter(one: Any) -> tuple[str, str]:
    names = " ".join(one.opts) if one.param_type_name == "option" else one.metavar
    default = one.show_default if isinstance(one.show_default, str) else getattr(one.default, "value", one.default)
    facts = (
        "flag" if getattr(one, "is_flag", False) else "|".join(choices(one)) or one.metavar or "",
        "required" if one.required else "",
        "repeatable" if one.multiple or one.nargs == -1 else "",
        "" if default is None or default is False else f"default {default!r}",
    )
    return names, ", ".join(filter(None, facts))


def choices(one: Any) -> list[str]:
    """Return the words that an option takes, if it takes no others; newer versions of typer keep their class."""
    kind = one.type_descriptor.annotation if hasattr(one, "type_descriptor") else None
    if isinstance(kind, type) and issubclass(kind, Enum):
        return [str(choice.value) for choice in kind]
    return [str(getattr(choice, "value", choice)) for choice in getattr(getattr(one, "type", None), "choices", ())]


def test_the_commands_are_those_on_record() -> None:
    assert surface_of(get_command(app)) == json.loads(SURFACE.read_text())


if __name__ == "__main__":
    SURFACE.write_text(json.dumps(surface_of(get_command(app)), indent=1) + "\n")
