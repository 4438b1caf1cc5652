"""Execution providers: their names and their default options."""

import os
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

from sefa_runtime.errors import InputError

CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"
TENSORRT = "TensorrtExecutionProvider"
OPENVINO = "OpenVINOExecutionProvider"
NVIDIA = (CUDA, TENSORRT)
# Listed by onnxruntime, but they call web services: for our models the CPU would answer in their name.
REMOTE = ("AzureExecutionProvider",)
SUFFIX = "executionprovider"

# Session entries for every provider. A thread without work looks for more for 0.1 ms before it sleeps, not for
# milliseconds: on two cores of an EPYC, a single session kept its speed within 4 %, sessions that shared the cores were
# twice as fast, and a process that rendered 40 images a second used a quarter of the processor time. onnxruntime has
# this entry since version 1.26.
SESSION_ENTRIES = {"session.intra_op.spin_duration_us": "100"}


def full_name(ort: ModuleType, provider: str) -> str:
    """Return the provider's name in onnxruntime's spelling: `cuda` -> `CUDAExecutionProvider`.

    Raises:
        InputError: If onnxruntime has no such provider.
    """
    known = {short_name(name): name for name in ort.get_all_providers()}
    try:
        return str(known[short_name(provider)])
    except KeyError:
        raise InputError(f"provider must be auto or one of {', '.join(sorted(known))}, got {provider!r}") from None


def short_name(provider: str) -> str:
    """Return the name as users write it: `CUDAExecutionProvider` -> `cuda`."""
    return provider.lower().removesuffix(SUFFIX)


def offered(ort: ModuleType) -> list[str]:
    """Return the short names of the providers that the installed onnxruntime offers and that run on this machine."""
    return [short_name(name) for name in ort.get_available_providers() if name not in REMOTE]


def default_options(provider: str, threads: int) -> dict[str, str]:
    """Return a provider's default options.

    Args:
        provider: The provider's name in onnxruntime's spelling.
        threads: Threads per operator, for a provider with its own threads.
    """
    match provider:
        case "CUDAExecutionProvider":
            # EXHAUSTIVE, onnxruntime's default, spends seconds on every new shape; TF32 would cost the parity that was
            # measured at export.
            return {"cudnn_conv_algo_search": "HEURISTIC", "use_tf32": "0"}
        case "TensorrtExecutionProvider":
            # Half precision is only for graphs verified in it. Nothing is written to disk unless asked for.
            return {"trt_fp16_enable": "0", "trt_engine_cache_enable": "0"}
        case "OpenVINOExecutionProvider":
            # ACCURACY computes in the model's own precision; by default OpenVINO uses bfloat16 where it can.
            return {"device_type": "CPU", "precision": "ACCURACY", "num_of_threads": str(threads)}
        case _:
            return {}


def complete_options(
    provider: str, threads: int, wanted: Mapping[str, object]
) -> tuple[dict[str, str], dict[str, str]]:
    """Apply the caller's options on top of the defaults.

    Args:
        provider: The provider's name in onnxruntime's spelling.
        threads: Threads per operator.
        wanted: Options of the provider, by onnxruntime's names. A key with a dot is a session entry instead, for any
            provider: `session.intra_op.allow_spinning`.

    Returns:
        options: The provider's options.
        entries: The session's entries.

    Raises:
        InputError: If there are options for the CPU, which has none, or one that we cannot support.
    """
    texts = {key: _text(value) for key, value in wanted.items()}
    entries = SESSION_ENTRIES | {key: value for key, value in texts.items() if "." in key}
    own = {key: value for key, value in texts.items() if "." not in key}
    if own and provider == CPU:
        raise InputError(
            f"the provider cpu has no options, only entries of the session (session.intra_op.allow_spinning=0), "
            f"got {', '.join(own)}"
        )
    options = default_options(provider, threads) | own
    if is_on(options, "trt_cuda_graph_enable"):
        raise InputError("CUDA graphs are for the provider cuda, not inside TensorRT")
    if is_on(options, "trt_engine_cache_enable"):
        options.setdefault(
            "trt_engine_cache_path", str(engine_folder())
        )  # TensorRT's own choice: the working directory.
    return options, entries


def in_order(provider: str, options: Mapping[str, str]) -> list[tuple[str, dict[str, str]]]:
    """Return the provider and those that run what it cannot, in onnxruntime's order of preference.

    Shape arithmetic stays on the CPU with every provider; what TensorRT cannot run stays on the same GPU.
    """
    providers = [(provider, dict(options))]
    if provider == TENSORRT:
        device = {key: value for key, value in options.items() if key == "device_id"}
        providers.append((CUDA, default_options(CUDA, threads=1) | device))
    return providers if provider == CPU else [*providers, (CPU, {})]


def is_on(options: Mapping[str, object], key: str) -> bool:
    """Return whether an option is given and is on, as onnxruntime reads it."""
    return _text(options.get(key, False)).lower() in ("1", "true")


def engine_folder() -> Path:
    """Return the folder for TensorRT's engines, if they are to be kept."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sefa" / "tensorrt"


def _text(value: object) -> str:
    return str(int(value)) if isinstance(value, bool) else str(value)
