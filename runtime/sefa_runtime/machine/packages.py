"""The installed versions of the toolkit's dependencies."""

import platform
from importlib.metadata import PackageNotFoundError, version

from sefa_runtime.version import VERSION

# Distributions that provide the module onnxruntime; they all install the same files.
ONNXRUNTIME_WHEELS = (
    "onnxruntime",
    "onnxruntime-gpu",
    "onnxruntime-openvino",
    "onnxruntime-directml",
    "onnxruntime-rocm",
    "onnxruntime-migraphx",
)
# The extra `export`: dependencies of the commands that make a model.
EXPORT_PACKAGES = ("torch", "onnx", "onnxscript", "safetensors")


def describe_versions() -> dict[str, str]:
    """Return the installed versions of sefa, Python, numpy and onnxruntime's distributions."""
    found = {"sefa": VERSION, "python": platform.python_version()}
    for package in ("numpy", *ONNXRUNTIME_WHEELS):
        installed = installed_version(package)
        if installed:
            found[package] = installed
    return found


def installed_version(package: str) -> str | None:
    """Return the version of an installed distribution, without importing it; None if it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def onnxruntime_wheels() -> dict[str, str]:
    """Return name and version of each installed distribution of onnxruntime; more than one is a fault."""
    return {name: found for name in ONNXRUNTIME_WHEELS if (found := installed_version(name))}
