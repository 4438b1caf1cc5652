"""benchmarks/gpu.py on the CPU: the command that a GPU machine runs, as far as it goes without one."""

import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import sefa_runtime
from sefa_runtime import Editor
from sefa_runtime.session.session import Session
from support.paths import ROOT, TINY

SCRIPT = ROOT / "benchmarks" / "gpu.py"


@pytest.fixture(scope="module")
def gpu() -> ModuleType:
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("gpu", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_one_command_checks_and_measures(golden: Path, tmp_path: Path) -> None:
    record = tmp_path / "record.json"
    model = golden / "tiny.onnx"
    command = [sys.executable, str(SCRIPT), str(model), "--provider", "cpu", "--seconds", "0.1", "-o", str(record)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    document = json.loads(record.read_text())
    assert json.loads(done.stdout) == document
    assert document["provider"] == "cpu"
    assert document["faults"] == []
    assert [entry["batch"] for entry in document["parity"]] == [1, 4, 16]
    for parity, latency in zip(document["parity"], document["latency"], strict=True):
        assert parity["same_as_plain"] == {"plain": True, "bound": True}
        assert parity["psnr_db"] is None
        assert latency["bound"]["runs"] > 0


def test_a_provider_that_cannot_run_is_no_record(
    golden: Path, gpu: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnxruntime

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(sefa_runtime.ProviderError, match="cuda: the installed onnxruntime"):
        gpu.examine(golden / "tiny.onnx", "cuda", 0.1)


def otherwise(editor: Editor, change: Callable[[Any], Any]) -> Editor:
    """An editor whose images are changed."""

    class Changed(Session):
        def run(self, feeds: Any) -> Any:
            return change(super().run(feeds))

    return Editor(TINY, editor.info, Changed(**vars(editor.session)))


def test_images_that_differ_between_the_ways_are_a_fault(gpu: ModuleType, tiny: Editor) -> None:
    def one_pixel(image: Any) -> Any:
        image[0, 0, 0, 0] ^= 1
        return image

    faults: list[str] = []
    gpu.check({"plain": tiny, "bound": otherwise(tiny, one_pixel)}, tiny, 4, faults)
    assert faults == ["batch 4: bound gives other images than plain"]


def test_images_that_differ_from_the_cpu_s_are_a_fault(gpu: ModuleType, tiny: Editor) -> None:
    faults: list[str] = []
    rounded = otherwise(tiny, lambda image: image // 2 * 2)
    gpu.check({"plain": rounded}, tiny, 4, faults)  # One grey level: a value on a rounding border.
    assert faults == []
    gpu.check({"plain": otherwise(tiny, lambda image: image // 4 * 4)}, tiny, 4, faults)
    assert len(faults) == 1
    assert faults[0].startswith("batch 4: up to 3.0 grey levels (")


def test_half_precision_is_judged_by_decibels(gpu: ModuleType, tiny: Editor) -> None:
    half = Editor(TINY, replace(tiny.info, precision="fp16"), tiny.session)
    faults: list[str] = []
    gpu.check({"plain": otherwise(half, lambda image: image // 4 * 4)}, half, 4, faults)  # about 42 dB
    assert faults == []
    gpu.check({"plain": otherwise(half, lambda image: image // 16 * 16)}, half, 4, faults)  # about 29 dB
    assert "dB) from the CPU's images" in faults[0]


def test_threads_that_disagree_are_a_fault(gpu: ModuleType, tiny: Editor) -> None:
    runs = 0

    def in_turn(image: Any) -> Any:
        nonlocal runs
        runs += 1
        return image + np.uint8(runs)

    faults: list[str] = []
    gpu.check_threads({"plain": tiny, "bound": otherwise(tiny, in_turn)}, (1, 2), faults)
    assert faults == ["bound: 8 threads get other images than one"]
