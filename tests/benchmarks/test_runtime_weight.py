"""benchmarks/runtime_weight.py, without its installation: the environment of the tests stands for the one it makes."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from support.paths import ROOT

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@pytest.fixture(scope="module")
def weight() -> ModuleType:
    """The script as a module."""
    path = ROOT / "benchmarks" / "runtime_weight.py"
    spec = importlib.util.spec_from_file_location("runtime_weight", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_each_stage_has_its_time_and_memory(weight: ModuleType, golden: Path) -> None:
    record = weight.measure(Path(sys.executable), golden / "tiny.onnx", rounds=1)
    stages = ["import numpy", "import onnxruntime", "import sefa_runtime", "load", "first image", "second image"]
    assert list(record["added_ms"]) == ["interpreter", *stages]
    assert all(ms > 0 for ms in record["added_ms"].values())
    until_first_image = sum(ms for stage, ms in record["added_ms"].items() if stage != "second image")
    assert record["time_to_first_image_ms"] == pytest.approx(until_first_image, abs=1)
    peaks = [memory["peak_mb"] for memory in record["memory"].values()]
    assert peaks == sorted(peaks)
    assert peaks[-1] > 20


def test_weights_inside_and_beside_the_model(weight: ModuleType, golden: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnx", reason="writes the variant")
    beside = weight.put_weights_beside(golden / "tiny.onnx", tmp_path / "beside")
    compared = weight.compare_weights(Path(sys.executable), golden / "tiny.onnx", beside, rounds=1)
    assert list(compared) == ["in the model's file", "beside it", "beside it, not rearranged"]
    for sample in compared.values():
        assert sample["load_ms"] > 0
        assert sample["private_mb"] + sample["mapped_mb"] <= sample["peak_mb"] + 1


def test_installed_packages_are_weighed_without_the_tools(weight: ModuleType, tmp_path: Path) -> None:
    site = tmp_path / "lib" / "python3.13" / "site-packages"
    for name, size in (("big", 2_000_000), ("small", 300_000), ("pip", 5_000_000)):
        (site / name / "deep").mkdir(parents=True)
        (site / name / "deep" / "file").write_bytes(b"x" * size)
    (site / "alone.py").write_bytes(b"x" * 1_100_000)
    sizes = weight.installed_sizes(tmp_path / "bin" / "python")
    assert sizes == {"total": 3.4, "big": 2.0, "alone.py": 1.1}
