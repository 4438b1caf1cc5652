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
from gpu_all import suite
from gpu_all.report import write_report
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


def test_all_items_are_kept_as_they_come_and_one_that_fails_is_an_entry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(suite, "items", lambda peers: [suite.Item("nothing"), suite.Item("roofline")])
    record = tmp_path / "record.json"
    document = suite.run_all("cpu", record, small=True, tell=lambda line: None)
    assert json.loads(record.read_text())["entries"] == document["entries"]
    failed, *measured = document["entries"]
    assert (failed["item"], failed["status"]) == ("nothing", "error")
    assert "KeyError" in failed["error"]
    assert {entry["what"] for entry in measured} == {"matrix rate", "convolution rate", "copy rate"}
    assert all(entry["status"] == "ok" for entry in measured), measured
    report = write_report(document)
    assert "| copy, bytes read and written |" in report
    assert "- nothing: nothing: error, exit code 1: KeyError" in report


def test_an_item_that_takes_too_long_is_stopped() -> None:
    entries: list[Any] = []
    assert suite.run_item(suite.Item("roofline"), [], 0.01, entries.append) == "stopped after 0 s"
    assert entries == []


def test_nothing_starts_when_the_time_is_over() -> None:
    document = suite.run_all("cpu", None, small=True, minutes=0.1, only=("doctor",), tell=lambda line: None)
    assert [entry["status"] for entry in document["entries"]] == ["skipped"]


@pytest.mark.slow
def test_everything_is_measured_on_the_cpu(tmp_path: Path) -> None:
    document = suite.run_all("cpu", tmp_path / "record.json", small=True, seconds=0.02, tell=lambda line: None)
    bad = [entry for entry in document["entries"] if entry["status"] not in ("ok", "absent")]
    assert bad == []
    verified = [entry["ok"] for entry in document["entries"] if entry["what"] == "verify"]
    assert len(verified) >= 6
    assert all(verified)
    parity = [entry for entry in document["entries"] if entry["what"] == "parity"]
    assert all(entry["psnr_db"] is None or entry["psnr_db"] >= 40 for entry in parity), parity
    assert "biggan-128 fp16" in write_report(document)
