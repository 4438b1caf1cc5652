"""Models that are edited from a late layer on: the layers before run once for each latent."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sefa_runtime
from sefa_runtime import Editor, InputError, ModelFileError
from sefa_runtime.instances import load_instances
from sefa_runtime.latency.measure import run_of_new_latents
from sefa_runtime.session.prefix_cache import PrefixCache
from support.descriptions import change_description

Arrays = dict[str, np.ndarray[tuple[int, ...], np.dtype[Any]]]


def load(path: Path, **arguments: Any) -> Editor:
    return sefa_runtime.load(path, "cpu", threads=1, **arguments)


@pytest.fixture
def late(golden: Path) -> Editor:
    """An editor of w [24], edited in layers 5 to 7."""
    return load(golden / "style_late.onnx")


@pytest.fixture
def whole(golden: Path) -> Editor:
    """The same, as one graph."""
    return load(golden / "style_late.onnx", prefix_mb=0)


@pytest.fixture
def computed(late: Editor, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """For each run of the prefix, how many latents it was given."""
    assert late.session.prefix is not None
    batches: list[int] = []
    inference = late.session.prefix.inference
    run = inference.run

    def counted(outputs: Any, feeds: dict[str, Any], options: Any) -> Any:
        batches.append(len(feeds["w"]))
        return run(outputs, feeds, options)

    monkeypatch.setattr(inference, "run", counted)
    return batches


def codes(count: int, seed: int = 0) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.random.default_rng(seed).standard_normal((count, 1, 24), np.float32)


def test_images_are_those_of_the_whole_graph(late: Editor, whole: Editor) -> None:
    assert late.session.prefix is not None
    assert whole.session.prefix is None
    for seed, (batch, edits) in enumerate([(1, 1), (5, 2), (16, 0), (5, 3), (1, 1)]):
        random = np.random.default_rng(seed)
        call: dict[str, Any] = {
            "w": codes(batch, seed % 4),
            "direction": random.integers(3, size=(batch, edits)),
            "alpha": random.uniform(-3, 3, (batch, edits)),
        }
        for _ in range(2):
            np.testing.assert_array_equal(late.run(**call), whole.run(**call))
    assert late.session.placement == whole.session.placement


def test_a_latent_is_computed_once(late: Editor, computed: list[int]) -> None:
    w = codes(20)
    late.sweep(w=w[:1], alphas=np.linspace(-3, 3, 40).tolist())
    late.edit(w=w[:1], edits={1: 2.0, 2: -1.0})
    assert computed == [1]
    late.sweep(w=w, direction=2, alphas=[-1, 0, 1])
    assert sum(computed) == 20


def test_a_batch_of_equal_latents_is_one_latent(late: Editor, computed: list[int]) -> None:
    w = codes(2)[[0, 1, 0, 0, 1]]
    images = late.edit(w=w, edits={0: [0, 0, 1, 2, 3]})
    assert computed == [2]
    np.testing.assert_array_equal(images[0], late.edit(w=w[:1])[0])
    assert len(np.unique(images.reshape(5, -1), axis=0)) == 5


def test_memory_is_bounded_and_the_oldest_goes(golden: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = load(golden / "style_late.onnx").info
    assert info.prefix is not None
    each = sum(tensor.bytes for tensor in info.prefix.tensors)
    editor = load(golden / "style_late.onnx", prefix_mb=3.5 * each / 1e6)
    cache = editor.session.prefix
    assert isinstance(cache, PrefixCache)
    for index in [0, 1, 2, 0, 3]:
        editor.edit(w=codes(4)[index : index + 1])
    kept = {np.frombuffer(key, np.float32).tobytes() for key in cache.latents()}
    assert kept == {codes(4)[index].tobytes() for index in (2, 0, 3)}
    editor.edit(w=codes(16, 1))  # More than there is room for.
    assert len(cache.latents()) == 3


@pytest.mark.parametrize(("threads", "editors", "latents"), [(1, 1, 3), (2, 2, 1)])
def test_instances_share_the_memory(golden: Path, threads: int, editors: int, latents: int) -> None:
    info = load(golden / "style_late.onnx").info
    assert info.prefix is not None
    size_mb = 3.5 * sum(tensor.bytes for tensor in info.prefix.tensors) / 1e6
    different = set(load_instances(golden / "style_late.onnx", 2, "cpu", threads=threads, prefix_mb=size_mb))
    assert len(different) == editors
    for editor in different:
        editor.edit(w=codes(4))
        assert isinstance(editor.session.prefix, PrefixCache)
        assert len(editor.session.prefix.latents()) == latents


def test_measuring_forgets(late: Editor, computed: list[int]) -> None:
    run = run_of_new_latents(late, {"w": codes(2)})
    run()
    run()
    assert computed == [2, 2]


def test_threads_share_it(late: Editor, whole: Editor) -> None:
    w = codes(6)
    calls = [(index % 6, float(index % 5)) for index in range(60)]
    together = threading.Barrier(4)

    def edit(call: tuple[int, float]) -> Any:
        return late.edit(w=w[call[0] : call[0] + 1], edits={0: call[1]})

    with ThreadPoolExecutor(4, initializer=together.wait) as pool:
        images = [*pool.map(edit, calls)]
    for (index, alpha), image in zip(calls, images, strict=True):
        np.testing.assert_array_equal(image, whole.edit(w=w[index : index + 1], edits={0: alpha}))


def test_binding_runs_the_whole_graph(golden: Path, whole: Editor) -> None:
    bound = load(golden / "style_late.onnx", binding=True)
    assert bound.session.prefix is None
    np.testing.assert_array_equal(bound.edit(w=codes(2), edits={0: 1}), whole.edit(w=codes(2), edits={0: 1}))


def test_a_model_without_a_prefix_runs_whole(golden: Path) -> None:
    assert load(golden / "style_w.onnx").session.prefix is None


@pytest.mark.parametrize("size", [-1.0, float("nan"), float("inf")])
def test_sizes_that_are_none(golden: Path, size: float) -> None:
    with pytest.raises(InputError, match="prefix_mb must be a number of MB, 0 or more"):
        load(golden / "style_late.onnx", prefix_mb=size)


Change = Callable[[dict[str, Any]], object]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda prefix: prefix.update(nodes=3), "cannot load"),
        (lambda prefix: prefix.update(nodes=10**6), "cannot"),
        (lambda prefix: prefix.update(nodes=0), "prefix is empty"),
        (lambda prefix: prefix.update(tensors=[]), "prefix is empty"),
        (lambda prefix: prefix["tensors"][0].update(dtype="object"), "of another kind"),
        (lambda prefix: prefix["tensors"][0].update(name="nothing"), "cannot load"),
        (lambda prefix: prefix["tensors"].pop(), "cannot load"),
    ],
)
def test_a_description_that_lies(golden: Path, tmp_path: Path, change: Change, message: str) -> None:
    for name in ("style.safetensors", "style_late.onnx"):
        (tmp_path / name).write_bytes((golden / name).read_bytes())
    model = change_description(golden / "style_late.onnx", tmp_path / "lies.onnx", lambda info: change(info["prefix"]))
    with pytest.raises(ModelFileError, match=message):
        load(model)


def test_shapes_that_lie_fail_in_one_line(golden: Path, tmp_path: Path) -> None:
    (tmp_path / "style.safetensors").write_bytes((golden / "style.safetensors").read_bytes())

    def shrink(info: dict[str, Any]) -> None:
        for tensor in info["prefix"]["tensors"]:
            tensor["shape"] = [1] * len(tensor["shape"])

    model = change_description(golden / "style_late.onnx", tmp_path / "lies.onnx", shrink)
    with pytest.raises((ModelFileError, sefa_runtime.RunError, InputError)) as caught:
        load(model).edit(w=codes(1))
    assert "\n" not in str(caught.value)
