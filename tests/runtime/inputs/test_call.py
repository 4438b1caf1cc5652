from dataclasses import replace

import numpy as np
import pytest

from sefa_runtime import Editor, InputError
from sefa_runtime.inputs.call import Call, Sweep, prepare
from sefa_runtime.model.info import ModelInfo
from sefa_runtime.model.signature import OptionalInput


@pytest.fixture
def noisy(tiny: Editor) -> ModelInfo:
    """A model that takes one more number for each image."""
    return replace(tiny.info, optional_inputs=(OptionalInput("noise_strength", 0.5, 0.0, 1.0),))


def test_a_further_input_of_the_signature_is_taken_by_its_name(noisy: ModelInfo) -> None:
    z = np.zeros((2, noisy.z_dim), np.float32)
    assert prepare(noisy, Call({"z": z}))["noise_strength"].tolist() == [0.5, 0.5]
    assert prepare(noisy, Call({"z": z, "noise_strength": 2}))["noise_strength"].tolist() == [2, 2]
    assert prepare(noisy, Call({"z": z, "noise_strength": [1, 2]}))["noise_strength"].tolist() == [1, 2]
    with pytest.raises(InputError, match="noise_strength must be one number or one for each of 2 images"):
        prepare(noisy, Call({"z": z, "noise_strength": [1, 2, 3]}))


def test_an_input_that_is_not_the_models_is_refused(tiny: Editor) -> None:
    for call, taken in (
        (lambda: tiny.run(np.zeros(6), noise_strength=1), "z, direction, alpha"),
        (lambda: tiny.edit(seed=1, noise_strength=1), "seed, z, edits"),
        (lambda: tiny.sweep(seed=1, noise_strength=1), "seed, z, direction, alphas"),
    ):
        with pytest.raises(InputError, match=rf"^noise_strength is not an input of this model; it takes {taken}$"):
            call()


def test_a_misspelt_name_is_told_before_what_is_then_missing(tiny: Editor) -> None:
    for call in (tiny.edit, tiny.sweep):
        with pytest.raises(InputError, match=r"^seeds is not an input of this model; it takes seed, z, "):
            call(seeds=[1, 2])


def test_indices_and_names_are_not_mixed(tiny: Editor) -> None:
    with pytest.raises(InputError, match="direction is for run"):
        tiny.edit(seed=1, edits={"pose": 1.0}, direction=0)
    with pytest.raises(InputError, match="alpha is for run"):
        tiny.sweep(seed=1, alpha=1.0)


def test_images_that_are_swept_may_be_edited_too(tiny: Editor) -> None:
    alphas = [-1.0, 0.0, 2.0]
    swept = tiny.prepare(Call({}, seed=[3, 4], edits={"light": [1.0, -1.0]}, sweep=Sweep("pose", alphas)))
    images = tiny.infer(swept).reshape(2, 3, *tiny.info.image_shape)
    for row, (seed, light) in enumerate(((3, 1.0), (4, -1.0))):
        for step, pose in enumerate(alphas):
            alone = tiny.edit(seed=seed, edits={"light": light, "pose": pose})[0]
            assert np.abs(images[row, step].astype(int) - alone).max() <= 1  # Other batches round differently.


def test_only_who_may_give_a_seed_is_told_of_it(tiny: Editor) -> None:
    with pytest.raises(InputError, match=r"^give either seed or z$"):
        tiny.edit()
    with pytest.raises(InputError, match=r"^give z, got w$"):
        tiny.run(w=np.zeros(6))
    with pytest.raises(InputError, match=r"^give either seed or z, got seed and z$"):
        tiny.edit(seed=1, z=np.zeros(6))
