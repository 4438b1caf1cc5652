"""Asking for CUDA where it cannot be had, with each combination of onnxruntime's wheels really installed."""

import ctypes
import os
import subprocess
import venv
from pathlib import Path

import pytest

from support.paths import ROOT

PROGRAM = """
import sys
from pathlib import Path
import sefa_runtime
from sefa_runtime.session.session import build_session
probe = Path(sefa_runtime.__file__).parent / "session" / "probe.onnx"
try:
    build_session(probe, "cuda")
except sefa_runtime.ProviderError as error:
    print(error.reason, error.remedy, sep="\\n")
print(build_session(probe, "cuda", allow_cpu_fallback=True).provider)
"""
NOT_BUILT = "is built without it (it has: cpu)"
NO_DRIVER = "no NVIDIA driver on this machine (libcuda.so.1: "
TOGETHER = "are installed together, and the one installed last has overwritten the files of the other; "


def has_driver() -> bool:
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


@pytest.mark.slow
@pytest.mark.skipif(has_driver(), reason="CUDA may be had here")
@pytest.mark.parametrize(
    ("wheels", "reasons", "remedy"),
    [
        (["onnxruntime"], [NOT_BUILT], "pip uninstall -y onnxruntime && pip install 'onnxruntime-gpu[cuda,cudnn]'"),
        (["onnxruntime-gpu"], [NO_DRIVER], "install NVIDIA's driver"),
        (["onnxruntime", "onnxruntime-gpu"], [TOGETHER, NO_DRIVER], "pip uninstall -y onnxruntime onnxruntime-gpu && "),
        (["onnxruntime-gpu", "onnxruntime"], [TOGETHER, NOT_BUILT], "pip uninstall -y onnxruntime onnxruntime-gpu && "),
    ],
)
def test_cuda_without_a_gpu_says_what_is_missing(
    tmp_path: Path, wheels: list[str], reasons: list[str], remedy: str
) -> None:
    venv.create(tmp_path, with_pip=True)
    python = str(tmp_path / "bin" / "python")
    pip = [python, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    for wheel in wheels:  # One after the other: the last one's files stay.
        subprocess.run([*pip, "--constraint", str(ROOT / "constraints.txt"), wheel, "numpy"], check=True)
    environment = os.environ | {"PYTHONPATH": str(ROOT / "runtime")}
    command = [python, "-W", "error", "-c", PROGRAM]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    reason, told, provider = done.stdout.splitlines()
    assert reason.startswith("cuda: ")
    assert all(part in reason for part in reasons), reason
    assert told.startswith(remedy)
    assert provider == "cpu"
