"""Compare the images of all contestants, then time those that agree, in turns."""

import json
import math
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from records import digits, summary
from sefa_runtime.verification import psnr_db

Image = NDArray[np.uint8]
Entry = dict[str, Any]

ROOT = Path(__file__).parents[2]
WORKER = Path(__file__).with_name("worker.py")
SOURCES = ("", "benchmarks", "cli", "export", "runtime", "tests")
# Float32 in another order of operations moves a value over a rounding border now and then.
MAX_LEVELS = 1
# Images of less contrast would agree whatever a generator does.
LEAST_CONTRAST = 10.0
WARM_UP, LEAST_ROUNDS, MOST_ROUNDS = 1, 7, 41
# After a run, threads spin for a while.
PAUSE_S = 0.05
# A worker that says nothing for so long is stopped; compiling takes longest.
LIMIT_S = 600.0


class WorkerError(Exception):
    """A contestant failed, in its own words."""


@dataclass
class Turn:
    """One run: how long it took, and the largest memory of the process so far."""

    ms: float
    peak_mib: int | None = None


class Contestant(Protocol):
    """Whoever renders the same latents with the same weights."""

    @property
    def name(self) -> str:
        """As in the record."""
        ...

    @property
    def least_db(self) -> float | None:
        """The PSNR that is enough for one that computes in less than float32; None: it must give the same images."""
        ...

    def render(self, batch: int) -> tuple[Image, Turn]:
        """Return the images of the first `batch` latents, and how long this first run took."""
        ...

    def run(self, batch: int) -> Turn:
        """Render them again."""
        ...


@dataclass
class Worker:
    """A contestant in a process of its own."""

    name: str
    task: Entry
    python: str = sys.executable
    least_db: float | None = None
    facts: Entry = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._log = Path(self.task["folder"], f"{self.name}.log")
        paths = os.pathsep.join(str(ROOT / folder) for folder in SOURCES)
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                [self.python, "-P", str(WORKER)],  # Modules beside the worker's must not hide those of a clone.
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                # Compiled code that an earlier run kept would be no time to compile.
                env=os.environ | {"PYTHONPATH": paths, "TORCHINDUCTOR_CACHE_DIR": self.task["folder"]},
            )
        self._send(self.task)

    def wait_until_ready(self) -> None:
        """Wait until the worker has loaded its model.

        Raises:
            WorkerError: If it could not.
        """
        self.facts = self._receive()

    def render(self, batch: int) -> tuple[Image, Turn]:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "image.npy")
            turn = self._ask(batch=batch, file=str(file))
            return np.load(file), turn

    def run(self, batch: int) -> Turn:
        return self._ask(batch=batch)

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()

    def _ask(self, **request: Any) -> Turn:
        self._send(request)
        return Turn(**self._receive())

    def _send(self, message: Entry) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(message) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError as error:
            raise WorkerError(self._last_words()) from error

    def _receive(self) -> Entry:
        timer = threading.Timer(LIMIT_S, self._process.kill)
        timer.start()
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        timer.cancel()
        if not line:
            raise WorkerError(self._last_words())
        message: Entry = json.loads(line)
        if "error" in message:
            raise WorkerError(message["error"])
        return message

    def _last_words(self) -> str:
        """Return what a process that ended said last."""
        code = self._process.wait()
        said = self._log.read_text(errors="replace").strip().splitlines()
        return f"exit code {code}: {said[-1] if said else 'it said nothing'}"[:300]


def compete(
    contestants: Sequence[Contestant], batch: int, seconds: float, least_rounds: int = LEAST_ROUNDS
) -> Iterator[Entry]:
    """Compare all with the first, then time those that give its images, in turns; yield an entry each.

    Args:
        contestants: The first is the one that the others are measured by.
        batch: Images in a run.
        seconds: How long to go on, in rounds of one run each.
        least_rounds: How many rounds there are even so.

    Raises:
        WorkerError: If there is nothing to compare with: the first one fails, or its images are nearly flat.
    """
    images: dict[str, Image] = {}
    first_runs: dict[str, Turn] = {}
    entries: dict[str, Entry] = {}
    for contestant in contestants:
        try:
            images[contestant.name], first_runs[contestant.name] = contestant.render(batch)
        except WorkerError as error:
            entries[contestant.name] = {"status": "failed", "reason": str(error)}
    first = contestants[0].name
    if first not in images:
        raise WorkerError(f"{first}: {entries[first]['reason']}")
    reference = images[first]
    contrast = float(reference.std())
    if contrast < LEAST_CONTRAST:
        raise WorkerError(f"images with a standard deviation of {contrast:.1f} levels are no comparison")
    for name, image in images.items():
        least_db = next(contestant.least_db for contestant in contestants if contestant.name == name)
        entries[name] = compare(image, reference, least_db)
    timed = [one for one in contestants if entries[one.name]["status"] == "ok"]
    times = time_in_turns(timed, batch, seconds, least_rounds)
    for name, entry in entries.items():
        if name in first_runs:
            entry["first_run_ms"] = digits(first_runs[name].ms)
        yield {"name": name, "batch": batch} | entry | times.get(name, {})


def compare(image: Image, reference: Image, least_db: float | None = None) -> Entry:
    """Return how far images are from a reference's, and whether that is near enough to be timed.

    Args:
        image: uint8 [N, H, W, C].
        reference: In the same shape.
        least_db: The PSNR that each image must have; None: no value may be more than `MAX_LEVELS` off.
    """
    if image.shape != reference.shape:
        return {"status": "other images", "reason": f"shape {image.shape} instead of {reference.shape}"}
    levels = np.abs(image.astype(int) - reference)
    worst = float(psnr_db(image, reference, 255.0).min())
    facts = {
        "largest_difference": int(levels.max()),
        "changed_fraction": round(float((levels > 0).mean()), 6),
        "psnr_db": None if math.isinf(worst) else round(worst, 1),  # None: no difference
    }
    if least_db is not None:
        facts["least_db"] = least_db
        near, reason = worst >= least_db, f"{worst:.1f} dB from ours, at least {least_db:g} are wanted"
    else:
        near = levels.max() <= MAX_LEVELS
        reason = f"up to {levels.max()} of 255 levels from ours, at most {MAX_LEVELS} are taken for the same image"
    return {"status": "ok", **facts} if near else {"status": "other images", "reason": reason, **facts}


def time_in_turns(contestants: Sequence[Contestant], batch: int, seconds: float, least_rounds: int) -> dict[str, Entry]:
    """Time all, alternating; who goes first changes from round to round.

    Returns:
        entries: By name: the median of all runs, and the median and quartiles of its rounds' ratios to the first one's.
    """
    rounds: list[list[float]] = []
    peaks: dict[str, int | None] = {}
    until = time.monotonic() + seconds
    most = WARM_UP + max(least_rounds, MOST_ROUNDS)
    while len(rounds) < WARM_UP + least_rounds or (time.monotonic() < until and len(rounds) < most):
        times = [0.0] * len(contestants)
        for place in range(len(contestants)):
            side = (place + len(rounds)) % len(contestants)
            time.sleep(PAUSE_S)
            turn = contestants[side].run(batch)
            times[side] = turn.ms
            peaks[contestants[side].name] = turn.peak_mib
        rounds.append(times)
    times_ms = np.array(rounds[WARM_UP:])  # [rounds, contestants]
    ratios = times_ms / times_ms[:, :1]
    return {
        contestant.name: {
            "rounds": len(times_ms),
            "p50_ms": digits(float(np.median(times_ms[:, side]))),
            "ms_per_image": digits(float(np.median(times_ms[:, side])) / batch),
            **summary("ratio", ratios[:, side], 2),
            "peak_mib": peaks[contestant.name],
        }
        for side, contestant in enumerate(contestants)
    }


def each_ready(workers: Sequence[Worker], report: Callable[[Worker, str], None]) -> list[Worker]:
    """Wait for workers that load side by side; return those that could, and report the others' reasons."""
    ready = []
    for worker in workers:
        try:
            worker.wait_until_ready()
            ready.append(worker)
        except WorkerError as error:
            report(worker, str(error))
    return ready
