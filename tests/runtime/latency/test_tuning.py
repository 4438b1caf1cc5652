import threading
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import sefa_runtime
from sefa_runtime import InputError, ProviderError, RunError
from sefa_runtime.inputs.examples import as_arguments
from sefa_runtime.instances import load_instances
from sefa_runtime.latency import tuning
from sefa_runtime.latency.tuning import (
    IMAGES,
    ROUNDS,
    Trial,
    best_for_many_callers,
    best_for_one_caller,
    hopeless,
    run_together,
    tune,
)
from sefa_runtime.sealing import seal
from sefa_runtime.session.tuned import Setting
from sefa_runtime.verification import MAX_PSNR_DB
from support.patience import PATIENCE_S


@pytest.fixture(autouse=True)
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "usable_cores", lambda: 2)


@pytest.fixture
def rounded(golden: Path, tmp_path: Path) -> Path:
    """`tiny.onnx` with weights of three bits, as another tool might leave it."""
    onnx = pytest.importorskip("onnx")
    model = onnx.load(golden / "tiny.onnx")
    for weight in model.graph.initializer:
        values = onnx.numpy_helper.to_array(weight)
        if values.dtype == np.float32 and values.ndim == 4:
            mantissa, exponent = np.frexp(values)
            rough = np.ldexp(np.round(mantissa * 16) / 16, exponent).astype(np.float32)
            weight.CopyFrom(onnx.numpy_helper.from_array(rough, weight.name))
    onnx.save(model, tmp_path / "rounded.onnx")
    seal(tmp_path / "rounded.onnx", golden / "tiny.onnx", least_psnr_db=15)
    return tmp_path / "rounded.onnx"


def test_calls_run_at_the_same_time() -> None:
    meeting = threading.Barrier(3, timeout=PATIENCE_S)
    calls = [0, 0, 0]

    def call(number: int) -> None:
        calls[number] += 1
        if calls[number] == 2:  # The first is before the time begins, one after another.
            meeting.wait()
        time.sleep(0.01)

    times = run_together([partial(call, number) for number in range(3)], 0.1)
    assert len(times.runs) == sum(calls) - 3
    assert all(single >= 0.01 for single in times.runs)
    assert times.elapsed >= 0.1
    assert sum(times.runs) <= 3 * times.elapsed


def trial(instances: int, batch: int, p50_ms: float, images_per_second: float) -> Trial:
    return Trial(Setting("m", "cpu", instances, 1), batch, 10, p50_ms, images_per_second, MAX_PSNR_DB, ROUNDS)


def test_the_best_for_one_caller_is_the_shortest_run_of_one_image() -> None:
    slow, fast, same = trial(1, 1, 12.0, 80), trial(1, 1, 10.1, 99), trial(1, 1, 10.0, 100)
    trials = [slow, fast, same, trial(1, 8, 9.0, 800), trial(2, 1, 8.0, 200)]
    assert best_for_one_caller(trials) == fast  # As good as the best, and before it.


def test_the_best_for_many_callers_has_the_most_images() -> None:
    trials = [trial(1, 1, 10, 100), trial(1, 8, 70, 118), trial(2, 1, 17, 117), trial(2, 8, 130, 120)]
    assert best_for_many_callers(trials) == trials[1]
    assert best_for_many_callers(trials[:1]) == trials[0]


def test_what_is_given_up() -> None:
    trials = {
        "the best for one": trial(1, 1, 10, 100),
        "twice as long": trial(1, 1, 20, 49),
        "longer": trial(1, 1, 20.1, 49),
        "longer, with another batch": trial(1, 8, 90, 89),
        "the best for many": trial(2, 8, 80, 200),
        "half as many": trial(2, 1, 20, 100),
        "fewer": trial(2, 1, 20, 99),
        "too far from the model": replace(trial(2, 8, 80, 300), psnr_db=39.9),
    }
    given_up = {"longer", "longer, with another batch", "fewer", "too far from the model"}
    assert hopeless(trials, 40) == given_up
    assert hopeless(trials, 1000) == set(trials)


@pytest.mark.parametrize(("name", "batches"), [("tiny", {1, 4, 16}), ("style_z", {1, 4, 16}), ("style_static", {2})])
def test_a_model_is_measured(golden: Path, name: str, batches: set[int]) -> None:
    shares: list[float] = []
    estimates: list[float] = []
    found = tune(golden / f"{name}.onnx", "cpu", seconds=0.03, progress=shares.append, estimate=estimates.append)
    assert {item.batch for item in found.trials} == batches
    assert len(found.trials) == 4 * len(batches)  # 2 threads, 1 thread, 2 that spin longer, 2 instances
    for item in found.trials:
        assert item.setting.provider == "cpu"
        assert item.psnr_db == MAX_PSNR_DB or item.psnr_db > 60
        assert item.runs >= item.rounds in (1, ROUNDS)
    for best in (found.one_caller, found.many_callers):
        assert best in found.trials
        assert best.rounds == ROUNDS
    assert not found.failures
    assert shares == sorted(shares)
    assert shares[-1] == 1
    assert len(estimates) == 1
    assert estimates[0] > 0


def test_every_image_is_compared(golden: Path, rounded: Path) -> None:
    """The worst image's PSNR, by another route: both models' images together, and a mean over pixels."""
    found = tune(golden / "tiny.onnx", "cpu", seconds=0.01, variants=[rounded], min_psnr_db=0)
    (psnr,) = {item.psnr_db for item in found.trials if item.setting.model == str(rounded)}
    models = [sefa_runtime.load(path, "cpu") for path in (golden / "tiny.onnx", rounded)]
    inputs = as_arguments(tuning._compared_inputs(models[0].info))
    exact, rough = (model.run(**inputs).astype(float) for model in models)
    assert len(exact) == IMAGES
    assert not inputs["alpha"][0].any()
    assert inputs["alpha"][1:].all()
    worst = max(np.mean((exact - rough) ** 2, axis=(1, 2, 3)))
    assert psnr == pytest.approx(20 * np.log10(255) - 10 * np.log10(worst), abs=0.01)


def test_a_variant_that_misses_the_budget_is_passed_over(golden: Path, rounded: Path) -> None:
    found = tune(golden / "tiny.onnx", "cpu", seconds=0.01, variants=[rounded])
    assert [model.file for model in found.models] == [str(golden / "tiny.onnx"), str(rounded)]
    missed = [item for item in found.trials if item.setting.model == str(rounded)]
    assert [item.rounds for item in missed] == [1]
    assert 15 < missed[0].psnr_db < 40
    assert {found.one_caller.setting.model, found.many_callers.setting.model} == {str(golden / "tiny.onnx")}


def test_another_model_is_no_variant(golden: Path) -> None:
    with pytest.raises(InputError, match=r"style_z.onnx: not a variant of .*tiny.onnx: they differ in source_sha256"):
        tune(golden / "tiny.onnx", "cpu", variants=[golden / "style_z.onnx"])


def test_batches_that_take_too_long_are_left_out(golden: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "LONGEST_RUN_S", 0.0)
    assert {item.batch for item in tune(golden / "tiny.onnx", "cpu", seconds=0.01).trials} == {1}


def test_a_setting_that_does_not_run_is_told(golden: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load = load_instances

    def failing(path: Path, count: int, *arguments: object, **options: object) -> object:
        if count == 2:
            raise RunError("out of memory")
        return load(path, count, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(tuning, "load_instances", failing)
    found = tune(golden / "tiny.onnx", "cpu", seconds=0.01)
    assert found.failures == ("cpu, 2 instances of 1 thread: out of memory",)
    assert all(item.setting.instances == 1 for item in found.trials)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        *[({"seconds": seconds}, r"seconds must be in 0\.001\.\.86400") for seconds in (0.0, -1.0, float("nan"), 1e9)],
        *[({"min_psnr_db": decibels}, r"min_psnr_db must be in 0\.\.999") for decibels in (-1.0, float("nan"), 1e9)],
        *[({"batches": batches}, r"batches must be in 1\.\.4096") for batches in ((), (0,), (1, 10**9))],
        ({"provider": "nonesuch"}, "provider must be auto or one of"),
        ({"provider": ["cpu", "auto"]}, "provider must be auto, or one or several"),
    ],
)
def test_impossible_arguments(golden: Path, arguments: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        tune(golden / "tiny.onnx", **arguments)  # type: ignore[arg-type]


def test_a_provider_that_is_named_must_run(golden: Path) -> None:
    with pytest.raises(ProviderError, match="tensorrt"):
        tune(golden / "tiny.onnx", ["cpu", "tensorrt"], seconds=0.01)
