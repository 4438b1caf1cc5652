"""Measure the peak memory of a block of code."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from sefa_runtime.machine.memory import give_back_memory

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
RESET_PEAK = "5"  # Source: Linux, Documentation/filesystems/proc.rst.


class PeakMemory:
    """The result of a measurement.

    Attributes:
        bytes: Peak memory beyond what was held before; None if the system does not say.
    """

    bytes: int | None = None


@contextmanager
def peak_memory(device: torch.device) -> Iterator[PeakMemory]:
    """Measure the peak memory of a block: the GPU's if `device` is one, else this process's resident memory, on Linux.

    Memory that the process holds at the beginning, used or not, does not count. Freed memory is first given back to the
    system if the C library can do that.
    """
    peak = PeakMemory()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        yield peak
        peak.bytes = torch.cuda.max_memory_allocated(device) - before
        return
    gc.collect()
    give_back_memory()
    try:
        CLEAR.write_text(RESET_PEAK)
        resident = _status("VmRSS")
    except (OSError, KeyError):
        yield peak
        return
    yield peak
    peak.bytes = max(0, _status("VmHWM") - resident)


def _status(name: str) -> int:
    """Read an entry of /proc/self/status, in bytes."""
    lines = dict(line.split(":", 1) for line in STATUS.read_text().splitlines() if ":" in line)
    return int(lines[name].split()[0]) * 1024
