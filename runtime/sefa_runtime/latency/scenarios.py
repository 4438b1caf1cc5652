"""When requests arrive: each as soon as the one before is served, or on a schedule of their own.

Times are in seconds. The clock is an argument, so that tests can run these loops on a simulated one.
"""

import math
import time
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sefa_runtime.errors import InputError

# What a measurement should have; if it does not, its result says so.
WANTED_SECONDS, WANTED_RUNS = 10.0, 100
# A measurement that has not reached WANTED_RUNS ends after this many times the seconds asked for.
LONGEST = 6.0
# Warm-up continues until the medians of the last WINDOWS windows are within STABLE of each other. A window is at least
# WINDOW_RUNS runs and WINDOW_SECONDS long.
WINDOWS, WINDOW_RUNS, WINDOW_SECONDS, STABLE = 3, 3, 0.2, 0.05
MAX_REQUESTS = 10_000_000
# Operating systems wake sleepers late, so the last part of a wait is spent polling the clock.
BUSY_WAIT_SECONDS = 0.001
# Drawing a progress bar takes milliseconds: do it rarely, and never while a request is due.
PROGRESS_SECONDS = 1.0

Run = Callable[[], object]
Progress = Callable[[float], None]


class Clock:
    """The machine's monotonic clock."""

    def now(self) -> float:
        """Return seconds since some fixed moment in the past."""
        return time.perf_counter()

    def wait_until(self, moment: float) -> None:
        """Return at `moment`, or at once if it has passed."""
        while (left := moment - self.now()) > 0:
            if left > BUSY_WAIT_SECONDS:
                time.sleep(left - BUSY_WAIT_SECONDS)


@dataclass(frozen=True)
class WarmUp:
    """The runs before the ones that count, not including the very first."""

    runs: int
    seconds: float
    stable: bool  # False: it ended because time ran out


@dataclass(frozen=True)
class Timing:
    """What a scenario measured.

    Attributes:
        latencies: One per request, in order; infinite for those never served.
        runs: How many requests were served.
        elapsed: From the start to the end of the last run.
        busy: The part of it in which the model was running.
    """

    latencies: Sequence[float]
    runs: int
    elapsed: float
    busy: float


class _Reporter:
    """Passes on progress, but rarely."""

    def __init__(self, progress: Progress, clock: Clock) -> None:
        self._progress = progress
        self._clock = clock
        self._next = clock.now()

    def due(self) -> bool:
        return self._clock.now() >= self._next

    def report(self, share: float) -> None:
        self._progress(min(share, 1.0))
        self._next = self._clock.now() + PROGRESS_SECONDS


def warm_up(run: Run, limit: float, clock: Clock) -> WarmUp:
    """Run until the time per run is stable, but for at most `limit` seconds and at least once."""
    started = clock.now()
    medians: list[float] = []
    runs = 0
    while not (stable := _are_stable(medians)) and (runs == 0 or clock.now() - started < limit):
        window: list[float] = []
        opened = clock.now()
        while len(window) < WINDOW_RUNS or clock.now() - opened < WINDOW_SECONDS:
            began = clock.now()
            run()
            ended = clock.now()
            window.append(ended - began)
            if ended - started >= limit:
                break
        runs += len(window)
        medians.append(float(np.median(window)))
    return WarmUp(runs, clock.now() - started, stable)


def _are_stable(medians: Sequence[float]) -> bool:
    last = medians[-WINDOWS:]
    return len(last) == WINDOWS and max(last) <= min(last) * (1 + STABLE)


def one_after_another(run: Run, seconds: float, clock: Clock, progress: Progress) -> Timing:
    """Start each run as soon as the one before has ended.

    Continue for `seconds` or `WANTED_RUNS` runs, whichever takes longer, but for at most `LONGEST` times `seconds`.
    """
    latencies = array("d")
    reporter = _Reporter(progress, clock)
    started = clock.now()
    elapsed = 0.0
    while (elapsed < seconds or len(latencies) < WANTED_RUNS) and (elapsed < LONGEST * seconds or not latencies):
        if reporter.due():
            reporter.report(min(elapsed / seconds, len(latencies) / WANTED_RUNS))
        began = clock.now()
        run()
        ended = clock.now()
        latencies.append(ended - began)
        elapsed = ended - started
    return Timing(latencies, len(latencies), elapsed, sum(latencies))


def poisson_schedule(rate: float, seconds: float, seed: int) -> NDArray[np.float64]:
    """Return when requests arrive, as a Poisson process: independent of each other and of how they are served.

    Args:
        rate: Requests per second, on average.
        seconds: How long they keep arriving; up to `LONGEST` times as long until there are `WANTED_RUNS`.
        seed: The same seed, rate and seconds give the same moments.

    Returns:
        Seconds from the start, ascending.

    Raises:
        InputError: If there would be no requests, or more than `MAX_REQUESTS`.
    """
    if rate * seconds > MAX_REQUESTS:
        raise InputError(f"{rate:g} requests/s for {seconds:g} s are more than {MAX_REQUESTS} requests")
    count = max(WANTED_RUNS, int(rate * seconds))
    # 10 standard deviations more than the mean, so that they practically always cover the whole time.
    gaps = np.random.Generator(np.random.PCG64(seed)).exponential(1 / rate, count + 10 * int(count**0.5) + 10)
    moments = np.cumsum(gaps)
    end = min(max(seconds, float(moments[WANTED_RUNS - 1])), LONGEST * seconds)
    moments = moments[moments <= end]
    if not len(moments):
        raise InputError(f"at {rate:g} requests/s none comes within {end:g} s: a longer time or higher rate is needed")
    return moments


def on_schedule(run: Run, moments: NDArray[np.floating[Any]], limit: float, clock: Clock, progress: Progress) -> Timing:
    """Serve requests one at a time, in the order in which they arrive.

    A request's latency counts from its scheduled moment, not from when its turn came: while one run is slow, requests
    that arrive meanwhile wait, and their waiting counts (no coordinated omission).

    Args:
        run: Serves one request.
        moments: When they arrive, seconds from the start, ascending.
        limit: No run starts later than this many seconds from the start; requests left over are unserved.
        clock: Tells the time.
        progress: Called with the share of requests done, when there is time for it.
    """
    latencies = array("d")
    reporter = _Reporter(progress, clock)
    busy = 0.0
    started = ended = clock.now()
    for moment in moments.tolist():
        due = started + moment
        if due - ended > 0.1 and reporter.due():
            reporter.report(len(latencies) / len(moments))
        clock.wait_until(due)
        began = clock.now()
        if latencies and began - started > limit:
            break
        run()
        ended = clock.now()
        latencies.append(ended - due)
        busy += ended - began
    runs = len(latencies)
    latencies.extend([math.inf] * (len(moments) - runs))
    return Timing(latencies, runs, ended - started, busy)
