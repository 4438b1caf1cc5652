"""How many processor cores this process may keep busy."""

import math
import os
from pathlib import Path

from sefa_runtime.machine.cgroup import read_limits

SYSTEM = Path("/sys/devices/system/cpu")


def usable_cores(system: Path = SYSTEM) -> int:
    """Count the physical cores this process may use: with a CPU affinity or in a container, fewer than there are.

    By default, onnxruntime uses one thread per core of the machine, whatever share of it a container has.

    Args:
        system: Where Linux describes the processors.
    """
    if not hasattr(os, "sched_getaffinity"):
        return os.cpu_count() or 1
    # The logical processors of one core list the same siblings.
    cores = {_siblings(system, processor) for processor in os.sched_getaffinity(0)}
    limit = read_limits().cores
    return max(1, min(len(cores), math.ceil(limit) if limit else len(cores)))


def _siblings(system: Path, processor: int) -> str:
    try:
        return (system / f"cpu{processor}" / "topology" / "thread_siblings_list").read_text()
    except OSError:
        return str(processor)
