from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sefa_runtime import load
from sefa_runtime.inputs.examples import as_arguments, neutral_inputs, random_inputs, reference_inputs, seeded_latents
from sefa_runtime.inputs.latents import latents_from_seeds
from sefa_runtime.model.reading import read_info
from sefa_runtime.model.signature import OptionalInput

MODELS = ("tiny", "style_z", "style_w", "style_w+", "style_static")


@pytest.mark.parametrize("model", MODELS)
def test_any_model_takes_them(golden: Path, model: str) -> None:
    editor = load(golden / f"{model}.onnx", "cpu")
    signature, random = editor.info.signature, np.random.default_rng(0)
    for feeds in (
        neutral_inputs(signature, 2, 3),
        random_inputs(signature, random, 2, 3),
        random_inputs(signature, random, 2, 3, seeded_latents(signature, 2)),
    ):
        image = editor.infer(feeds)
        np.testing.assert_array_equal(editor.run(**as_arguments(feeds)), image)


def test_neutral_inputs_edit_nothing(golden: Path) -> None:
    editor = load(golden / "style_z.onnx", "cpu")
    feeds = neutral_inputs(editor.info.signature, 1, 2)
    np.testing.assert_array_equal(editor.infer(feeds), editor.run(np.zeros((1, 24)), label=0))


def test_random_inputs_stay_within_their_bounds(golden: Path) -> None:
    info = read_info(golden / "style_z.onnx")
    feeds = random_inputs(info.signature, np.random.default_rng(0), 1000, 5)
    assert set(feeds["direction"].ravel()) == set(range(len(info.directions)))
    assert set(feeds["label"]) == set(range(info.num_classes))
    assert -3 <= feeds["alpha"].min() < -2.9
    assert 2.9 < feeds["alpha"].max() <= 3
    assert feeds["truncation"].min() >= 0.5
    assert feeds["truncation"].max() <= 1


def test_seeded_latents_are_those_of_the_seeds(golden: Path) -> None:
    signature = read_info(golden / "tiny.onnx").signature
    np.testing.assert_array_equal(seeded_latents(signature, 3), latents_from_seeds([0, 1, 2], 6))


def test_the_reference_images_see_the_whole_range_of_an_optional_input(golden: Path) -> None:
    strength = OptionalInput("noise_strength", default=1.0, low=0.0, high=3.0)
    info = replace(read_info(golden / "tiny.onnx"), optional_inputs=(strength,))
    assert reference_inputs(info)["noise_strength"].tolist() == [0, 1, 2, 3]


def test_a_model_of_no_edits_has_none_in_its_reference(golden: Path) -> None:
    feeds = reference_inputs(replace(read_info(golden / "tiny.onnx"), num_edits=0))
    assert (feeds["direction"].shape, feeds["alpha"].shape) == ((4, 0), (4, 0))
