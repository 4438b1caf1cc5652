import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sefa_runtime import Editor, InputError, load
from sefa_runtime.files import sha256_of
from sefa_runtime.latency import BatchResult, LatencyRecord, measure
from sefa_runtime.latency.measure import OFFLINE_BATCHES, example_inputs, may_use_tf32

Quick = Callable[..., LatencyRecord]
SCENARIOS: list[dict[str, Any]] = [
    {"batches": (1, 2), "edits": 2},
    {"scenario": "offline", "batches": (1, 3)},
    {"scenario": "server", "rate": 500.0},
    {"scenario": "server", "rate": 1e6},
]


@pytest.mark.parametrize("samples", [False, True])
@pytest.mark.parametrize("arguments", SCENARIOS)
def test_a_record_is_what_the_schema_says(
    quick: Quick, validate: Callable[[Any], None], arguments: dict[str, Any], samples: bool
) -> None:
    document = json.loads(json.dumps(quick(**arguments).to_dict(samples), allow_nan=False))
    validate(document)
    assert all((result["samples_ms"] is not None) == samples for result in document["results"])


def test_a_record_says_what_was_measured_on_what(quick: Quick, golden: Path) -> None:
    shares: list[float] = []
    record = quick(batches=(1, 2), edits=2, progress=shares.append)
    assert [(result.batch, result.edits) for result in record.results] == [(1, 2), (2, 2)]
    assert record.provider == "cpu"
    assert record.tf32 is False
    assert record.threads >= 1
    assert record.placement.nodes.keys() == record.placement.convolutions.keys() == {"cpu"}
    assert record.placement.convolutions["cpu"] == 2
    assert record.load_ms > 0
    assert record.model["file"] == "tiny.onnx"
    assert record.model["sha256"] == sha256_of(golden / "tiny.onnx")
    assert record.graph.operators["ConvTranspose"] == 2
    assert record.machine["cores"] >= 1
    assert record.versions["sefa"]
    assert shares == sorted(shares)
    assert shares[-1] == 1.0


def check_statistics(result: BatchResult) -> None:
    """The statistics are those of the samples, by numpy's account."""
    samples = [np.inf if sample is None else sample for sample in result.samples_ms or ()]
    for percent, value, least in (
        (50, result.p50_ms, 20),
        (90, result.p90_ms, 100),
        (95, result.p95_ms, 200),
        (99, result.p99_ms, 1000),
    ):
        expected = np.percentile(samples, percent, method="inverted_cdf")
        assert value == (expected if len(samples) >= least and np.isfinite(expected) else None)
    assert result.min_ms == min(samples)
    assert result.max_ms == (max(samples) if np.isfinite(max(samples)) else None)
    assert result.mean_ms == (pytest.approx(np.mean(samples), abs=0.001) if np.isfinite(max(samples)) else None)
    assert result.images_per_second == pytest.approx(result.batch * result.runs / result.seconds, rel=0.02)


@pytest.mark.parametrize("arguments", SCENARIOS)
def test_the_statistics_are_those_of_the_samples(quick: Quick, arguments: dict[str, Any]) -> None:
    for result in quick(**arguments).results:
        check_statistics(result)


def test_one_after_another_fills_the_time(quick: Quick) -> None:
    (result,) = quick().results
    assert result.runs >= 100 or result.seconds >= 0.3
    assert result.arrivals is None
    # The runs, and next to nothing between them.
    assert sum(sample or 0.0 for sample in result.samples_ms or ()) <= 1000 * result.seconds + 1


def test_a_short_measurement_says_so(quick: Quick) -> None:
    (result,) = quick().results
    assert result.shortfalls[0].endswith(" s of 10 s")


def test_offline_finds_the_batch_size_of_the_highest_throughput(quick: Quick) -> None:
    record = quick(scenario="offline")
    assert tuple(result.batch for result in record.results) == OFFLINE_BATCHES
    throughput = {result.batch: result.images_per_second for result in record.results}
    assert record.best_batch is not None
    assert throughput[record.best_batch] == max(throughput.values())
    assert quick().best_batch is None


def test_more_requests_than_can_be_served_are_told(quick: Quick) -> None:
    (result,) = quick(scenario="server", rate=1e6).results
    assert result.arrivals is not None
    assert result.arrivals.load > 1
    assert result.arrivals.unserved == result.arrivals.requests - result.runs > 0
    assert result.max_ms is result.mean_ms is None
    assert any("times what can be served" in shortfall for shortfall in result.shortfalls)
    assert any("requests were not served" in shortfall for shortfall in result.shortfalls)


def test_few_requests_are_served_as_they_come(quick: Quick) -> None:
    (result,) = quick(scenario="server", rate=1000.0, seed=4).results
    assert result.arrivals is not None
    assert (result.arrivals.rate, result.arrivals.seed, result.arrivals.unserved) == (1000.0, 4, 0)
    assert result.runs == result.arrivals.requests >= 100


def test_static_sizes_are_those_measured(tiny: Editor, steady_clock: None) -> None:
    tiny.info = replace(tiny.info, batch=3, num_edits=2)
    for arguments in ({}, {"scenario": "offline"}):
        (result,) = measure(tiny, seconds=0.05, **arguments).results  # type: ignore[arg-type]
        assert (result.batch, result.edits) == (3, 2)


@pytest.mark.parametrize(
    ("requested", "provider", "as_asked"),
    [
        ("auto", "cpu", True),
        ("cpu", "cpu", True),
        ("CPUExecutionProvider", "cpu", True),
        ("cuda", "cpu", False),
        ("CUDAExecutionProvider", "cuda", True),
    ],
)
def test_whether_the_provider_asked_for_ran(quick: Quick, requested: str, provider: str, as_asked: bool) -> None:
    record = replace(quick(), provider_requested=requested, provider=provider)
    assert record.ran_as_asked is as_asked


@pytest.mark.parametrize(
    ("provider", "options", "variable", "tf32"),
    [
        ("cpu", {}, None, False),
        ("cuda", {"use_tf32": "0"}, None, False),
        ("cuda", {"use_tf32": "1"}, None, True),
        ("cuda", {}, None, True),  # onnxruntime's own choice
        ("cuda", {"use_tf32": "1"}, "0", False),
        ("tensorrt", {}, None, None),
        ("tensorrt", {}, "0", False),
        ("openvino", {}, None, None),
    ],
)
def test_whether_tf32_may_be_used(
    monkeypatch: pytest.MonkeyPatch, provider: str, options: dict[str, str], variable: str | None, tf32: bool | None
) -> None:
    monkeypatch.delenv("NVIDIA_TF32_OVERRIDE", raising=False)
    if variable is not None:
        monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", variable)
    assert may_use_tf32(provider, options) is tf32


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batches": ()}, "at least one batch size"),
        ({"batches": (1, 0)}, "batch must be in"),
        ({"seconds": 0}, "seconds must be in"),
        ({"seconds": float("nan")}, "seconds must be in"),
        ({"seconds": float("inf")}, "seconds must be in"),
        ({"edits": -1}, "edits must be in"),
        ({"scenario": "multi_stream"}, "scenario must be one of single_stream, offline, server, got 'multi_stream'"),
        ({"scenario": "server"}, "the scenario server needs a rate"),
        ({"scenario": "server", "rate": 0.0}, "rate must be in"),
        ({"scenario": "server", "rate": 1.0, "seed": -1}, "seed must be in"),
        ({"rate": 1.0}, "a rate belongs to the scenario server, not to single_stream"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(tiny: Editor, arguments: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        measure(tiny, **arguments)


def test_as_many_images_as_layers_are_not_taken_for_one_images_code(golden: Path) -> None:
    editor = load(golden / "style_w.onnx", provider="cpu")
    inputs = example_inputs(editor.info, editor.info.num_layers, 1)
    assert len(editor.run(**inputs)) == editor.info.num_layers  # A warning would be an error.
