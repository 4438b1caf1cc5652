"""Fixtures that several test modules share."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import sefa_runtime
from sefa.cli import main
from sefa_runtime.machine import EXPORT_PACKAGES

GOLDEN = Path(__file__).parent / "golden"


@dataclass(frozen=True)
class Result:
    """What a command left."""

    code: int
    out: str
    err: str


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
def sefa_command(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Run the `sefa` command in this process."""

    def run(*arguments: str | Path) -> Result:
        monkeypatch.setattr(sys, "argv", ["sefa", *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as exit_info:
            main()
        captured = capfd.readouterr()
        code = exit_info.value.code
        return Result(code if isinstance(code, int) else 0, captured.out, captured.err)

    return run


@pytest.fixture
def without_torch() -> Callable[..., Result]:
    """Run the `sefa` command in a process in which torch, onnx and the rest of `[export]` cannot be imported."""
    program = f"import sys; sys.modules.update(dict.fromkeys({EXPORT_PACKAGES!r})); from sefa.cli import main; main()"

    def run(*arguments: str | Path) -> Result:
        command = [sys.executable, "-W", "error", "-c", program, *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
        return Result(done.returncode, done.stdout, done.stderr)

    return run
