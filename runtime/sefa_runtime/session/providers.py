"""Execution providers: their names, and the options they get unless told otherwise."""

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
# onnxruntime lists them, but they call web services: on our models the CPU would answer in their name.
REMOTE = ("AzureExecutionProvider",)
SUFFIX = "executionprovider"

# Entries of the session, whatever the provider. A thread that is out of work looks for more for 0.1 ms before it
# sleeps, not for milliseconds: on two cores of an EPYC one session alone kept its speed within 4 %, sessions that
# shared the cores were twice as fast, and a process that rendered 40 images a second used a quarter of the processor
# time. onnxruntime knows the entry from version 1.26.
SESSION_ENTRIES = {"session.intra_op.spin_duration_us": "100"}


def full_name(ort: ModuleType, provider: str) -> str:
    """Return the provider's name as onnxruntime spells it: `cuda` -> `CUDAExecutionProvider`.

    Raises:
        InputError: If onnxruntime knows no such provider.
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
    """Return short names of the providers that the installed onnxruntime has and that run on this machine."""
    return [short_name(name) for name in ort.get_available_providers() if name not in REMOTE]


def default_options(provider: str, threads: int) -> dict[str, str]:
    """Return the options a provider gets unless told otherwise.

    Args:
        provider: As onnxruntime spells it.
        threads: Threads of one operator, for a provider that has threads of its own.
    """
    match provider:
        case "CUDAExecutionProvider":
            # EXHAUSTIVE, onnxruntime's default, spends seconds on every new shape; TF32 would cost the parity that was
            # measured at export.
            return {"cudnn_conv_algo_search": "HEURISTIC", "use_tf32": "0"}
        case "TensorrtExecutionProvider":
            # Half precision is for graphs that were verified in it. Nothing is written to disk unless asked for.
            return {"trt_fp16_enable": "0", "trt_engine_cache_enable": "0"}
        case "OpenVINOExecutionProvider":
            # ACCURACY computes in the model's own precision; left to itself OpenVINO takes bfloat16 where it can.
            return {"device_type": "CPU", "precision": "ACCURACY", "num_of_threads": str(threads)}
        case _:
            return {}


def complete_options(
    provider: str, threads: int, wanted: Mapping[str, object]
) -> tuple[dict[str, str], dict[str, str]]:
    """Put what the caller wants over the defaults.

    Args:
        provider: As onnxruntime spells it.
        threads: Threads of one operator.
        wanted: Options of the provider, by onnxruntime's names. A key with a dot in it is an entry of the session
            instead, for any provider: `session.intra_op.allow_spinning`.

    Returns:
        options: Of the provider.
        entries: Of the session.

    Raises:
        InputError: If there are options for the CPU, which has none, or one that we cannot serve.
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
    """Return the provider and what fills the gaps it leaves, in onnxruntime's order of preference.

    Shape arithmetic stays on the CPU under every provider; what TensorRT cannot take stays on the same GPU.
    """
    providers = [(provider, dict(options))]
    if provider == TENSORRT:
        device = {key: value for key, value in options.items() if key == "device_id"}
        providers.append((CUDA, default_options(CUDA, threads=1) | device))
    return providers if provider == CPU else [*providers, (CPU, {})]


def is_on(options: Mapping[str, object], key: str) -> bool:
    """Return whether an option is given and means yes, as onnxruntime reads it."""
    return _text(options.get(key, False)).lower() in ("1", "true")


def engine_folder() -> Path:
    """Return where TensorRT's engines are kept, if they are to be kept."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sefa" / "tensorrt"


def _text(value: object) -> str:
    return str(int(value)) if isinstance(value, bool) else str(value)
