from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sefa_runtime import Editor, InputError, latents_from_seeds, load
from support.comparing import assert_same

Arrays = dict[str, np.ndarray[Any, Any]]


def test_a_seed_means_the_same_latent_everywhere() -> None:
    # Written down once: numpy's legacy stream is frozen, so these numbers hold on every machine.
    assert latents_from_seeds([7], 4)[0] == pytest.approx([1.6905257, -0.46593737, 0.03282016, 0.40751627], abs=1e-7)


def test_a_seeds_latent_does_not_depend_on_the_batch_it_is_in() -> None:
    np.testing.assert_array_equal(latents_from_seeds([3, 7, 5], 100)[1], latents_from_seeds([7], 100)[0])


@pytest.mark.parametrize("seeds", [(1, 2), range(1, 3), np.array([1, 2]), iter([1, 2]), [np.uint8(1), np.int64(2)]])
def test_seeds_come_in_any_sequence_of_integers(seeds: Any) -> None:
    np.testing.assert_array_equal(latents_from_seeds(seeds, 5), latents_from_seeds([1, 2], 5))


def test_latents_are_float32_rows() -> None:
    z = latents_from_seeds(range(3), 20)
    assert z.shape == (3, 20)
    assert z.dtype == np.float32


@pytest.mark.parametrize("seeds", [[], [-1], [2**32], [True], [0.5], [None], ["7"], [[1]]])
def test_what_is_no_seed_is_refused(seeds: Any) -> None:
    with pytest.raises(InputError, match="seed"):
        latents_from_seeds(seeds, 4)


def test_style_codes_are_rendered(golden: Path, style_codes: Editor, style_arrays: Arrays) -> None:
    edits = {name: style_arrays[name] for name in ("direction", "alpha")}
    assert_same(style_codes.run(codes=style_arrays["codes"], **edits), style_arrays["images_w+"])
    assert_same(load(golden / "style_w.onnx", "cpu").run(w=style_arrays["w"], **edits), style_arrays["images_w"])


def test_a_single_code_needs_no_batch_axis(style_codes: Editor, style_arrays: Arrays) -> None:
    np.testing.assert_array_equal(
        style_codes.run(codes=style_arrays["codes"][0]), style_codes.run(codes=style_arrays["codes"][:1])
    )


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
def test_what_a_model_of_codes_does_not_take_is_refused(
    style_codes: Editor, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        style_codes.edit(**arguments)


def test_a_sweep_of_codes_is_its_edits(style_codes: Editor, style_arrays: Arrays) -> None:
    swept = style_codes.sweep(codes=style_arrays["codes"], direction=2, alphas=[-1.0, 2.0])
    for column, alpha in enumerate((-1.0, 2.0)):
        assert_same(swept[:, column], style_codes.edit(codes=style_arrays["codes"], edits={2: alpha}))


def test_the_code_of_each_layer_is_not_taken_for_w(golden: Path, style_arrays: Arrays) -> None:
    editor = load(golden / "style_w.onnx", "cpu")
    layers = editor.info.num_layers
    w = style_arrays["w"]
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
