"""Find out why a provider cannot run here: the missing piece, and how to fix it.

onnxruntime leaves a provider out without an error when one of its libraries does not load. What is missing is found by
checking the pieces in the order in which they depend on each other: the wheel, the driver, the device, the libraries.
"""

import ctypes
import os
from collections.abc import Mapping
from contextlib import suppress
from importlib.resources import as_file, files
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

from sefa_runtime.errors import ProviderError
from sefa_runtime.machine.packages import onnxruntime_wheels
from sefa_runtime.session.onnxruntime_output import first_error
from sefa_runtime.session.providers import CPU, CUDA, NVIDIA, OPENVINO, TENSORRT, offered, short_name

# A 3x3 convolution, the operation that generators spend their time in: y = conv(x), x [1, 1, 8, 8] of ones.
PROBE = "probe.onnx"
CUDA_WHEEL = "'onnxruntime-gpu[cuda,cudnn]'"
# The libraries of TensorRT that onnxruntime links to.
TENSORRT_LIBRARIES = ("libnvinfer.so.10", "libnvinfer_plugin.so.10", "libnvonnxparser.so.10")


def installation(provider: str, cuda_version: str = "") -> str:
    """Return the command that installs what a provider needs, replacing any installed onnxruntime.

    Args:
        provider: The provider's name in onnxruntime's spelling.
        cuda_version: The CUDA version that the installed onnxruntime was built with, if any.
    """
    packages = {
        CUDA: CUDA_WHEEL,
        TENSORRT: f"{CUDA_WHEEL} {_tensorrt_package(cuda_version)}",
        OPENVINO: "onnxruntime-openvino",
    }
    command = f"pip install {packages.get(provider, 'onnxruntime')}"
    # The wheels install the same files: uninstall whichever is there first.
    installed = list(onnxruntime_wheels())
    return f"pip uninstall -y {' '.join(installed)} && {command}" if installed else command


def conflict() -> str:
    """Return a sentence about several installed onnxruntime wheels, or an empty string."""
    wheels = onnxruntime_wheels()
    if len(wheels) < 2:
        return ""
    names = " and ".join(f"{name} {number}" for name, number in wheels.items())
    return f"{names} are installed together, and the one installed last has overwritten the files of the other"


def not_built(ort: ModuleType, provider: str) -> ProviderError:
    """Make the error for a provider that the installed onnxruntime was built without."""
    known = provider in (*NVIDIA, OPENVINO)
    reason = f"the installed onnxruntime {ort.__version__} is built without it (it has: {', '.join(offered(ort))})"
    return _error(provider, reason, installation(provider) if known else "use a build of onnxruntime that has it")


def left_out(ort: ModuleType, provider: str, options: Mapping[str, str], said: str = "") -> ProviderError:
    """Make the error for a provider that was built in but did not start.

    Args:
        ort: The module onnxruntime.
        provider: The provider's name in onnxruntime's spelling.
        options: The options it was given.
        said: The text of the exception, if there was one.
    """
    if provider in NVIDIA:
        problem = _driver_problem(provider, _cuda_version(ort), options.get("device_id", "0"))
        if problem is not None:
            return problem
    problem = _library_problem(ort, provider)
    if problem is not None:
        return problem
    said = said or first_error(ort, lambda: _attempt(ort, provider, options))
    given = ", ".join(f"{key}={value}" for key, value in options.items())
    return _error(
        provider,
        f"onnxruntime cannot start it{' with ' + given if given else ''}: {said or 'it does not say why'}",
        "" if said else "`sefa doctor` says what works here",
    )


def _attempt(ort: ModuleType, provider: str, options: Mapping[str, str]) -> None:
    """Start the provider once more, on a graph of one convolution, to see its error messages."""
    with as_file(files("sefa_runtime.session") / PROBE) as path:
        ort.InferenceSession(str(path), providers=[(provider, dict(options)), CPU], enable_fallback=0)


def preload(ort: ModuleType, provider: str) -> None:
    """Load NVIDIA's libraries from their wheels, where the linker would not look for them."""
    if provider not in NVIDIA:
        return
    ort.preload_dlls()
    if provider == TENSORRT:
        spec = find_spec("tensorrt_libs")
        for folder in (spec.submodule_search_locations or []) if spec else []:
            for name in TENSORRT_LIBRARIES:
                with suppress(OSError):  # A missing one is found when onnxruntime cannot start.
                    ctypes.CDLL(str(Path(folder) / name))


def _driver_problem(provider: str, cuda_version: str, device_id: str) -> ProviderError | None:
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        remedy = "install NVIDIA's driver; a container needs `--gpus all` or the like as well"
        return _error(provider, f"no NVIDIA driver on this machine ({error})", remedy)
    code = int(driver.cuInit(0))
    count = ctypes.c_int()
    if code == 0:
        code = int(driver.cuDeviceGetCount(ctypes.byref(count)))
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    limited = "" if visible is None else f" (CUDA_VISIBLE_DEVICES is {visible!r})"
    if code != 0 or count.value == 0:
        text = ctypes.c_char_p()
        driver.cuGetErrorString(code, ctypes.byref(text))
        why = f": {(text.value or b'').decode() or 'error'} ({code})" if code else ""
        return _error(
            provider, f"the NVIDIA driver is there but offers no device{why}{limited}", "see what nvidia-smi says"
        )
    if not (device_id.isdecimal() and int(device_id) < count.value):
        return _error(provider, f"device_id must be in 0..{count.value - 1}, got {device_id}{limited}")
    version = ctypes.c_int()
    driver.cuDriverGetVersion(ctypes.byref(version))
    supported = version.value // 1000
    needed = int(cuda_version.partition(".")[0] or 0)
    if supported < needed:
        return _error(
            provider,
            f"the NVIDIA driver supports CUDA {supported}, this onnxruntime needs CUDA {needed}",
            "install a newer driver",
        )
    return None


def _library_problem(ort: ModuleType, provider: str) -> ProviderError | None:
    library = Path(str(ort.__file__)).parent / "capi" / f"libonnxruntime_providers_{short_name(provider)}.so"
    if provider not in (*NVIDIA, OPENVINO) and not library.exists():
        return None  # The provider is part of onnxruntime itself.
    try:
        ctypes.CDLL(str(library.with_name("libonnxruntime_providers_shared.so")), mode=ctypes.RTLD_GLOBAL)
        ctypes.CDLL(str(library))
    except OSError as error:
        remedy = ""
        if provider in NVIDIA:
            of_tensorrt = "libnvinfer" in str(error) or "libnvonnxparser" in str(error)
            remedy = f"pip install {_tensorrt_package(_cuda_version(ort)) if of_tensorrt else CUDA_WHEEL}"
        return _error(provider, f"a library cannot be loaded: {error}", remedy)
    return None


def _error(provider: str, reason: str, remedy: str = "") -> ProviderError:
    """Make an error with the provider's name before the reason, and conflicting wheels before everything else."""
    both = conflict()
    if both:
        reason = f"{both}; {reason}"
        steps = [installation(provider)] + ([] if remedy.startswith("pip ") else [remedy])
        remedy = "; ".join(filter(None, steps))
    return ProviderError(f"{short_name(provider)}: {reason}", remedy)


def _cuda_version(ort: ModuleType) -> str:
    return str(getattr(ort, "cuda_version", "") or "")


def _tensorrt_package(cuda_version: str) -> str:
    """Return the package of TensorRT 10 for onnxruntime's CUDA version: onnxruntime links to libnvinfer.so.10."""
    return f"'tensorrt-cu{cuda_version.partition('.')[0] or '13'}<11'"
