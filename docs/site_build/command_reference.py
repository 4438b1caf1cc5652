"""The pages of the reference of commands, made from the command line itself, so that they say what `--help` says."""

import re
from enum import Enum
from functools import cache
from typing import Any

from typer.main import get_command

from sefa_cli.app import app

OVERVIEW = "reference/commands.md"
# In the overview, the list of commands takes this line's place.
LIST_HERE = "<!-- The list of commands, in the site. -->"
OTHER_COMMANDS = "Other commands"
MARKED = re.compile(r"\[b\](.*?)\[/b\]")
EXAMPLE = re.compile(r"\[b\](sefa [^\[\]]*)\[/b\]")


@cache
def commands() -> dict[str, Any]:
    """Return every command that does something, by its words after `sefa`."""
    found: dict[str, Any] = {}
    for name, command in get_command(app).commands.items():  # type: ignore[attr-defined]
        inner = getattr(command, "commands", None)
        found |= {name: command} if inner is None else {f"{name} {other}": inner[other] for other in inner}
    return found


def place_of(command: str) -> str:
    """Return where a command's page lies in the site."""
    return f"reference/commands/{command.replace(' ', '-')}.md"


def panels() -> dict[str, list[str]]:
    """Return the commands under the headings that they have in `sefa --help`, in the same order."""
    groups = get_command(app).commands  # type: ignore[attr-defined]
    found: dict[str, list[str]] = {}
    for name in commands():
        group = groups[name] if name in groups else groups[name.partition(" ")[0]]
        found.setdefault(group.rich_help_panel or OTHER_COMMANDS, []).append(name)
    return found


def examples(help_text: str) -> list[str]:
    """Return the command lines in a help text, each of which is a paragraph of its own."""
    return [_plain(match[1]) for match in map(EXAMPLE.fullmatch, help_text.split("\n\n")) if match]


def overview() -> str:
    """Return the list of commands, as Markdown, for the overview."""
    found = commands()
    lines = []
    for panel, names in panels().items():
        lines += [f"## {panel}", ""]
        for name in names:
            page = place_of(name).removeprefix("reference/")
            summary = found[name].help.partition("\n\n")[0]
            lines += [f"[`sefa {name}`]({page})", f":   {_markdown(summary, 'commands/')}", ""]
    return "\n".join(lines)


def page(name: str) -> str:
    """Return a command's page, as Markdown: its help, an example, its arguments and its options."""
    command = commands()[name]
    lines = [f"# sefa {name}", ""]
    for paragraph in command.help.split("\n\n"):
        example = EXAMPLE.fullmatch(paragraph)
        lines += ["```bash", _plain(example[1]), "```", ""] if example else [_markdown(paragraph, ""), ""]
    shown = [parameter for parameter in command.params if not parameter.hidden and parameter.name != "help"]
    arguments = [one for one in shown if one.param_type_name == "argument"]
    options = [one for one in shown if one.param_type_name == "option"]
    words = " ".join(["[OPTIONS]", *map(_usage, arguments)])
    lines += ["## Usage", "", "```text", f"sefa {name} {words}", "```", ""]
    sections: dict[str, list[Any]] = {"Arguments": arguments, "Options": []}
    for option in options:
        sections.setdefault(option.rich_help_panel or "Options", []).append(option)
    for title, members in sections.items():
        if members:
            lines += [f"## {title}", "", *(line for one in members for line in _entry(one))]
    return "\n".join(lines)


def _usage(argument: Any) -> str:
    text = f"{argument.metavar}..." if argument.nargs == -1 else argument.metavar
    return text if argument.required else f"[{text}]"


def _entry(one: Any) -> list[str]:
    """Return the lines of an argument or option: a term that can be linked to, and its definition."""
    if one.param_type_name == "argument":
        term = f"`{one.metavar}`"
    else:
        names = ", ".join(sorted(one.opts, key=len))
        anchor = max(one.opts, key=len).strip("-")
        value = _value(one)
        term = f"`{names}{f' {value}' if value else ''}`{{ #{anchor} }}"
    remarks = [
        "Required." if one.required and one.param_type_name == "option" else "",
        "May be repeated." if one.multiple and "repeated" not in one.help else "",
        _default(one),
    ]
    return [term, f":   {' '.join(filter(None, [_markdown(one.help or '', ''), *remarks]))}", ""]


def _value(option: Any) -> str:
    """Return what follows an option's name: nothing after a flag, the words that it takes, or what stands for them."""
    if option.is_flag:
        return ""
    kind = option.type_descriptor.annotation
    if isinstance(kind, type) and issubclass(kind, Enum):
        return "|".join(str(choice.value) for choice in kind)
    return str(option.metavar or kind.__name__.upper())


def _default(one: Any) -> str:
    if isinstance(one.show_default, str):
        return f"Default: {one.show_default}."
    value = getattr(one.default, "value", one.default)
    return "" if value is None or value is False or value == "" or one.required else f"Default: `{value}`."


def _plain(marked: str) -> str:
    return marked.replace("\\[", "[")


def _markdown(marked: str, folder: str) -> str:
    """Turn rich's markup into Markdown: what it prints bold is code, and a command's name leads to its page."""
    found = commands()
    parts = []
    for number, part in enumerate(MARKED.split(marked)):
        text = _plain(part)
        if number % 2 == 0:
            parts.append(re.sub(r"([*_<\[\]`])", r"\\\1", text))
        elif (name := text.removeprefix("sefa ")) in found and text.startswith("sefa "):
            parts.append(f"[`{text}`]({folder}{place_of(name).rpartition('/')[2]})")
        else:
            parts.append(f"`{text}`")
    return "".join(parts)
