"""Runs through IO binding on the CPU, where the buffers are ordinary memory; the code is the one that runs on a GPU."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

import sefa_runtime
from sefa_runtime import Editor, InputError, RunError
from sefa_runtime.session import binding
from sefa_runtime.session.binding import BoundRuns, Feeds, can_bind
from sefa_runtime.session.session import build_session
from support.patience import PATIENCE_S

SHAPES = [(1, 1), (1, 0), (3, 2), (16, 1), (2, 5)]


def make_feeds(batch: int, edits: int, seed: int) -> Feeds:
    random = np.random.default_rng(seed)
    return {
        "z": random.standard_normal((batch, 6), np.float32),
        "direction": random.integers(4, size=(batch, edits)),
        "alpha": random.uniform(-3, 3, (batch, edits)).astype(np.float32),
    }


@pytest.fixture
def inference(golden: Path) -> onnxruntime.InferenceSession:
    return build_session(golden / "tiny.onnx", "cpu").inference


@pytest.fixture(params=["buffers", "graphs"])
def bound(request: pytest.FixtureRequest, inference: onnxruntime.InferenceSession) -> BoundRuns:
    """Both ways to keep buffers; the CPU captures no graphs, all the rest of that path runs."""
    return BoundRuns(inference, graphs=request.param == "graphs")


@pytest.mark.parametrize("model", ["tiny.onnx", "tiny_float32.onnx"])
@pytest.mark.parametrize("graphs", [False, True])
def test_images_are_those_of_the_plain_path(golden: Path, model: str, graphs: bool) -> None:
    plain = build_session(golden / model, "cpu")
    bound = BoundRuns(plain.inference, graphs=graphs)
    for seed in range(2):  # The first run of a shape makes its buffers, the second uses them again.
        for shape in SHAPES:
            feeds = make_feeds(*shape, seed)
            image = bound.run(feeds)
            expected = plain.run(feeds)
            assert image.dtype == expected.dtype
            np.testing.assert_array_equal(image, expected)


def test_an_image_is_not_overwritten_by_the_next_run(bound: BoundRuns) -> None:
    first = bound.run(make_feeds(2, 1, 0))
    kept = first.copy()
    second = bound.run(make_feeds(2, 1, 1))
    assert (second != kept).any()
    np.testing.assert_array_equal(first, kept)


def test_the_inputs_are_not_kept(bound: BoundRuns, inference: onnxruntime.InferenceSession) -> None:
    feeds = make_feeds(2, 1, 0)
    image = bound.run(feeds)
    feeds["z"][:] = 0
    np.testing.assert_array_equal(bound.run(make_feeds(2, 1, 0)), image)


def test_many_threads_get_the_answers_of_one(bound: BoundRuns, inference: onnxruntime.InferenceSession) -> None:
    jobs = [make_feeds(*SHAPES[seed % len(SHAPES)], seed) for seed in range(64)]
    expected = [inference.run(None, dict(feeds))[0] for feeds in jobs]
    with ThreadPoolExecutor(8) as pool:
        for answer, wanted in zip(pool.map(bound.run, jobs), expected, strict=True):
            np.testing.assert_array_equal(answer, wanted)


def test_runs_at_the_same_time_have_buffers_of_their_own(
    inference: onnxruntime.InferenceSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    bound = BoundRuns(inference)
    jobs = [make_feeds(2, 1, seed) for seed in range(2)]
    expected = [bound.run(feeds) for feeds in jobs]  # Buffers for one run at a time are there now.
    both_are_fed, run = threading.Barrier(2, timeout=PATIENCE_S), inference.run_with_iobinding

    def run_together(*arguments: Any) -> None:
        both_are_fed.wait()
        run(*arguments)

    monkeypatch.setattr(inference, "run_with_iobinding", run_together)
    with ThreadPoolExecutor(2) as pool:
        for answer, wanted in zip(pool.map(bound.run, jobs), expected, strict=True):
            np.testing.assert_array_equal(answer, wanted)


def test_captured_runs_wait_for_each_other(
    inference: onnxruntime.InferenceSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    bound = BoundRuns(inference, graphs=True)
    jobs = [make_feeds(2, 1, seed) for seed in range(2)]
    expected = [inference.run(None, dict(feeds))[0] for feeds in jobs]
    running, run = threading.Semaphore(1), inference.run_with_iobinding

    def run_alone(*arguments: Any) -> None:
        assert running.acquire(blocking=False), "two runs at once"
        time.sleep(0.05)
        run(*arguments)
        running.release()

    monkeypatch.setattr(inference, "run_with_iobinding", run_alone)
    with ThreadPoolExecutor(2) as pool:
        for answer, wanted in zip(pool.map(bound.run, jobs), expected, strict=True):
            np.testing.assert_array_equal(answer, wanted)


def test_buffers_are_made_once_for_a_shape(
    bound: BoundRuns, inference: onnxruntime.InferenceSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = count_bindings(inference, monkeypatch)
    for seed in range(3):
        bound.run(make_feeds(2, 1, seed))
        bound.run(make_feeds(3, 1, seed))
    assert len(made) == 2


def test_buffers_that_are_not_used_do_not_pile_up(inference: onnxruntime.InferenceSession) -> None:
    bound = BoundRuns(inference)
    for batch in range(1, binding.MAX_IDLE + 4):
        bound.run(make_feeds(batch, 1, 0))
    assert len(bound._idle) == binding.MAX_IDLE
    assert bound._idle[-1].shapes[0] == (binding.MAX_IDLE + 3, 6)


def test_each_shape_has_a_graph_up_to_a_limit(
    inference: onnxruntime.InferenceSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids: list[str] = []
    run = inference.run_with_iobinding

    def record(bound: object, options: onnxruntime.RunOptions) -> None:
        ids.append(options.get_run_config_entry("gpu_graph_id"))
        run(bound, options)

    monkeypatch.setattr(inference, "run_with_iobinding", record)
    monkeypatch.setattr(binding, "MAX_GRAPHS", 2)
    bound = BoundRuns(inference, graphs=True)
    for batch in (1, 2, 1, 3, 2, 3):
        feeds = make_feeds(batch, 1, batch)
        np.testing.assert_array_equal(bound.run(feeds), inference.run(None, dict(feeds))[0])
    assert ids == ["1", "2", "1", "-1", "2", "-1"]


def test_buffers_serve_again_after_a_failed_run(
    inference: onnxruntime.InferenceSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    bound = BoundRuns(inference)
    feeds = make_feeds(2, 1, 0)
    image = bound.run(feeds)
    with monkeypatch.context() as context:
        context.setattr(inference, "run_with_iobinding", failing)
        with pytest.raises(RuntimeError):
            bound.run(feeds)
    np.testing.assert_array_equal(bound.run(feeds), image)


def test_an_editor_binds_on_request(golden: Path, tiny: Editor, monkeypatch: pytest.MonkeyPatch) -> None:
    editor = sefa_runtime.load(golden / "tiny.onnx", "cpu", binding=True)
    assert tiny.session.bound is None
    monkeypatch.setattr(editor.session.inference, "run", failing)  # The plain path is not taken.
    images = editor.edit(seed=range(20), edits={"pose": 2.0, "light": -1.0})
    np.testing.assert_array_equal(images, tiny.edit(seed=range(20), edits={"pose": 2.0, "light": -1.0}))
    np.testing.assert_array_equal(
        editor.sweep(seed=[1, 2], direction="pose"), tiny.sweep(seed=[1, 2], direction="pose")
    )


def test_a_failed_bound_run_is_a_run_error(golden: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    editor = sefa_runtime.load(golden / "tiny.onnx", "cpu", binding=True)
    monkeypatch.setattr(editor.session.inference, "run_with_iobinding", failing)
    with pytest.raises(RunError, match="cpu: the run of 2 images failed: no luck"):
        editor.edit(seed=[1, 2])


def test_an_output_of_unknown_size_cannot_be_bound(golden: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Output:
        shape = ("batch", 8, "width", 3)

    monkeypatch.setattr(onnxruntime.InferenceSession, "get_outputs", lambda self: [Output])
    built = build_session(golden / "tiny.onnx", "cpu")
    assert not can_bind(built.inference)
    with pytest.raises(InputError, match=r"tiny.onnx: IO binding needs one output whose size is fixed"):
        build_session(golden / "tiny.onnx", "cpu", binding=True)


def failing(*arguments: Any) -> None:
    raise RuntimeError("no luck")


def count_bindings(inference: onnxruntime.InferenceSession, monkeypatch: pytest.MonkeyPatch) -> list[object]:
    made: list[object] = []
    make: Callable[[], object] = inference.io_binding

    def io_binding() -> object:
        made.append(make())
        return made[-1]

    monkeypatch.setattr(inference, "io_binding", io_binding)
    return made
