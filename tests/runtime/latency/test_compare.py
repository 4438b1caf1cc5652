import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import sefa_runtime
from sefa_runtime import InputError
from sefa_runtime.latency import LatencyRecord, compare_records, measure
from sefa_runtime.model.info import Payload, WeightsFile
from sefa_runtime.model.renaming import rename_directions

Quick = Callable[..., LatencyRecord]


@pytest.fixture
def record(quick: Quick) -> dict[str, Any]:
    """A record of two batch sizes, as it is read from its file."""
    return json.loads(json.dumps(quick(batches=(1, 2)).to_dict()))  # type: ignore[no-any-return]


def test_twice_as_fast_is_a_ratio_of_a_half(record: dict[str, Any]) -> None:
    faster = copy.deepcopy(record)
    for result in faster["results"]:
        result |= {"p50_ms": result["p50_ms"] / 2, "images_per_second": result["images_per_second"] * 2}
    comparison = compare_records(record, faster)
    ratios = {(ratio.batch, ratio.measure): ratio.b_over_a for ratio in comparison.ratios}
    assert ratios[1, "p50_ms"] == ratios[2, "p50_ms"] == 0.5
    assert ratios[1, "images_per_second"] == 2.0
    assert ratios[2, "first_run_ms"] == ratios[None, "load_ms"] == 1.0
    assert comparison.differences == ()


def test_only_what_both_have_is_compared(record: dict[str, Any]) -> None:
    other = copy.deepcopy(record)
    other["results"][0] |= {"batch": 4}
    other["results"][1] |= {"p90_ms": None}
    compared = {(ratio.batch, ratio.measure) for ratio in compare_records(record, other).ratios}
    assert {batch for batch, _ in compared} == {2, None}
    assert (2, "p50_ms") in compared
    assert (2, "p90_ms") not in compared


def test_conditions_that_differ_are_told(record: dict[str, Any]) -> None:
    other = copy.deepcopy(record)
    other |= {"provider": "openvino", "threads": 1}
    other["versions"]["onnxruntime"] = "1.99"
    differences = {(item.what, item.b) for item in compare_records(record, other).differences}
    assert differences == {("provider", "openvino"), ("threads", 1), ("onnxruntime", "1.99")}


def test_what_either_falls_short_of_is_told(record: dict[str, Any]) -> None:
    record["results"][0]["shortfalls"] = ["1 of 100 runs"]
    other = copy.deepcopy(record)
    other["results"][0]["shortfalls"] = []
    other["results"][1]["shortfalls"] = ["3 of 100 runs"]
    shortfalls = compare_records(record, other).shortfalls
    assert "A, batch 1: 1 of 100 runs" in shortfalls
    assert "B, batch 2: 3 of 100 runs" in shortfalls
    assert "B, batch 1: 1 of 100 runs" not in shortfalls


@pytest.mark.parametrize(
    "change",
    [
        {"cpu": "another"},
        {"cpu_extensions": ["avx2"]},
        {"cores": 64},
        {"cores_limit": 1.5},
        {"memory_limit_gib": 2.0},
        {"gpus": "one"},
    ],
)
def test_different_machines_are_refused_unless_told(record: dict[str, Any], change: dict[str, Any]) -> None:
    other = copy.deepcopy(record)
    gpu = {"name": "NVIDIA H100", "driver": "570.1", "memory": "80 GiB"}
    other["machine"] |= {"gpus": [gpu]} if "gpus" in change else change
    with pytest.raises(InputError, match=r"different machines \(.*\): --across-machines"):
        compare_records(record, other)
    comparison = compare_records(record, other, across_machines=True)
    assert next(iter(change)) in {item.what for item in comparison.differences}


def test_a_busier_day_or_a_new_driver_is_the_same_machine(record: dict[str, Any]) -> None:
    record["machine"]["gpus"] = [{"name": "NVIDIA H100", "driver": "570.1", "memory": "80 GiB"}]
    other = copy.deepcopy(record)
    other["machine"]["load_average"] = [99.0, 99.0, 99.0]
    other["machine"]["gpus"][0]["driver"] = "580.2"
    (difference,) = compare_records(record, other).differences
    assert (difference.what, difference.a, difference.b) == ("drivers", ["570.1"], ["580.2"])


def test_a_direction_may_be_called_otherwise(golden: Path, tmp_path: Path, steady_clock: None) -> None:
    renamed = Path(shutil.copy(golden / "tiny.onnx", tmp_path))
    before = measure(sefa_runtime.load(renamed, "cpu"), seconds=0.05).to_dict()
    rename_directions(renamed, {0: "smile"})
    after = measure(sefa_runtime.load(renamed, "cpu"), seconds=0.05).to_dict()
    assert before["model"]["sha256"] != after["model"]["sha256"]
    assert compare_records(before, after).differences == ()
    other = measure(sefa_runtime.load(golden / "tiny_float32.onnx", "cpu"), seconds=0.05).to_dict()
    with pytest.raises(InputError, match="different models"):
        compare_records(before, other)


def test_weights_beside_the_file_are_of_the_model() -> None:
    one, other = (Payload(9, "a" * 64, WeightsFile("w.bin", 4, digit * 64)) for digit in "12")
    assert len({one.content_sha256, other.content_sha256, Payload(9, "a" * 64).content_sha256}) == 3


def test_of_records_of_before_the_files_are_compared(record: dict[str, Any]) -> None:
    old = copy.deepcopy(record)
    del old["model"]["content_sha256"]
    assert compare_records(old, record).differences == ()
    old["model"]["sha256"] = "0" * 64
    with pytest.raises(InputError, match="different models"):
        compare_records(old, record)


def test_different_models_are_refused_unless_told(record: dict[str, Any]) -> None:
    other = copy.deepcopy(record)
    other["model"] |= {"sha256": "0" * 64, "content_sha256": "1" * 64}
    with pytest.raises(InputError, match="different models"):
        compare_records(record, other, across_machines=True)
    assert compare_records(record, other, across_models=True).ratios


def test_different_scenarios_are_refused(quick: Quick, record: dict[str, Any]) -> None:
    other = quick(scenario="server", rate=500.0).to_dict()
    with pytest.raises(InputError, match="different scenarios: single_stream and server"):
        compare_records(record, other, across_machines=True, across_models=True)


def test_different_rates_are_refused(quick: Quick) -> None:
    a = quick(scenario="server", rate=500.0).to_dict()
    b = copy.deepcopy(a)
    assert compare_records(a, b).rate == 500.0
    b["results"][0]["arrivals"]["rate"] = 600.0
    with pytest.raises(InputError, match="different rates: 500 and 600/s"):
        compare_records(a, b)


def test_nothing_in_common_is_refused(record: dict[str, Any]) -> None:
    other = copy.deepcopy(record)
    other["results"] = other["results"][:1]
    other["results"][0]["edits"] = 5
    with pytest.raises(InputError, match="no batch size and number of edits in common"):
        compare_records(record, other)


@pytest.mark.parametrize("damage", [{"machine": None}, {"results": [1]}, {"versions": 3}, {"model": {}}])
def test_a_damaged_record_is_called_that(record: dict[str, Any], damage: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="one of the records is damaged"):
        compare_records(record, record | damage)


def test_shapes_and_parts_that_differ_are_reported(golden: Path) -> None:
    """A record of before these fields counts as one of any batch, run whole."""
    model = golden / "tiny.onnx"
    before = measure(sefa_runtime.load(model, "cpu"), [1], seconds=0.01).to_dict()
    after = measure(sefa_runtime.load(model, "cpu", batch=1, styles_on_cpu=True), seconds=0.01).to_dict()
    del before["static_batch"], before["styles_on_cpu"]
    differences = {item.what: (item.a, item.b) for item in compare_records(before, after).differences}
    assert differences["static_batch"] == (None, 1)
    assert differences["styles_on_cpu"] == (None, True)
    assert "static_batch" not in {item.what for item in compare_records(before, before).differences}
