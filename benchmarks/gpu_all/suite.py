"""Run all measurements within a limit of time, and keep what is done in one record.

Each item is a process of its own, so that one that hangs, crashes or breaks the device's context costs only itself.
Models are exported beside the first items, which need the device more than the CPU.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sefa_runtime.files import write_whole
from sefa_runtime.machine.cores import usable_cores
from sefa_runtime.machine.description import describe_machine
from sefa_runtime.machine.packages import describe_versions

SCRIPT = Path(__file__).parents[1] / "gpu.py"
MODELS = ("stylegan2-256", "letters", "stylegan2-1024", "faces", "biggan-128")
EXPORT_LIMIT_S = 200.0
# An item with less time than this is left out.
LEAST_S = 8.0
# Kept for the last item's end and the table.
RESERVE_S = 5.0
# Cores that an export keeps busy.
CORES_PER_EXPORT = 3


@dataclass(frozen=True)
class Item:
    """One process: a function of items.py, its arguments, and how long it may take."""

    function: str
    arguments: tuple[str, ...] = ()
    limit_s: float = 60.0

    @property
    def name(self) -> str:
        return " ".join((self.function, *self.arguments))


def items(peers: bool) -> list[Item]:
    """Return what is measured, most important first."""
    return [
        Item("doctor", (), 40),
        Item("directions", ("stylegan2-256",), 45),
        Item("roofline", (), 40),
        Item("model", ("stylegan2-256", "fp32"), 75),
        Item("model", ("stylegan2-256", "fp16"), 60),
        Item("model", ("letters", "fp32"), 40),
        Item("model", ("letters", "fp16"), 40),
        *([Item("peers", ("stylegan2-256",), 60)] if peers else []),
        Item("model", ("stylegan2-1024", "fp32"), 100),
        Item("model", ("stylegan2-1024", "fp16"), 80),
        Item("model", ("biggan-128", "fp32"), 50),
        Item("model", ("faces", "fp32"), 40),
        Item("directions", ("letters",), 30),
        Item("compiled", ("stylegan2-256",), 90),
        Item("model", ("biggan-128", "fp16"), 50),
        Item("model", ("faces", "fp16"), 40),
        *([Item("peers", ("stylegan2-1024",), 60)] if peers else []),
    ]


@dataclass
class Record:
    """The record, written anew after each entry."""

    path: Path | None
    provider: str
    small: bool
    entries: list[dict[str, Any]] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.head = {
            "what": "one run from arrays to uint8 images with 2 edits, in milliseconds, unless an entry says otherwise",
            "provider": self.provider,
            "small": self.small,
            "machine": describe_machine(),
            "versions": describe_versions(),
        }

    def add(self, item: str, entry: dict[str, Any]) -> None:
        with self.lock:
            self.entries.append({"item": item, **entry})
            self._write()

    def document(self) -> dict[str, Any]:
        return {**self.head, "seconds": round(time.monotonic() - self.started, 1), "entries": self.entries}

    def _write(self) -> None:
        if self.path is not None:
            write_whole(self.path, (json.dumps(self.document(), indent=1) + "\n").encode())


def run_all(
    provider: str,
    output: Path | None,
    *,
    small: bool = False,
    minutes: float = 8.0,
    seconds: float = 0.5,
    peers: Path | None = None,
    only: tuple[str, ...] = (),
    tell: Callable[[str], None] = lambda line: print(line, file=sys.stderr, flush=True),
) -> dict[str, Any]:
    """Measure everything; return the record.

    Args:
        provider: `cuda` or `cpu`.
        output: Where the record is kept; None: nowhere.
        small: Use small models and few inputs, for a rehearsal.
        minutes: When to stop.
        seconds: How long each way of running each batch is timed.
        peers: Folder with clones of other people's generators.
        only: Names of items, or their beginnings; empty: all.
        tell: Called with a line when an item ends.
    """
    record = Record(output, provider, small)
    deadline = time.monotonic() + minutes * 60 - RESERVE_S
    chosen = [item for item in items(peers is not None) if not only or item.name.startswith(only)]
    if small:  # As small as the other one.
        chosen = [item for item in chosen if "stylegan2-1024" not in item.arguments]
    with tempfile.TemporaryDirectory() as folder:
        options = ["--folder", folder, "--provider", provider, "--seconds", str(seconds)]
        options += ["--small"] if small else []
        options += ["--peers", str(peers)] if peers is not None else []

        def run(item: Item) -> None:
            started = time.monotonic()
            limit = min(item.limit_s, deadline - started)
            if limit < LEAST_S:
                record.add(item.name, {"what": item.function, "status": "skipped", "error": "no time was left"})
                return
            problem = run_item(item, options, limit, lambda entry: record.add(item.name, entry))
            if problem:
                record.add(item.name, {"what": item.function, "status": "error", "error": problem})
            tell(f"{time.monotonic() - record.started:5.0f} s  {item.name}: {problem or 'done'}")

        with ThreadPoolExecutor(max(1, usable_cores() // CORES_PER_EXPORT)) as pool:
            needed = dict.fromkeys(
                item.arguments[0] for item in chosen if item.function in ("model", "compiled", "peers")
            )
            exports: dict[str, Future[None]] = {
                name: pool.submit(run, Item("export", (name,), EXPORT_LIMIT_S)) for name in needed
            }
            for item in chosen:
                if item.arguments and item.arguments[0] in exports and item.function != "directions":
                    exports[item.arguments[0]].result()
                run(item)
    return record.document()


def run_item(item: Item, options: list[str], limit_s: float, add: Callable[[dict[str, Any]], None]) -> str:
    """Run an item in a process and hand on its entries as they come; return what went wrong, or an empty string."""
    command = [sys.executable, str(SCRIPT), "--item", item.function, *item.arguments, *options]
    late = threading.Event()
    with (
        tempfile.TemporaryFile() as errors,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, start_new_session=True) as process,
    ):

        def stop() -> None:
            late.set()
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)

        timer = threading.Timer(limit_s, stop)
        timer.start()
        assert process.stdout is not None
        try:
            for line in process.stdout:
                if line.endswith("\n"):  # Not a line that was cut off.
                    add(json.loads(line))
            code = process.wait()
        finally:
            timer.cancel()
        errors.seek(0)
        said = errors.read().decode(errors="replace").strip().splitlines()
    if late.is_set():
        return f"stopped after {limit_s:.0f} s"
    return "" if code == 0 else f"exit code {code}: {said[-1] if said else 'it said nothing'}"[:400]
