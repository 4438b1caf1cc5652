import pickle
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sefa_runtime
from sefa_runtime import Editor, InputError, latents_from_seeds

Arrays = dict[str, np.ndarray[Any, Any]]


def test_images_are_the_ones_that_pytorch_computed(tiny: Editor, tiny_arrays: Arrays) -> None:
    image = tiny.run(tiny_arrays["z"], tiny_arrays["direction"], tiny_arrays["alpha"])
    assert image.dtype == np.uint8
    # One level: a value on a rounding border may fall on its other side.
    np.testing.assert_allclose(image.astype(int), tiny_arrays["uint8"].astype(int), atol=1)


def test_float_images_are_the_ones_that_pytorch_computed(golden: Path, tiny_arrays: Arrays) -> None:
    editor = sefa_runtime.load(golden / "tiny_float32.onnx", provider="cpu")
    image = editor.run(tiny_arrays["z"], tiny_arrays["direction"], tiny_arrays["alpha"])
    assert image.shape == (3, 3, 8, 4)
    np.testing.assert_allclose(image, tiny_arrays["float32"], atol=1e-5)


def test_edit_gives_uint8_images_of_a_float_model(golden: Path, tiny: Editor) -> None:
    images = sefa_runtime.load(golden / "tiny_float32.onnx", provider="cpu").edit(seed=[1, 2], edits={"pose": 2})
    np.testing.assert_allclose(images.astype(int), tiny.edit(seed=[1, 2], edits={"pose": 2}).astype(int), atol=1)


def test_alpha_zero_is_the_unedited_image_for_every_direction(tiny: Editor) -> None:
    unedited = tiny.edit(seed=7)
    for index in range(len(tiny.info.directions)):
        np.testing.assert_array_equal(tiny.edit(seed=7, edits={index: 0.0}), unedited)


def test_every_direction_changes_the_image(tiny: Editor) -> None:
    unedited = tiny.edit(seed=7)
    assert all((tiny.edit(seed=7, edits={name: 2.0}) != unedited).any() for name in tiny.info.names)


def test_the_order_of_edits_plays_no_part(tiny: Editor) -> None:
    one = tiny.edit(seed=7, edits={"pose": 2.0, "light": -1.0})
    other = tiny.edit(seed=7, edits={"light": -1.0, "pose": 2.0})
    np.testing.assert_allclose(one.astype(int), other.astype(int), atol=1)  # Floating point sums in another order.


def test_an_edit_is_a_step_of_the_latent(tiny: Editor) -> None:
    # Two halves of a step are the step: the edit is linear in z.
    z = latents_from_seeds([7], 6)
    twice = tiny.run(z, [[0, 0]], [[1.0, 1.0]])
    np.testing.assert_allclose(twice.astype(int), tiny.run(z, 0, 2.0).astype(int), atol=1)


@pytest.mark.parametrize("batch", [2, 7, 16])
def test_an_image_does_not_depend_on_the_batch_it_is_in(golden: Path, batch: int) -> None:
    editor = sefa_runtime.load(golden / "tiny_float32.onnx", provider="cpu")
    z = latents_from_seeds(range(batch), 6)
    together = editor.run(z, 1, 2.0)
    alone = np.concatenate([editor.run(row, 1, 2.0) for row in z])
    np.testing.assert_allclose(together, alone, atol=1e-5)


@pytest.mark.parametrize(
    ("direction", "alpha"),
    [
        (2, 1.5),
        ([2, 2, 2], 1.5),
        (2, [1.5, 1.5, 1.5]),
        ([[2]], [[1.5]]),
        ([[2], [2], [2]], 1.5),
        (np.int32(2), np.float64(1.5)),
        (np.full((3, 1), 2, np.uint8), np.full((3, 1), 1.5, np.float16)),
    ],
)
def test_numbers_and_rows_are_broadcast(tiny: Editor, direction: Any, alpha: Any) -> None:
    z = latents_from_seeds(range(3), 6)
    expected = tiny.run(z, np.full((3, 1), 2), np.full((3, 1), 1.5))
    np.testing.assert_array_equal(tiny.run(z, direction, alpha), expected)


def test_one_dimension_is_one_edit_per_image_but_several_edits_of_one_image(tiny: Editor) -> None:
    z = latents_from_seeds([0, 1], 6)
    each = tiny.run(z, [0, 1], [2.0, -1.0])
    np.testing.assert_array_equal(each[1], tiny.run(z[1], 1, -1.0)[0])
    both = tiny.run(z[0], [0, 1], [2.0, -1.0])
    np.testing.assert_array_equal(both, tiny.edit(seed=0, edits={"pose": 2.0, "light": -1.0}))


def test_rows_of_edits_for_more_images_than_there_are_are_refused(tiny: Editor) -> None:
    with pytest.raises(InputError, match="shape"):
        tiny.run(latents_from_seeds([0], 6), [[0], [1], [2]], [[1.0], [1.0], [1.0]])


@pytest.mark.parametrize("seed", [7, np.int64(7), np.array(7), [7], (7,), np.array([7]), range(7, 8)])
def test_a_seed_comes_in_any_form_of_an_integer(tiny: Editor, seed: Any) -> None:
    np.testing.assert_array_equal(tiny.edit(seed=seed), tiny.edit(seed=7))


def test_many_images_are_those_of_one_at_a_time(tiny: Editor) -> None:
    images = tiny.edit(seed=range(40), edits={"pose": np.linspace(-3, 3, 40).tolist()})
    assert images.shape == (40, 8, 4, 3)
    for index in (0, 15, 16, 39):
        alpha = float(np.linspace(-3, 3, 40)[index])
        alone = tiny.edit(seed=index, edits={"pose": alpha})[0]
        np.testing.assert_allclose(images[index].astype(int), alone.astype(int), atol=1)


def test_no_edits_at_all(tiny: Editor) -> None:
    z = latents_from_seeds([0, 1], 6)
    np.testing.assert_array_equal(tiny.run(z, np.zeros((2, 0), int), np.zeros((2, 0))), tiny.edit(seed=[0, 1]))
    np.testing.assert_array_equal(tiny.run(z[0], [], []), tiny.edit(seed=0))


@pytest.mark.parametrize(
    ("z", "message"),
    [
        (np.zeros((2, 5)), r"z must have shape \[batch, 6\], got \[2, 5\]"),
        (np.zeros((0, 6)), "z must have shape"),
        (np.zeros((1, 2, 6)), "z must have shape"),
        (np.full((1, 6), np.nan), "z must be finite"),
        (np.full((1, 6), -np.inf), "z must be finite"),
        (np.full((1, 6), 1e300), "z must be finite"),
        ([[1.0], [1.0, 2.0]], "unequal length"),
        (["a"] * 6, "z must be numbers"),
        (None, "give z"),
        (np.zeros((1, 6), complex), "z must be numbers"),
    ],
)
def test_a_latent_that_does_not_fit_is_refused(tiny: Editor, z: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        tiny.run(z, 0, 1.0)


@pytest.mark.parametrize(
    ("direction", "alpha", "message"),
    [
        (4, 1.0, r"direction must be in 0\.\.3, got 4"),
        (-1, 1.0, r"direction must be in 0\.\.3, got -1"),
        ([[0, 9]], [[1.0, 1.0]], "got 9"),
        (2**70, 1.0, "direction must be integers"),
        (0.5, 1.0, "direction must be integers, got float64"),
        (True, 1.0, "direction must be integers, got bool"),
        (0, np.nan, "alpha must be finite"),
        (0, [1.0, np.inf], "alpha must be finite"),
        (0, 1e39, "alpha must be finite"),
        ([0, 1, 2], 1.0, "shape"),
        ([[0, 1]], [[1.0, 1.0, 1.0]], "shape"),
        (np.zeros((2, 1, 1), int), 1.0, "shape"),
        (np.zeros((5, 1), int), 1.0, "shape"),
    ],
)
def test_an_edit_that_does_not_fit_is_refused(tiny: Editor, direction: Any, alpha: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        tiny.run(latents_from_seeds([0, 1], 6), direction, alpha)


def test_the_inputs_are_not_changed(tiny: Editor) -> None:
    z, direction, alpha = latents_from_seeds([0], 6), np.zeros((1, 1), np.int64), np.ones((1, 1), np.float32)
    copies = z.copy(), direction.copy(), alpha.copy()
    tiny.run(z, direction, alpha)
    for array, copy in zip((z, direction, alpha), copies, strict=True):
        np.testing.assert_array_equal(array, copy)


def test_edit_by_name_and_by_index_are_the_same(tiny: Editor) -> None:
    np.testing.assert_array_equal(tiny.edit(seed=7, edits={"light": 2.0}), tiny.edit(seed=7, edits={1: 2.0}))


def test_edit_takes_one_alpha_per_image(tiny: Editor) -> None:
    images = tiny.edit(seed=[1, 2], edits={"pose": [1.0, -2.0], "light": 0.5})
    np.testing.assert_array_equal(images[1], tiny.edit(seed=2, edits={"pose": -2.0, "light": 0.5})[0])


def test_edit_takes_latents_of_ones_own(tiny: Editor) -> None:
    np.testing.assert_array_equal(tiny.edit(z=latents_from_seeds([7], 6)[0]), tiny.edit(seed=7))


@pytest.mark.parametrize(
    ("seed", "z", "edits", "message"),
    [
        (None, None, {}, "either seed or z"),
        (1, np.zeros(6), {}, "either seed or z"),
        (1, None, {"smile": 1.0}, r"direction must be in 0..3 or a name \(pose, light, .*\), got 'smile'"),
        (1, None, {4: 1.0}, r"direction must be in 0..3"),
        (1, None, {-1: 1.0}, r"direction must be in 0..3"),
        (1, None, {"pose": 1.0, 0: 1.0}, "given twice"),
        (1, None, {"pose": [1.0, 2.0]}, "one number or one for each of 1"),
        (1, None, {"pose": "much"}, "alpha of direction pose must be numbers"),
        (1, None, {"pose": float("nan")}, "alpha of direction pose must be finite"),
        (-1, None, {}, "a seed must be"),
        (1.5, None, {}, "a seed must be"),
        ("abc", None, {}, "a seed must be"),
        ([None], None, {}, "a seed must be"),
        (np.array([[1]]), None, {}, "a seed must be"),
        ([], None, {}, "at least one seed"),
    ],
)
def test_an_edit_that_makes_no_sense_is_refused(
    tiny: Editor, seed: Any, z: Any, edits: Mapping[str | int, float | Sequence[float]], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        tiny.edit(seed=seed, z=z, edits=edits)


def test_sweep_moves_along_one_direction(tiny: Editor) -> None:
    images = tiny.sweep(seed=[1, 2], direction="light", alphas=[-2.0, 0.0, 2.0])
    assert images.shape == (2, 3, 8, 4, 3)
    np.testing.assert_array_equal(images[1, 2], tiny.edit(seed=2, edits={"light": 2.0})[0])
    np.testing.assert_array_equal(images[:, 1], tiny.edit(seed=[1, 2]))


def test_sweep_covers_the_suggested_range_by_itself(tiny: Editor) -> None:
    images = tiny.sweep(seed=1, direction=1)
    low, high = tiny.info.directions[1].alpha_range
    np.testing.assert_array_equal(images[0, 0], tiny.edit(seed=1, edits={1: low})[0])
    np.testing.assert_array_equal(images[0, -1], tiny.edit(seed=1, edits={1: high})[0])


def test_a_sweep_of_many_images_reports_its_progress(tiny: Editor) -> None:
    shares: list[float] = []
    images = tiny.sweep(seed=range(5), direction=0, alphas=[-1.0] * 7, progress=shares.append)
    assert images.shape[:2] == (5, 7)
    assert shares == sorted(shares)
    assert shares[-1] == 1.0


@pytest.mark.parametrize("alphas", [[], [[1.0]], [float("inf")], ["a"]])
def test_alphas_that_make_no_sense_are_refused(tiny: Editor, alphas: Any) -> None:
    with pytest.raises(InputError, match="alphas must be"):
        tiny.sweep(seed=1, alphas=alphas)


@pytest.mark.parametrize("binding", [False, True])
def test_many_threads_get_the_answers_of_one(golden: Path, binding: bool) -> None:
    tiny = sefa_runtime.load(golden / "tiny.onnx", "cpu", binding=binding)
    expected = [tiny.edit(seed=seed, edits={"pose": 1.0}) for seed in range(32)]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda seed: tiny.edit(seed=seed, edits={"pose": 1.0}), range(32)))
    for answer, wanted in zip(answers, expected, strict=True):
        np.testing.assert_array_equal(answer, wanted)


@pytest.mark.parametrize("binding", [False, True])
def test_many_editors_in_one_process_give_the_same_answers(golden: Path, tiny: Editor, binding: bool) -> None:
    editors = [
        sefa_runtime.load(golden / "tiny.onnx", "cpu", threads=threads, binding=binding) for threads in (1, 2, 3, 4)
    ]
    expected = [tiny.edit(seed=seed, edits={"pose": 1.0}) for seed in range(32)]
    with ThreadPoolExecutor(8) as pool:
        answers = pool.map(lambda seed: editors[seed % 4].edit(seed=seed, edits={"pose": 1.0}), range(32))
        for answer, wanted in zip(answers, expected, strict=True):
            np.testing.assert_array_equal(answer, wanted)
    del editors[:3]  # The others go on when some are gone.
    np.testing.assert_array_equal(editors[0].edit(seed=0, edits={"pose": 1.0}), expected[0])


def test_an_editor_says_what_it_is(tiny: Editor) -> None:
    assert tiny.provider == "cpu"
    assert tiny.info.names == ("pose", "light", "direction-2", "direction-3")
    assert tiny.info.image_shape == (8, 4, 3)
    assert tiny.info.parity.images == 30


def test_sizes_can_be_fixed_when_a_model_is_loaded(golden: Path, tiny: Editor, tiny_arrays: Arrays) -> None:
    fixed = sefa_runtime.load(golden / "tiny.onnx", "cpu", batch=2, num_edits=3)
    assert (fixed.info.batch, fixed.info.num_edits) == (2, 3)
    assert [value.shape for value in fixed.session.get_inputs()] == [[2, 6], [2, 3], [2, 3]]
    seeds = [1, 2, 3]  # One run and a padded one.
    edits: dict[str | int, float] = {"pose": 2.0, "light": -1.0}
    np.testing.assert_allclose(fixed.edit(seeds, edits=edits).astype(int), tiny.edit(seeds, edits=edits), atol=1)
    np.testing.assert_allclose(fixed.edit(seeds).astype(int), tiny.edit(seeds), atol=1)
    with pytest.raises(InputError, match="takes 3 edits at once, got 4"):
        fixed.run(tiny_arrays["z"][:1], [0, 1, 2, 3], [1.0, 1.0, 1.0, 1.0])
    again = pickle.loads(pickle.dumps(fixed))
    assert again.info.batch == 2


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"batch": 0}, r"batch must be in 1\.\.4096, got 0"),
        ({"batch": True}, "batch must be in"),
        ({"num_edits": -1}, r"num_edits must be in 0\.\.4096"),
        ({"batch": 3}, "exported with batch 2, which cannot be 3"),
    ],
)
def test_impossible_sizes(golden: Path, sizes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        sefa_runtime.load(golden / "style_static.onnx", "cpu", **sizes)
    assert sefa_runtime.load(golden / "style_static.onnx", "cpu", batch=2).info.batch == 2
