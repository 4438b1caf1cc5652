"""Describe the machine that a measurement was made on."""

import os
import platform
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sefa_runtime.machine.cgroup import read_limits
from sefa_runtime.machine.memory import total_gib

CPUINFO = Path("/proc/cpuinfo")  # Linux
# Prefixes of the names of vector and matrix instruction sets, on x86 and ARM.
VECTOR_INSTRUCTIONS = ("avx", "fma", "f16c", "amx", "asimd", "sve", "i8mm", "bf16")
# The instruction sets that matter most, best first, and their common names.
WIDEST_INSTRUCTIONS = {"avx512f": "AVX-512", "avx2": "AVX2", "sve": "SVE", "asimd": "NEON"}


def describe_machine() -> dict[str, Any]:
    """Describe the CPU, cores this process may use, memory, a container's limits on both, system, and NVIDIA GPUs.

    `cpu_extensions` are the vector and matrix instructions that the process may use: virtual machines with the same
    `cpu` differ in them, and therefore in speed. `load_average` covers the last 1, 5 and 15 minutes. None stands for
    what the system does not report, or does not limit.
    """
    model, extensions = read_cpu()
    limits = read_limits()
    memory_gib = total_gib()
    limit_gib = None if limits.memory_bytes is None else round(limits.memory_bytes / 2**30, 1)
    return {
        "cpu": model or platform.processor() or platform.machine(),
        "cpu_extensions": extensions,
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "cores_limit": limits.cores,
        "memory_gib": memory_gib,
        # Control groups version 1 reports no limit as a number larger than any memory.
        "memory_limit_gib": limit_gib if limit_gib and memory_gib and limit_gib < memory_gib else None,
        "load_average": load_average(),
        "system": f"{platform.system()} {platform.machine()}",
        "gpus": [dict(zip(("name", "driver", "memory"), gpu.split(", "), strict=False)) for gpu in nvidia_gpus()],
    }


def load_average() -> list[float] | None:
    """Return the average number of runnable processes over the last 1, 5 and 15 minutes; None if not reported."""
    return [round(load, 2) for load in os.getloadavg()] if hasattr(os, "getloadavg") else None


def load_in_words(before: Sequence[float] | None, after: Sequence[float] | None = None) -> str:
    """Return the load during a measurement in words: `load average 0.1 at the start, 1.9 at the end`."""
    parts = [f"{load[0]:g} {when}" for load, when in ((before, "at the start"), (after, "at the end")) if load]
    return f"load average {', '.join(parts)}" if parts else "load average unknown"


def machine_in_words(machine: Mapping[str, Any]) -> str:
    """Summarise what `describe_machine` returns in one line: `AMD EPYC with AVX-512, 2 cores, 23.5 GiB`."""
    extensions = machine["cpu_extensions"] or ()
    widest = next((words for name, words in WIDEST_INSTRUCTIONS.items() if name in extensions), None)
    cpu = machine["cpu"] + (f" with {widest}" if widest else "")
    limit = machine["cores_limit"]
    cores = f"{machine['cores']} cores" + (f" limited to {limit:g}" if limit else "")
    gpus = [gpu["name"] for gpu in machine["gpus"]]
    return ", ".join([cpu, cores, f"{machine['memory_limit_gib'] or machine['memory_gib']} GiB", *gpus])


def nvidia_gpus() -> list[str]:
    """Return name, driver and memory of each NVIDIA GPU, as reported by `nvidia-smi`."""
    command = shutil.which("nvidia-smi")
    if command is None:
        return []
    query = [command, "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    try:
        result = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in result.stdout.splitlines() if line.strip()]


def read_cpu(cpuinfo: Path = CPUINFO) -> tuple[str | None, list[str] | None]:
    """Read the processor's model and its sorted vector instructions; None for what the system does not report."""
    try:
        lines = [line.partition(":") for line in cpuinfo.read_text(encoding="utf-8").splitlines()]
    except OSError:  # Not Linux.
        return None, None
    fields = {name.strip(): value.strip() for name, _, value in reversed(lines)}  # The first core's.
    names = (fields.get("flags") or fields.get("Features") or "").split()
    extensions = sorted(name for name in names if name.startswith(VECTOR_INSTRUCTIONS))
    return fields.get("model name") or fields.get("Model"), extensions or None
