"""What the benchmarks share: the record around their results, and calls that are timed in turns."""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sefa_runtime.editor import Editor
from sefa_runtime.files import write_whole
from sefa_runtime.latency.graph_facts import read_graph_facts
from sefa_runtime.latency.roofline import least_bytes, rates_for, roofline
from sefa_runtime.machine.description import describe_machine, load_average
from sefa_runtime.machine.packages import describe_versions, installed_version

# Milliseconds of each call, [rounds, calls], by what was called.
Times = Mapping[str, NDArray[np.float64]]


def make_parser(description: str | None) -> argparse.ArgumentParser:
    """Return a parser with the option that all benchmarks have, where the record goes."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, metavar="RECORD.json")
    return parser


class Record:
    """A record: what was measured, the results, and on which machine and with which versions.

    Args:
        what: What the numbers are.
        packages: Distributions beside the runtime's whose versions matter.
        versions: All versions, if they are not those of this process.
    """

    def __init__(self, what: str, packages: Iterable[str] = (), versions: Mapping[str, str] | None = None) -> None:
        self._what = what
        self._packages = tuple(packages)
        self._versions = versions
        self._machine = describe_machine()  # with the load average at the beginning

    def contents(self, results: Mapping[str, Any]) -> dict[str, Any]:
        """Return the record with these results."""
        found = {name: version for name in self._packages if (version := installed_version(name))}
        versions = describe_versions() | found if self._versions is None else self._versions
        return {
            "what": self._what,
            **results,
            "machine": self._machine,
            "load_average_after": load_average(),
            "versions": dict(versions),
        }

    def finish(self, results: Mapping[str, Any], output: Path | None, problems: Iterable[str] = ()) -> None:
        """Print the record and write it; end with exit code 1 if there are problems, which are printed."""
        text = json.dumps(self.contents(results), indent=2)
        print(text)
        if output is not None:
            write_whole(output, (text + "\n").encode())
        if found := "\n".join(problems):
            sys.exit(found)


def alternate(
    runs: Mapping[str, Callable[[], object]],
    rounds: int,
    calls: int = 1,
    *,
    warm_up: int = 2,
    settle: int = 0,
    pause_s: float = 0.05,
) -> dict[str, NDArray[np.float64]]:
    """Time calls in turns, so that a busy machine slows all of them alike; who goes first rotates.

    Args:
        runs: What is called, by name.
        rounds: How often each has its turn.
        calls: Calls that count in each turn.
        warm_up: Rounds before those that count.
        settle: Calls in each turn before those that count.
        pause_s: Seconds before each turn: onnxruntime's and PyTorch's threads spin for a while after their last run.

    Returns:
        The milliseconds of each call, [rounds, calls], by name.
    """
    names = list(runs)
    times = {name: np.empty((warm_up + rounds, calls)) for name in names}
    for turn in range(warm_up + rounds):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            run = runs[name]
            if pause_s:
                time.sleep(pause_s)
            for _ in range(settle):
                run()
            for call in range(calls):
                started = time.perf_counter_ns()
                run()
                times[name][turn, call] = (time.perf_counter_ns() - started) / 1e6
    return {name: of_one[warm_up:] for name, of_one in times.items()}


def p50_ms(times: Times) -> dict[str, float]:
    """Return the median of each one's calls."""
    return {name: digits(float(np.median(of_one))) for name, of_one in times.items()}


def ratio(times: Times, slow: str, fast: str) -> dict[str, Any]:
    """Return how many times as long as `fast` `slow` takes: the ratio of each round's medians, and its quartiles."""
    return summary("ratio", np.median(times[slow], axis=1) / np.median(times[fast], axis=1), 2)


def summary(name: str, values: NDArray[np.float64], decimals: int = 3) -> dict[str, Any]:
    """Return the median and quartiles over the rounds."""
    low, middle, high = np.percentile(values, (25, 50, 75))
    quartiles = [round(float(low), decimals), round(float(high), decimals)]
    return {name: round(float(middle), decimals), f"{name}_quartiles": quartiles}


def digits(number: float, significant: int = 4) -> float:
    """Round to as many significant digits."""
    return float(f"{number:.{significant}g}")


def check_same(image: NDArray[np.uint8], other: NDArray[np.uint8], levels: int = 1) -> int:
    """Check that two ways that are timed against each other render the same images, to within some grey levels.

    Returns:
        The largest difference, in grey levels.

    Raises:
        AssertionError: If they differ by more.
    """
    difference = int(np.abs(image.astype(int) - other).max())
    assert difference <= levels, f"the images differ by {difference} levels"
    return difference


def roofline_of(editor: Editor, batch: int, milliseconds: float, edits: int = 1) -> dict[str, Any] | None:
    """Hold a run against the machine's rates, which are measured at the first call; None on other providers.

    Args:
        editor: What ran, loaded from a file.
        batch: Images per run.
        milliseconds: The median time of a run.
        edits: Edits per image.
    """
    rates, info = rates_for(editor), editor.info
    if rates is None or info.macs is None or editor.path is None:
        return None
    moved = least_bytes(info, read_graph_facts(editor.path).parameter_bytes, batch, edits)
    work = {"gmac_per_image": digits(info.macs / 1e9), "least_mb": digits(moved / 1e6)}
    return work | asdict(roofline(batch * info.macs, moved, milliseconds, rates))


def rates_of(editor: Editor) -> dict[str, Any] | None:
    """Return the machine's rates with an editor's threads; docs/latency-record.md explains them."""
    rates = rates_for(editor)
    return None if rates is None else asdict(rates)
