"""The one place where onnxruntime sessions are built, and where it is checked what they really run on.

onnxruntime gives a CPU session, silently, when a provider that was asked for cannot load; here that is an error
that says what is missing.
"""

import contextlib
import ctypes
import io
import os
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from sefa_runtime.errors import InputError, ModelFileError, ProviderError

if TYPE_CHECKING:
    import onnxruntime

Feeds = Mapping[str, np.ndarray[Any, Any]]

SUFFIX = "executionprovider"
DEFAULT_OPTIONS: dict[str, dict[str, str]] = {
    # EXHAUSTIVE, onnxruntime's default, spends seconds on every new shape; TF32 would cost the parity
    # that was measured at export.
    "CUDAExecutionProvider": {"cudnn_conv_algo_search": "HEURISTIC", "use_tf32": "0"},
}
NVIDIA = {"CUDAExecutionProvider", "TensorrtExecutionProvider"}
INSTALL_CPU = "pip install onnxruntime"
# Both wheels own the same files: whichever is there goes first.
INSTALL_GPU = "pip uninstall -y onnxruntime onnxruntime-gpu && pip install 'onnxruntime-gpu[cuda,cudnn]'"
MAX_THREADS = 1024
# Listed by onnxruntime, but for calls of web services: on our models the CPU would answer in their name.
REMOTE = {"AzureExecutionProvider"}
QUIET = 4  # onnxruntime's severity FATAL: what goes wrong is raised, not printed


@dataclass(frozen=True)
class Session:
    """An onnxruntime session and what is known about how it runs."""

    inference: "onnxruntime.InferenceSession"
    requested: str  # as the caller wrote it
    provider: str  # what really runs, in lower case: "cpu", "cuda", ...
    reason: str  # why `auto` chose this provider; empty if it was asked for
    options: dict[str, str]  # of the provider
    threads: int  # intra-op threads of the CPU provider; 0: one per physical core
    load_ms: float  # building the onnxruntime session, without reading the description and checking the weights
    warm_up_ms: float | None  # the first run, if `build_session` made it


def build_session(
    model: Path,
    feeds: Feeds,
    provider: str = "auto",
    provider_options: Mapping[str, object] | None = None,
    threads: int | None = None,
) -> Session:
    """Load `model` on the provider asked for, and prove that it runs there.

    Args:
        model: An ONNX file.
        feeds: Inputs of one run; providers other than the CPU's are warmed up with it, since cuDNN, for one, can fail
            only at the first run.
        provider: `auto` (CUDA where it works, else CPU), or an onnxruntime execution provider's name with or
            without the suffix, in any case: `cpu`, `cuda`, `TensorrtExecutionProvider`.
        provider_options: Passed to the provider, over the defaults in `DEFAULT_OPTIONS`.
        threads: Threads of one operator on the CPU; None lets onnxruntime choose.

    Raises:
        InputError: If the provider is no onnxruntime provider, options come without a named one, or `threads` is out of
            range.
        ProviderError: If it cannot run here, with the missing piece.
        ModelFileError: If onnxruntime cannot load the file at all.
    """
    ort = import_onnxruntime()
    if threads is not None and not (type(threads) is int and 1 <= threads <= MAX_THREADS):
        raise InputError(f"threads must be in 1..{MAX_THREADS}, got {threads}")
    options = {key: str(value) for key, value in (provider_options or {}).items()}
    if provider.lower() == "auto" and options:
        raise InputError("options belong to one provider: name it instead of auto")
    if provider.lower() != "auto":
        return _build(ort, model, feeds, provider, full_name(ort, provider), options, threads, reason="")
    try:
        return _build(ort, model, feeds, provider, "CUDAExecutionProvider", options, threads, "CUDA works here")
    except ProviderError as error:
        return _build(ort, model, feeds, provider, "CPUExecutionProvider", {}, threads, error.reason)


def import_onnxruntime() -> ModuleType:
    """Import onnxruntime, or say how to install it.

    Raises:
        ProviderError: If it is not installed or cannot be imported.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise ProviderError(
            f"onnxruntime cannot be imported ({error})",
            f"{INSTALL_CPU}, or with an NVIDIA GPU 'onnxruntime-gpu[cuda,cudnn]'",
        ) from error
    return onnxruntime  # type: ignore[no-any-return]


def full_name(ort: ModuleType, provider: str) -> str:
    """The provider's name as onnxruntime spells it: `cuda` -> `CUDAExecutionProvider`.

    Raises:
        InputError: If onnxruntime knows no such provider.
    """
    known = {short_name(name): name for name in ort.get_all_providers()}
    try:
        return str(known[short_name(provider)])
    except KeyError:
        raise InputError(f"provider must be auto or one of {', '.join(sorted(known))}, got {provider!r}") from None


def short_name(provider: str) -> str:
    """`CUDAExecutionProvider` -> `cuda`."""
    return provider.lower().removesuffix(SUFFIX)


def _build(
    ort: ModuleType,
    model: Path,
    feeds: Feeds,
    requested: str,
    provider: str,
    options: dict[str, str],
    threads: int | None,
    reason: str,
) -> Session:
    options = DEFAULT_OPTIONS.get(provider, {}) | options
    on_cpu = provider == "CPUExecutionProvider"
    if provider in REMOTE:
        raise ProviderError(f"{short_name(provider)}: calls a web service and runs nothing on this machine")
    if provider not in ort.get_available_providers():
        has = ", ".join(short_name(name) for name in ort.get_available_providers() if name not in REMOTE)
        raise ProviderError(
            f"{short_name(provider)}: the installed onnxruntime {ort.__version__} is built without it (it has: {has})",
            INSTALL_GPU if provider in NVIDIA else "",
        )
    session_options = ort.SessionOptions()
    session_options.intra_op_num_threads = threads or 0
    session_options.log_severity_level = QUIET
    providers: list[Any] = [(provider, options)]
    if not on_cpu:
        providers.append("CPUExecutionProvider")  # Shape arithmetic stays on the CPU under every provider.
    with _quiet(ort, skip=on_cpu):
        if provider in NVIDIA:
            ort.preload_dlls()
        started = time.perf_counter_ns()
        try:
            inference = ort.InferenceSession(str(model), session_options, providers=providers)
        except Exception as error:  # onnxruntime's errors have no common base of their own.
            if on_cpu:
                raise ModelFileError(f"{model}: onnxruntime cannot load it: {_one_line(error)}") from error
            raise ProviderError(f"{short_name(provider)}: {_one_line(error)}") from error
        load_ms = (time.perf_counter_ns() - started) / 1e6
        inference.disable_fallback()
        if inference.get_providers()[0] != provider:
            raise _left_out(ort, provider)
        warm_up_ms = None
        if not on_cpu:
            started = time.perf_counter_ns()
            try:
                inference.run(None, dict(feeds))
            except Exception as error:  # As above.
                message = f"{short_name(provider)}: loads, but the first run fails: {_one_line(error)}"
                raise ProviderError(message) from error
            warm_up_ms = (time.perf_counter_ns() - started) / 1e6
    return Session(
        inference=inference,
        requested=requested,
        provider=short_name(provider),
        reason=reason,
        options=options,
        threads=threads or 0,
        load_ms=load_ms,
        warm_up_ms=warm_up_ms,
    )


def _left_out(ort: ModuleType, provider: str) -> ProviderError:
    """Find the missing piece after onnxruntime has silently left the provider out."""
    name = short_name(provider)
    if provider in NVIDIA:
        try:
            driver = ctypes.CDLL("libcuda.so.1")
        except OSError as error:
            return ProviderError(f"{name}: no NVIDIA driver on this machine ({error})", "install NVIDIA's driver")
        count = ctypes.c_int()
        if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0 or count.value == 0:
            return ProviderError(f"{name}: the NVIDIA driver is there but offers no device", "see what nvidia-smi says")
    library = Path(str(ort.__file__)).parent / "capi" / f"libonnxruntime_providers_{name}.so"
    try:
        ctypes.CDLL(str(library.with_name("libonnxruntime_providers_shared.so")), mode=ctypes.RTLD_GLOBAL)
        ctypes.CDLL(str(library))
    except OSError as error:
        remedy = INSTALL_GPU if provider == "CUDAExecutionProvider" else ""
        return ProviderError(f"{name}: its library cannot be loaded: {error}", remedy)
    return ProviderError(f"{name}: onnxruntime left it out without saying why", "`sefa doctor` tells what works here")


@contextlib.contextmanager
def _quiet(ort: ModuleType, skip: bool) -> Iterator[None]:
    """Keep banners of the provider's libraries off stdout, where a caller's own output goes.

    This silences the whole process for as long as the session loads: the libraries write past Python.
    """
    if skip:
        yield
        return
    if sys.stdout is not None:
        sys.stdout.flush()
    try:
        kept = os.dup(1)
    except OSError:  # No stdout at all, as under some service managers.
        kept = None
    ort.set_default_logger_severity(QUIET)
    try:
        if kept is not None:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, 1)
            os.close(null)
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        ort.set_default_logger_severity(2)
        if kept is not None:
            os.dup2(kept, 1)
            os.close(kept)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:400]
