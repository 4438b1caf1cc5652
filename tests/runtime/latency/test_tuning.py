import threading
import time
from functools import partial
from pathlib import Path

import pytest

from sefa_runtime import InputError, RunError
from sefa_runtime.instances import load_instances
from sefa_runtime.latency import tuning
from sefa_runtime.latency.tuning import (
    Setting,
    Trial,
    best_for_many_callers,
    best_for_one_caller,
    candidates,
    run_together,
    tune,
)
from support.patience import PATIENCE_S

SPIN = "session.intra_op.spin_duration_us"


@pytest.mark.parametrize("cores", [1, 2, 6, 8])
def test_every_setting_keeps_to_the_cores(cores: int) -> None:
    settings = candidates("cpu", cores)
    assert settings[0] == Setting(1, cores)  # The default.
    assert Setting(1, 1) in settings
    assert (Setting(cores, 1) in settings) == (cores > 1 or settings == [Setting(1, 1)])
    assert len({str(setting) for setting in settings}) == len(settings)
    assert all(setting.instances * (setting.threads or 0) <= cores for setting in settings)


def test_a_gpus_settings_begin_with_the_default() -> None:
    for provider in ("cuda", "tensorrt", "dml"):
        assert candidates(provider, 8)[0] == Setting()
    assert any(setting.options.get("prefer_nhwc") for setting in candidates("cuda", 8))


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
    return Trial(Setting(instances, 1), batch, 10, p50_ms, images_per_second)


def test_the_best_for_one_caller_is_the_shortest_run_of_one_image() -> None:
    slow, fast, same = trial(1, 1, 12.0, 80), trial(1, 1, 10.1, 99), trial(1, 1, 10.0, 100)
    trials = [slow, fast, same, trial(1, 8, 9.0, 800), trial(2, 1, 8.0, 200)]
    assert best_for_one_caller(trials) == fast  # As good as the best, and before it.


def test_the_best_for_many_callers_has_the_most_images() -> None:
    trials = [trial(1, 1, 10, 100), trial(1, 8, 70, 118), trial(2, 1, 17, 117), trial(2, 8, 130, 120)]
    assert best_for_many_callers(trials) == trials[1]
    assert best_for_many_callers(trials[:1]) == trials[0]


@pytest.mark.parametrize(("name", "batches"), [("tiny", {1, 4, 16}), ("style_z", {1, 4, 16}), ("style_static", {2})])
def test_a_model_is_measured(golden: Path, monkeypatch: pytest.MonkeyPatch, name: str, batches: set[int]) -> None:
    monkeypatch.setattr(tuning, "usable_cores", lambda: 2)
    shares: list[float] = []
    found = tune(golden / f"{name}.onnx", "cpu", seconds=0.03, progress=shares.append)
    assert found.provider == "cpu"
    assert {item.batch for item in found.trials} == batches
    assert len(found.trials) == len(candidates("cpu", 2)) * len(batches)
    assert all(item.runs >= tuning.ROUNDS and item.p50_ms > 0 and item.images_per_second > 0 for item in found.trials)
    assert found.one_caller in found.trials
    assert found.many_callers in found.trials
    assert not found.failures
    assert shares == sorted(shares)


def test_what_the_caller_set_is_not_varied(golden: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "usable_cores", lambda: 2)
    found = tune(golden / "tiny.onnx", "cpu", {SPIN: 500}, seconds=0.01)
    assert all(SPIN not in item.setting.options for item in found.trials)


def test_batches_that_take_too_long_are_left_out(golden: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "LONGEST_RUN_S", 0.0)
    assert {item.batch for item in tune(golden / "tiny.onnx", "cpu", seconds=0.01).trials} == {1}


def test_a_setting_that_does_not_run_is_told(golden: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load = load_instances

    def failing(path: Path, count: int, *arguments: object, **options: object) -> object:
        if count == 2:
            raise RunError("out of memory")
        return load(path, count, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(tuning, "usable_cores", lambda: 2)
    monkeypatch.setattr(tuning, "load_instances", failing)
    found = tune(golden / "tiny.onnx", "cpu", seconds=0.01)
    assert found.failures == ("2 instances of 1 thread: out of memory",)
    assert all(item.setting.instances == 1 for item in found.trials)


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan"), 1e9])
def test_impossible_seconds(golden: Path, seconds: float) -> None:
    with pytest.raises(InputError, match=r"seconds must be in 0\.001\.\.86400"):
        tune(golden / "tiny.onnx", "cpu", seconds=seconds)
