"""What commands print: results on stdout, progress on stderr.

Everything that is printed goes through here, so that text from files, names and messages is escaped.
"""

import json
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import typer
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from sefa_runtime.files import write_whole
from sefa_runtime.printable import printable, printable_json, quoted

Cell = str | int | float
# Seconds before someone who waits sees a sign of life.
PATIENCE_S = 10.0
# Longer tables are laid out without rich.
MANY_ROWS = 1000


def say(*lines: str, err: bool = False, bold: bool = False) -> None:
    """Print lines, or an empty line if there are none; unprintable characters, including line breaks, are escaped.

    Args:
        lines: What to print.
        err: Print to stderr.
        bold: Print in bold if the terminal can.
    """
    typer.secho("\n".join(map(printable, lines)), err=err, bold=bold or None)


def warn(message: str) -> None:
    """Print a warning about a probable mistake and go on."""
    say(f"sefa: warning: {message}", err=True)


def print_json(document: object) -> None:
    """Print one JSON document."""
    # Otherwise characters that stdout cannot encode would be written as escapes that JSON does not know.
    ascii_only = (sys.stdout.encoding or "").lower().replace("-", "") != "utf8"
    typer.echo(printable_json(json.dumps(document, indent=2, ensure_ascii=ascii_only)))


def save_json(document: object, path: Path) -> None:
    """Write one JSON document, whole or not at all."""
    write_whole(path, (json.dumps(document, indent=2) + "\n").encode())


def print_table(headings: Sequence[str], rows: Sequence[Sequence[Cell]]) -> None:
    """Print rows under headings, with numbers aligned to the right."""
    if len(rows) > MANY_ROWS:
        _print_long_table(headings, rows)
        return
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for index, heading in enumerate(headings):
        is_number = bool(rows) and not isinstance(rows[0][index], str)
        table.add_column(Text(printable(heading)), justify="right" if is_number else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(printable(str(cell))) for cell in row))
    # Piped output has no width: never wrap what a script may read.
    Console(markup=False, highlight=False, width=None if sys.stdout.isatty() else 200).print(table)


def _print_long_table(headings: Sequence[str], rows: Sequence[Sequence[Cell]]) -> None:
    """Print a table without rich, which takes 18 s for 50,000 rows; no cell is folded."""
    texts = [[printable(str(cell)) for cell in row] for row in (headings, *rows)]
    sizes = [[cell_len(text) for text in row] for row in texts]
    widths = [max(column) for column in zip(*sizes, strict=True)]
    is_number = [not isinstance(cell, str) for cell in rows[0]]
    lines = []
    for row, lengths in zip(texts, sizes, strict=True):
        gaps = [" " * (width - length) for width, length in zip(widths, lengths, strict=True)]
        cells = [gap + text if right else text + gap for text, gap, right in zip(row, gaps, is_number, strict=True)]
        lines.append("  ".join(cells).rstrip())
    typer.echo("\n".join(lines))


def print_facts(facts: Sequence[tuple[str, object]]) -> None:
    """Print pairs of name and value with the values aligned."""
    width = max(len(name) for name, _ in facts)
    for name, value in facts:
        say(f"{name:<{width}}  {value}")


def say_how_long(seconds: float) -> None:
    """Print how long something is going to take if it takes long."""
    if seconds >= PATIENCE_S:
        say(f"sefa: this takes about {duration(seconds)}", err=True)


def duration(seconds: float) -> str:
    """Return 75 as `1 min 15 s`, with at most two units."""
    whole = max(1, round(seconds))
    for unit, size, less, part in (("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if whole >= size:
            rest = whole % size // part
            return f"{whole // size} {unit}" + (f" {rest} {less}" if rest else "")
    return f"{whole} s"


def _pause(seconds: float) -> float:
    """Return how long to wait, after `seconds`, for the next line in a log: hours must not give thousands of lines."""
    return max(PATIENCE_S, seconds / 10)


@contextmanager
def working(description: str) -> Iterator[None]:
    """Show that work of unknown length is going on; in a log, print from time to time how long it has taken."""
    console = Console(stderr=True)
    if console.is_terminal:
        with console.status(Text(printable(description))):
            yield
        return
    started, ended = time.monotonic(), threading.Event()

    def tell() -> None:
        while not ended.wait(_pause(time.monotonic() - started)):
            say(f"{description}: {duration(time.monotonic() - started)} so far", err=True)

    threading.Thread(target=tell, daemon=True).start()
    try:
        yield
    finally:
        ended.set()


@contextmanager
def progress_bar(description: str) -> Iterator[Callable[[float], None]]:
    """Show a bar, or in a log an occasional line; yield a function to call with the share that is done, 0 to 1."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _Lines(description).show
        return
    # Imported here because it takes long, which would slow down every start.
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TimeRemainingColumn())
    # No thread may redraw while something is measured: the bar changes only when the function is called.
    with Progress(*columns, console=console, transient=True, auto_refresh=False) as progress:
        task = progress.add_task(printable(description), total=1.0)
        progress.refresh()
        yield lambda share: progress.update(task, completed=share, refresh=True)


class _Lines:
    """Progress in a log: an occasional line."""

    def __init__(self, description: str) -> None:
        self._description = description
        self._started = self._last = time.monotonic()
        self._first_share: float | None = None  # The share done before this run, if it resumes another, took no time.

    def show(self, share: float) -> None:
        """Print how much is done and how long the rest takes, unless that was printed just now."""
        now = time.monotonic()
        if self._first_share is None:
            self._first_share = share
        if now - self._last < _pause(now - self._started) or share >= 1:
            return
        self._last = now
        done = share - self._first_share
        left = f", about {duration((now - self._started) / done * (1 - share))} left" if done > 0 else ""
        say(f"{self._description}: {share:.0%}{left}", err=True)


def command_line(*words: object) -> str:
    """Return a command to paste into a shell, with words quoted where needed."""
    return " ".join(quoted(str(word)) for word in words)


def format_bytes(count: int) -> str:
    """Return 14322251 as `14.3 MB`."""
    return f"{count / 1e6:.1f} MB" if count >= 100_000 else f"{count / 1e3:.1f} kB"
