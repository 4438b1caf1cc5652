"""What machine and software a measurement was made on."""

import os
import platform
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version

from sefa_runtime.version import VERSION

ONNXRUNTIME_WHEELS = ("onnxruntime", "onnxruntime-gpu")
# The extra `export`: what the commands that make a model need.
EXPORT_PACKAGES = ("torch", "onnx", "onnxscript", "safetensors")


def describe_machine() -> dict[str, object]:
    """CPU, cores this process may use, memory, operating system, and the NVIDIA GPUs if there are any."""
    return {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": _memory_gib(),
        "system": f"{platform.system()} {platform.machine()}",
        "gpus": nvidia_gpus(),
    }


def describe_versions() -> dict[str, str]:
    """Versions of sefa, Python and of what the runtime is built on, as installed."""
    found = {"sefa": VERSION, "python": platform.python_version()}
    for package in ("numpy", *ONNXRUNTIME_WHEELS):
        installed = installed_version(package)
        if installed:
            found[package] = installed
    return found


def installed_version(package: str) -> str | None:
    """Version of an installed distribution, without importing it; None if it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def nvidia_gpus() -> list[str]:
    """Name, driver and memory of each NVIDIA GPU, as `nvidia-smi` tells them."""
    command = shutil.which("nvidia-smi")
    if command is None:
        return []
    query = [command, "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    try:
        result = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in result.stdout.splitlines() if line.strip()]


def _cpu_model() -> str:
    if sys.platform == "linux":
        with open("/proc/cpuinfo", encoding="utf-8") as file:  # noqa: PTH123
            for line in file:
                if line.startswith(("model name", "Model")):
                    return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _memory_gib() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (AttributeError, ValueError, OSError):  # Not a POSIX system.
        return None
