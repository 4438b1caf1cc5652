"""What commands print: results on stdout, progress on stderr.

All that is printed goes through here: text from files, names and messages reach the terminal escaped.
"""

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from sefa_runtime.printable import printable, printable_json, quoted

if TYPE_CHECKING:
    from sefa.generators import Generator
    from sefa_runtime import ModelInfo
    from sefa_runtime.session import Session

Cell = str | int | float


def say(*lines: str, err: bool = False, bold: bool = False) -> None:
    """Print lines, an empty one if there are none; a line break within one is escaped like all that is not printable.

    Args:
        lines: What to print.
        err: Print to stderr.
        bold: Print in bold, where the terminal can.
    """
    typer.secho("\n".join(map(printable, lines)), err=err, bold=bold or None)


def warn(message: str) -> None:
    """Say what is probably not meant, and go on."""
    say(f"sefa: warning: {message}", err=True)


def print_json(document: object) -> None:
    """Print one JSON document."""
    typer.echo(printable_json(json.dumps(document, indent=2, ensure_ascii=False)))


def print_table(headings: Sequence[str], rows: Sequence[Sequence[Cell]]) -> None:
    """Print rows under headings; numbers to the right."""
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for index, heading in enumerate(headings):
        is_number = bool(rows) and not isinstance(rows[0][index], str)
        table.add_column(Text(printable(heading)), justify="right" if is_number else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(printable(str(cell))) for cell in row))
    # Piped output has no width of its own: never wrap what a script may read.
    Console(markup=False, highlight=False, width=None if sys.stdout.isatty() else 200).print(table)


def print_facts(facts: Sequence[tuple[str, object]]) -> None:
    """Print name and value pairs, aligned."""
    width = max(len(name) for name, _ in facts)
    for name, value in facts:
        say(f"{name:<{width}}  {value}")


def origin_facts(about: "ModelInfo | Generator") -> list[tuple[str, str]]:
    """Which entry of the checkpoint was read, and what it does not tell and was assumed."""
    facts = [("read", about.source_entry), ("assumed", "; ".join(about.assumptions))]
    return [(name, value) for name, value in facts if value]


@contextmanager
def working(description: str) -> Iterator[None]:
    """Show that something without a known length is going on."""
    with Console(stderr=True).status(Text(printable(description))):
        yield


@contextmanager
def progress_bar(description: str) -> Iterator[Callable[[float], None]]:
    """Show a bar; call what this gives with the share that is done, 0 to 1."""
    console = Console(stderr=True)
    if not console.is_terminal:  # rich would leave an empty line in a log.
        yield lambda share: None
        return
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TimeRemainingColumn())
    # No thread of its own that draws while something is measured: only when it is told to.
    with Progress(*columns, console=console, transient=True, auto_refresh=False) as progress:
        task = progress.add_task(printable(description), total=1.0)
        progress.refresh()
        yield lambda share: progress.update(task, completed=share, refresh=True)


def command_line(*words: object) -> str:
    """A command to be pasted into a shell: words with spaces and the like are quoted."""
    return " ".join(quoted(str(word)) for word in words)


def where_it_ran(session: "Session") -> str:
    """`on cuda`; if it is not the provider that was asked for by name, also why."""
    fallback = session.requested.lower() != "auto" and session.reason
    return f"on {session.provider}" + (f" ({session.reason})" if fallback else "")


def format_bytes(count: int) -> str:
    """14322251 -> 14.3 MB."""
    return f"{count / 1e6:.1f} MB" if count >= 100_000 else f"{count / 1e3:.1f} kB"
