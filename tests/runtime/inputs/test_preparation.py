"""Models that take labels, truncation, style codes or fixed sizes."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sefa_runtime import Editor, InputError, load
from support.paths import GOLDEN

Arrays = dict[str, np.ndarray[Any, Any]]


@pytest.fixture(scope="module")
def arrays() -> Arrays:
    with np.load(GOLDEN / "style.npz") as loaded:
        return dict(loaded)


@pytest.fixture
def latents(golden: Path) -> Editor:
    """A model of z with labels in 0..5 and truncation as an input."""
    return load(golden / "style_z.onnx", "cpu")


@pytest.fixture
def codes(golden: Path) -> Editor:
    """A model of codes [8, 24]."""
    return load(golden / "style_w+.onnx", "cpu")


@pytest.fixture
def pinned(golden: Path) -> Editor:
    """The same for batches of 2 with 3 edits."""
    return load(golden / "style_pinned.onnx", "cpu")


def assert_same(images: np.ndarray[Any, Any], expected: np.ndarray[Any, Any]) -> None:
    assert images.shape == expected.shape
    assert np.abs(images.astype(int) - expected).max() <= 1


@pytest.mark.parametrize(
    ("half", "message"),
    [
        ({"alpha": 1.0}, "alpha without direction: an edit is both"),
        ({"direction": 0}, "direction without alpha: an edit is both"),
    ],
)
def test_half_an_edit_is_refused(latents: Editor, half: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        latents.run(np.ones((1, latents.info.z_dim)), label=0, truncation=1.0, **half)


def test_labels_and_truncation_go_to_each_image(latents: Editor, arrays: Arrays) -> None:
    names = ("z", "direction", "alpha", "label", "truncation")
    assert_same(latents.run(**{name: arrays[name] for name in names}), arrays["images_z"])


def test_one_label_and_one_truncation_go_to_every_image(latents: Editor, arrays: Arrays) -> None:
    z = arrays["z"]
    np.testing.assert_array_equal(
        latents.run(z, label=5, truncation=0.7), latents.run(z, label=[5] * 3, truncation=[0.7] * 3)
    )


def test_truncation_is_off_unless_given(latents: Editor, arrays: Arrays) -> None:
    z = arrays["z"]
    np.testing.assert_array_equal(latents.run(z, label=1), latents.run(z, label=1, truncation=1.0))
    assert (latents.run(z, label=1) != latents.run(z, label=1, truncation=0.3)).any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "a label in 0..5 is needed"),
        ({"label": 6}, "label must be in 0..5, got 6"),
        ({"label": [-1]}, "label must be in 0..5, got -1"),
        ({"label": [1, 2]}, "label must be one number or one for each of 3 images"),
        ({"label": 1.5}, "label must be integers"),
        ({"label": 1, "truncation": np.nan}, "truncation must be finite"),
        ({"label": 1, "truncation": [1, 1]}, "truncation must be one number or one for each of 3 images"),
        ({"label": 1, "w": np.zeros((3, 24))}, "give z, got z and w"),
    ],
)
def test_conditions_that_do_not_fit_are_refused(
    latents: Editor, arrays: Arrays, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        latents.run(arrays["z"], **arguments)


def test_style_codes_are_drawn(golden: Path, codes: Editor, arrays: Arrays) -> None:
    edits = {name: arrays[name] for name in ("direction", "alpha")}
    assert_same(codes.run(codes=arrays["codes"], **edits), arrays["images_w+"])
    assert_same(load(golden / "style_w.onnx", "cpu").run(w=arrays["w"], **edits), arrays["images_w"])


def test_a_single_code_needs_no_batch_axis(codes: Editor, arrays: Arrays) -> None:
    np.testing.assert_array_equal(codes.run(codes=arrays["codes"][0]), codes.run(codes=arrays["codes"][:1]))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"seed": 7}, "give codes, got seed"),
        ({"z": np.zeros((1, 24))}, "give codes, got z"),
        ({}, "give codes"),
        (
            {"codes": np.zeros((1, 24))},
            r"codes must have shape \[batch, 8, 24\], got \[1, 24\]: w must be repeated for each layer",
        ),
        ({"codes": np.zeros((1, 8, 24)), "label": 0}, "it takes no label beside a code"),
        ({"codes": np.zeros((1, 8, 24)), "truncation": 0.7}, "psi 1 was fixed"),
    ],
)
def test_what_a_model_of_codes_does_not_take_is_refused(codes: Editor, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        codes.edit(**arguments)


def test_a_sweep_of_codes_is_its_edits(codes: Editor, arrays: Arrays) -> None:
    swept = codes.sweep(codes=arrays["codes"], direction=2, alphas=[-1.0, 2.0])
    for column, alpha in enumerate((-1.0, 2.0)):
        assert_same(swept[:, column], codes.edit(codes=arrays["codes"], edits={2: alpha}))


def test_fixed_sizes_are_filled_up(pinned: Editor, codes: Editor, arrays: Arrays) -> None:
    for count in (1, 2, 3):
        for edits in (0, 1, 2):
            inputs = {
                "codes": arrays["codes"][:count],
                "direction": arrays["direction"][:count, :edits],
                "alpha": arrays["alpha"][:count, :edits],
            }
            assert_same(pinned.run(**inputs), codes.run(**inputs))
    assert_same(
        pinned.edit(codes=arrays["codes"], edits={1: [1.0, 2.0, 3.0]}),
        codes.edit(codes=arrays["codes"], edits={1: [1.0, 2.0, 3.0]}),
    )


def test_more_edits_than_were_fixed_are_refused(pinned: Editor, arrays: Arrays) -> None:
    with pytest.raises(InputError, match="exported for 3 edits at once, got 4"):
        pinned.run(codes=arrays["codes"], direction=np.zeros((3, 4), int), alpha=np.zeros((3, 4)))


def test_the_code_of_each_layer_is_not_taken_for_w(golden: Path, arrays: Arrays) -> None:
    editor = load(golden / "style_w.onnx", "cpu")
    layers = editor.info.num_layers
    w = arrays["w"]
    equal = np.repeat(w[:, None], layers, axis=1)  # [N, L, D]
    np.testing.assert_array_equal(editor.run(w=equal), editor.run(w=w))
    np.testing.assert_array_equal(editor.edit(w=equal[:1], edits={0: 1.0}), editor.edit(w=w[0], edits={0: 1.0}))
    different = equal.copy()
    different[0, 1] += 1
    with pytest.raises(
        InputError, match=r"got \[3, 8, 24\]: codes that differ from layer to layer need a model of w\+"
    ):
        editor.run(w=different)
    # As many as there are layers: images, as any other number, but it may have been meant otherwise.
    for given in (different[0], list(different[0]), different[0].tolist()):
        with pytest.warns(UserWarning, match=r"w of shape \[8, 24\] is taken as 8 images") as warned:
            images = editor.edit(w=given)
        assert warned[0].filename == __file__
        np.testing.assert_array_equal(images, editor.edit(w=different[0][:, None]))
    with pytest.warns(UserWarning, match="8 images"):
        editor.run(w=different[0])
    with pytest.warns(UserWarning, match="8 images"):
        editor.sweep(w=different[0], alphas=[0.0])
