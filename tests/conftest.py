"""Fixtures that several test modules share."""

import itertools
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

import sefa_runtime
from sefa_cli import main, output
from sefa_runtime.latency.scenarios import Clock
from sefa_runtime.machine.packages import EXPORT_PACKAGES
from sefa_runtime.session.importing import DISABLE_TELEMETRY
from support.paths import GOLDEN
from support.patience import PATIENCE_S

# Tests import onnxruntime themselves.
os.environ.setdefault(DISABLE_TELEMETRY, "1")
# Of torch, which reads it when it is imported, later. Threads that wait for each other spin, and on cores that have
# something else to do nearly all the time of a test goes into that.
os.environ.setdefault("OMP_NUM_THREADS", "1")


if find_spec("hypothesis"):  # The environment of `make check-triton` has none.
    from hypothesis import HealthCheck, settings

    # The same examples each time, however long they take, and no folder that processes share.
    slow = [HealthCheck.too_slow]
    settings.register_profile(
        "suite", deadline=None, max_examples=50, derandomize=True, database=None, suppress_health_check=slow
    )
    settings.load_profile("suite")


@dataclass(frozen=True)
class Result:
    """What a command left."""

    code: int
    out: str
    err: str


@pytest.fixture(autouse=True)
def no_word_of_how_long_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands that are run in this process say nothing of their progress, however slow the machine is."""
    monkeypatch.setattr(output, "PATIENCE_S", PATIENCE_S)


@pytest.fixture
def golden() -> Path:
    """The folder of reference data."""
    return GOLDEN


@pytest.fixture
def tiny() -> sefa_runtime.Editor:
    """An editor of latents of 6, images of 8x4 RGB pixels, directions pose, light, direction-2, direction-3."""
    return sefa_runtime.load(GOLDEN / "tiny.onnx", provider="cpu")


@pytest.fixture
def tiny_arrays() -> dict[str, np.ndarray[tuple[int, ...], np.dtype[np.generic]]]:
    """Inputs for `tiny`, and PyTorch's images for them."""
    with np.load(GOLDEN / "tiny.npz") as arrays:
        return dict(arrays)


@pytest.fixture
def style_z() -> sefa_runtime.Editor:
    """An editor of latents of 24, with labels in 0..5 and truncation as an input."""
    return sefa_runtime.load(GOLDEN / "style_z.onnx", provider="cpu")


@pytest.fixture
def style_codes() -> sefa_runtime.Editor:
    """An editor of codes [8, 24]."""
    return sefa_runtime.load(GOLDEN / "style_w+.onnx", provider="cpu")


@pytest.fixture
def style_arrays() -> dict[str, np.ndarray[tuple[int, ...], np.dtype[np.generic]]]:
    """Inputs for the models style_*, and PyTorch's images for them."""
    with np.load(GOLDEN / "style.npz") as arrays:
        return dict(arrays)


@pytest.fixture
def sefa_command(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Run the `sefa` command in this process."""

    def run(*arguments: str | Path) -> Result:
        monkeypatch.setattr(sys, "argv", ["sefa", *map(str, arguments)])
        capfd.readouterr()
        handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            with pytest.raises(SystemExit) as exit_info:
                main()
        finally:  # Those of the command are not the tests'.
            for number, handler in handlers.items():
                signal.signal(number, handler)
            for name in (
                "sefa.access",
                "sefa.error",
                "uvicorn.error",
            ):  # Of `sefa serve`, on streams that are captured.
                logging.getLogger(name).handlers.clear()
                logging.getLogger(name).setLevel(logging.NOTSET)
        captured = capfd.readouterr()
        code = exit_info.value.code
        return Result(code if isinstance(code, int) else 0, captured.out, captured.err)

    return run


@pytest.fixture
def without_torch() -> Callable[..., Result]:
    """Run the `sefa` command in a process in which torch, onnx and the rest of `[export]` cannot be imported."""
    program = f"""
import sys
sys.modules.update(dict.fromkeys({EXPORT_PACKAGES!r}))
from sefa_cli import main
from sefa_cli import output
output.PATIENCE_S = {PATIENCE_S}
main()
"""

    def run(*arguments: str | Path) -> Result:
        command = [sys.executable, "-W", "error", "-c", program, *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE_S)
        return Result(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture
def steady_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let latencies be measured on a clock that stands still but for 0.05 to 0.15 ms whenever somebody looks at it.

    A run, between two looks, takes that long, however long it takes, and a measurement has as many runs on any machine.
    """
    steps = itertools.cycle(np.random.RandomState(0).uniform(0.00005, 0.00015, 1000).tolist())
    times = [1000.0]

    def now(clock: Clock) -> float:
        times[0] += next(steps)
        return times[0]

    def wait_until(clock: Clock, moment: float) -> None:
        times[0] = max(times[0], moment)

    monkeypatch.setattr(Clock, "now", now)
    monkeypatch.setattr(Clock, "wait_until", wait_until)
