"""Find out what works on this machine, what does not and why, and how to fix it."""

import platform
import sys
from dataclasses import dataclass
from importlib.resources import as_file, files

import numpy as np

from sefa_runtime.errors import ProviderError
from sefa_runtime.machine.description import nvidia_gpus
from sefa_runtime.machine.packages import EXPORT_PACKAGES, installed_version, onnxruntime_wheels
from sefa_runtime.session.importing import import_onnxruntime
from sefa_runtime.session.provider_problems import PROBE, conflict, installation
from sefa_runtime.session.providers import CPU, CUDA, OPENVINO, offered
from sefa_runtime.session.session import Session, build_session

PROBE_FEEDS = {"x": np.ones((1, 1, 8, 8), np.float32)}
# Providers that people look for: say why one is absent.
EXPECTED = ("cuda", "tensorrt", "openvino", "cpu")


@dataclass(frozen=True)
class Check:
    """One finding."""

    name: str  # what was examined
    ok: bool  # whether it works
    detail: str  # what was found, in words
    remedy: str = ""  # how to fix it, if that is known
    needed: bool = True  # False: the toolkit works without it


def examine() -> list[Check]:
    """Inspect the installed packages, and run a convolution on every provider that onnxruntime offers.

    A provider that it does not offer is listed if it is one of `EXPECTED`, with what is missing.
    """
    checks = [
        Check(
            "python",
            sys.version_info >= (3, 11),
            f"{platform.python_version()} at {sys.executable}",
            "install Python 3.11 or newer",
        ),
        _check_wheels(),
    ]
    try:
        ort = import_onnxruntime()
    except ProviderError as error:
        checks.append(Check("provider cpu", False, error.reason, error.remedy))
        return [*checks, *_check_export()]
    gpus = nvidia_gpus()
    checks.append(Check("gpu", bool(gpus), "; ".join(gpus) or "nvidia-smi finds no NVIDIA GPU", needed=False))
    checks += [_check_provider(provider) for provider in dict.fromkeys((*EXPECTED, *offered(ort)))]
    return [*checks, *_check_export()]


def _check_wheels() -> Check:
    found = onnxruntime_wheels()
    both = conflict()
    if both:
        remedy = f"{installation(CPU)}; with an NVIDIA GPU: {installation(CUDA)}"
        if "onnxruntime-openvino" in found:
            remedy += f"; for OpenVINO: {installation(OPENVINO)}"
        return Check("onnxruntime", False, both, remedy)
    detail = ", ".join(f"{name} {number}" for name, number in found.items())
    return Check("onnxruntime", bool(found), detail or "not installed", installation(CPU))


def probe(provider: str) -> Session:
    """Build a session on a provider for one 3x3 convolution, the operation that generators spend their time in.

    Raises:
        ProviderError: If the provider cannot run here.
        InputError: If there is no such provider.
    """
    with as_file(files("sefa_runtime.session") / PROBE) as path:
        return build_session(path, provider)


def _check_provider(provider: str) -> Check:
    name = f"provider {provider}"
    try:
        y = probe(provider).run(PROBE_FEEDS)
    except ProviderError as error:
        # Conflicting wheels are a separate finding.
        reason = error.reason.removeprefix(f"{provider}: ").removeprefix(f"{conflict()}; ")
        return Check(name, False, reason, error.remedy, needed=provider == "cpu")
    right = bool(np.allclose(y[0, 0, 1:-1, 1:-1], 9.0) and y[0, 0, 0, 0] == 4.0)
    if not right:
        return Check(name, False, "runs a convolution, with a wrong result", needed=provider == "cpu")
    return Check(name, True, "runs a convolution with the right result", needed=provider == "cpu")


def _check_export() -> list[Check]:
    found = {name: installed_version(name) for name in EXPORT_PACKAGES}
    missing = [name for name, number in found.items() if number is None]
    detail = ", ".join(f"{name} {number}" for name, number in found.items() if number)
    if missing:
        detail = f"not installed: {', '.join(missing)} (models can be run here, not made)"
    return [Check("export", not missing, detail, f"pip install {' '.join(EXPORT_PACKAGES)}", needed=False)]
