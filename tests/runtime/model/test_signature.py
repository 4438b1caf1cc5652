import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sefa_runtime import ModelFileError, ModelInfo, load
from sefa_runtime.inputs.call import Call, prepare
from sefa_runtime.model.reading import read_info
from sefa_runtime.model.signature import BATCH, EDITS, OptionalInput

MODELS = ("tiny", "tiny_float32", "style_z", "style_w", "style_w+", "style_static")
STRENGTH = OptionalInput("noise_strength", default=1.0, low=0.0, high=3.0)


@pytest.fixture
def with_strength(golden: Path) -> ModelInfo:
    return replace(read_info(golden / "style_z.onnx"), optional_inputs=(STRENGTH,))


@pytest.mark.parametrize("model", MODELS)
def test_it_is_the_graphs_own(golden: Path, model: str) -> None:
    editor = load(golden / f"{model}.onnx", "cpu")
    signature, session = editor.info.signature, editor.session.inference
    assert signature.names == tuple(value.name for value in session.get_inputs())
    assert [list(signature.axes(spec)) for spec in signature.inputs] == [value.shape for value in session.get_inputs()]
    assert list(signature.axes(signature.output)) == session.get_outputs()[0].shape
    assert signature.mismatches(session, axis_names=True) == []


def test_a_fixed_size_takes_the_place_of_its_axis(golden: Path) -> None:
    signature = replace(read_info(golden / "tiny.onnx"), batch=4, num_edits=0).signature
    assert [signature.axes(spec) for spec in signature.inputs] == [(4, 6), (4, 0), (4, 0)]
    assert signature.inputs[1].shape == (BATCH, EDITS)
    assert signature.axes(signature.output) == (4, 8, 4, 3)


def test_it_is_made_once(golden: Path) -> None:
    info = read_info(golden / "tiny.onnx")
    assert info.signature is info.signature


def test_an_optional_input_is_one_more_number_for_each_image(with_strength: ModelInfo) -> None:
    signature = with_strength.signature
    assert signature.names == ("z", "direction", "alpha", "label", "truncation", "noise_strength")
    assert signature.axes(signature.inputs[-1]) == (BATCH,)
    assert signature.conditions == signature.inputs[3:]


def test_an_optional_input_that_is_left_out_has_its_default(with_strength: ModelInfo) -> None:
    z = np.zeros((3, 24))
    assert prepare(with_strength, Call({"z": z, "label": 0}))["noise_strength"].tolist() == [1, 1, 1]
    given = prepare(with_strength, Call({"z": z, "label": 0, "noise_strength": [0, 2, 9]}))
    assert given["noise_strength"].tolist() == [0, 2, 9]


def test_an_optional_input_travels_in_the_description(with_strength: ModelInfo) -> None:
    assert ModelInfo.from_json(with_strength.to_json(), "x") == with_strength
    assert "optional_inputs" not in replace(with_strength, optional_inputs=()).to_json()


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"name": "alpha"}, "an optional input is called 'alpha'"),
        ({"name": "seed"}, "an optional input is called 'seed'"),
        ({"name": "a b"}, "an optional input is called 'a b'"),
        ({"default": float("nan")}, "the input noise_strength is nan by default"),
        ({"low": 5.0}, "the input noise_strength is .* from 5.0 to 3.0"),
    ],
)
def test_what_cannot_be_an_optional_input_is_refused(with_strength: ModelInfo, entry: object, message: str) -> None:
    document = json.loads(with_strength.to_json())
    document["optional_inputs"][0].update(entry)
    with pytest.raises(ModelFileError, match=message):
        ModelInfo.from_json(json.dumps(document), "x")


def test_two_optional_inputs_have_two_names(with_strength: ModelInfo) -> None:
    document = json.loads(with_strength.to_json())
    document["optional_inputs"] *= 2
    with pytest.raises(ModelFileError, match="an optional input is called 'noise_strength'"):
        ModelInfo.from_json(json.dumps(document), "x")
