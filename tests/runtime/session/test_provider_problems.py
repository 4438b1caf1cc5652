"""Each missing piece has its own words. The wheels and the driver are played: no machine has all of these faults."""

import ctypes
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnxruntime
import pytest

from sefa_runtime import ProviderError
from sefa_runtime.machine import packages
from sefa_runtime.session import provider_problems
from sefa_runtime.session.provider_problems import conflict, installation, left_out, not_built, preload
from sefa_runtime.session.providers import CPU, CUDA, OPENVINO, TENSORRT

Wheels = Callable[..., None]


@pytest.fixture
def wheels(monkeypatch: pytest.MonkeyPatch) -> Wheels:
    """Say which onnxruntime wheels are installed."""

    def install(**versions: str) -> None:
        found = {name.replace("_", "-"): version for name, version in versions.items()}
        monkeypatch.setattr(packages, "installed_version", found.get)

    install(onnxruntime_gpu="1.31.1")
    return install


class Driver:
    """NVIDIA's libcuda, as far as it is asked."""

    def __init__(self, code: int = 0, devices: int = 1, version: int = 13000) -> None:
        self.code, self.devices, self.version = code, devices, version

    def cuInit(self, flags: int) -> int:  # noqa: N802
        return self.code

    def cuDeviceGetCount(self, count: Any) -> int:  # noqa: N802
        count._obj.value = self.devices
        return 0

    def cuDriverGetVersion(self, version: Any) -> int:  # noqa: N802
        version._obj.value = self.version
        return 0

    def cuGetErrorString(self, code: int, text: Any) -> int:  # noqa: N802
        text._obj.value = b"initialization error"
        return 0


@pytest.fixture
def libraries(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Say which libraries load: the driver if there is one, everything else unless it is named."""
    monkeypatch.setattr(onnxruntime, "cuda_version", "13.0", raising=False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    def provide(driver: Driver | None = None, **missing: str) -> None:
        def load(name: str, mode: int = 0) -> object:
            if name == "libcuda.so.1" and driver is not None:
                return driver
            for part, library in missing.items():
                if part in name:
                    raise OSError(f"{library}: cannot open shared object file: No such file or directory")
            return object()

        monkeypatch.setattr(ctypes, "CDLL", load)

    return provide


def problem(provider: str, **options: str) -> ProviderError:
    return left_out(onnxruntime, provider, options)


def test_without_a_driver(wheels: Wheels, libraries: Callable[..., None]) -> None:
    libraries(None, libcuda="libcuda.so.1")
    error = problem(CUDA)
    assert error.reason.startswith("cuda: no NVIDIA driver on this machine (libcuda.so.1: cannot open")
    assert error.remedy.startswith("install NVIDIA's driver")


@pytest.mark.parametrize(
    ("driver", "reason"),
    [
        (Driver(devices=0), "the NVIDIA driver is there but offers no device"),
        (Driver(code=3), r"the NVIDIA driver is there but offers no device: initialization error \(3\)"),
        (Driver(version=12040), "the NVIDIA driver supports CUDA 12, this onnxruntime needs CUDA 13"),
    ],
)
def test_a_driver_that_does_not_serve(
    wheels: Wheels, libraries: Callable[..., None], driver: Driver, reason: str
) -> None:
    libraries(driver)
    with pytest.raises(ProviderError, match=f"^cuda: {reason}; to fix it: "):
        raise problem(CUDA)


def test_devices_that_are_hidden(
    wheels: Wheels, libraries: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    libraries(Driver(devices=0))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert problem(CUDA).reason.endswith("offers no device (CUDA_VISIBLE_DEVICES is '')")


@pytest.mark.parametrize("device", ["2", "-1", "gpu"])
def test_a_device_that_is_not_there(wheels: Wheels, libraries: Callable[..., None], device: str) -> None:
    libraries(Driver(devices=2))
    assert problem(CUDA, device_id=device).reason == f"cuda: device_id must be in 0..1, got {device}"


def test_libraries_that_are_missing(wheels: Wheels, libraries: Callable[..., None]) -> None:
    libraries(Driver(), providers_cuda="libcublasLt.so.13")
    error = problem(CUDA)
    assert error.reason.startswith("cuda: a library cannot be loaded: libcublasLt.so.13: cannot open")
    assert error.remedy == "pip install 'onnxruntime-gpu[cuda,cudnn]'"


def test_tensorrt_that_is_missing(wheels: Wheels, libraries: Callable[..., None]) -> None:
    libraries(Driver(), providers_tensorrt="libnvinfer.so.10")
    error = problem(TENSORRT)
    assert error.reason.startswith("tensorrt: a library cannot be loaded: libnvinfer.so.10")
    # Version 11 has other libraries than those that onnxruntime links to.
    assert error.remedy == "pip install 'tensorrt-cu13<11'"


def test_a_provider_that_says_why(
    wheels: Wheels, libraries: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    libraries()
    monkeypatch.setattr(provider_problems, "first_error", lambda ort, attempt: "Device GPU is not available")
    error = problem(OPENVINO, device_type="GPU")
    assert error.reason == "openvino: onnxruntime cannot start it with device_type=GPU: Device GPU is not available"


def test_a_provider_that_does_not_say_why(wheels: Wheels, libraries: Callable[..., None]) -> None:
    # The probe is really built, on a provider that no wheel has.
    libraries()
    with pytest.warns(UserWarning, match="not in available provider names"):
        error = problem("DnnlExecutionProvider")
    assert error.reason == "dnnl: onnxruntime cannot start it: it does not say why"
    assert "sefa doctor" in error.remedy


def test_the_text_of_an_exception_is_enough(wheels: Wheels, libraries: Callable[..., None]) -> None:
    libraries()
    error = left_out(onnxruntime, OPENVINO, {"x": "1"}, "Invalid OpenVINO EP option: x")
    assert error.reason == "openvino: onnxruntime cannot start it with x=1: Invalid OpenVINO EP option: x"


@pytest.mark.parametrize(
    ("provider", "packages"),
    [
        (CUDA, "'onnxruntime-gpu[cuda,cudnn]'"),
        (TENSORRT, "'onnxruntime-gpu[cuda,cudnn]' 'tensorrt-cu13<11'"),
        (OPENVINO, "onnxruntime-openvino"),
    ],
)
def test_the_cpu_wheel(wheels: Wheels, monkeypatch: pytest.MonkeyPatch, provider: str, packages: str) -> None:
    wheels(onnxruntime="1.32.0")
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["AzureExecutionProvider", CPU])
    error = not_built(onnxruntime, provider)
    assert "is built without it (it has: cpu)" in error.reason
    assert error.remedy == f"pip uninstall -y onnxruntime && pip install {packages}"


def test_a_provider_that_no_wheel_brings(wheels: Wheels) -> None:
    assert not_built(onnxruntime, "XnnpackExecutionProvider").remedy == "use a build of onnxruntime that has it"


@pytest.mark.parametrize("last", ["cpu", "gpu"])
def test_both_wheels(wheels: Wheels, libraries: Callable[..., None], last: str) -> None:
    wheels(onnxruntime="1.32.0", onnxruntime_gpu="1.31.1")
    libraries(None, libcuda="libcuda.so.1")
    error = not_built(onnxruntime, CUDA) if last == "cpu" else problem(CUDA)
    assert error.reason.startswith(
        "cuda: onnxruntime 1.32.0 and onnxruntime-gpu 1.31.1 are installed together, and the one installed last has "
        "overwritten the files of the other; "
    )
    command = "pip uninstall -y onnxruntime onnxruntime-gpu && pip install 'onnxruntime-gpu[cuda,cudnn]'"
    assert error.remedy.startswith(command)
    assert ("driver" in error.remedy) == (last == "gpu")
    assert error.remedy.count("pip install") == 1


def test_one_wheel_is_no_conflict(wheels: Wheels) -> None:
    assert conflict() == ""


def test_nothing_installed_means_nothing_to_remove(wheels: Wheels) -> None:
    wheels()
    assert installation(CPU) == "pip install onnxruntime"


def test_tensorrt_is_loaded_from_its_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The wheel puts its libraries where the linker does not look; one that is missing is not an error yet.
    package = tmp_path / "tensorrt_libs"
    package.mkdir()
    (package / "__init__.py").write_text("raise AssertionError('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    loaded: list[str] = []

    def load(name: str, mode: int = 0) -> None:
        loaded.append(name)
        if "plugin" in name:
            raise OSError(name)

    monkeypatch.setattr(ctypes, "CDLL", load)
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: loaded.append("NVIDIA's"))
    preload(onnxruntime, CUDA)
    assert loaded == ["NVIDIA's"]
    preload(onnxruntime, TENSORRT)
    assert str(package / "libnvinfer.so.10") in loaded
    assert str(package / "libnvonnxparser.so.10") in loaded


def test_nothing_is_loaded_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: pytest.fail("loaded"))
    preload(onnxruntime, CPU)
    preload(onnxruntime, OPENVINO)
