"""TensorFlow's StyleGAN2s of images that are not square, under either fork's names.

tests/sefa/checkpoints/formats/test_formats.py compares one with recorded images: tf_stylegan2_12x20.
"""

from pathlib import Path

import pytest
import torch

import sefa
from sefa import CheckpointError
from sefa.checkpoints.checkpoint import Checkpoint, LoadOptions
from sefa.checkpoints.contents import read_contents
from sefa.checkpoints.formats.tensorflow import tensorflow_stylegan2
from sefa.checkpoints.pickled_networks import TensorFlowNetwork
from support.golden_checkpoints import GoldenCheckpoint

GOLDEN = GoldenCheckpoint("tf_stylegan2_12x20")


def renamed(scopes: dict[str, str]) -> TensorFlowNetwork:
    """The recorded network, with its scopes called otherwise."""
    network = read_contents(GOLDEN.path)
    assert isinstance(network, TensorFlowNetwork)
    synthesis = network.state["components"]["synthesis"].state
    named = [(name.partition("/"), value) for name, value in synthesis["variables"]]
    synthesis["variables"] = [
        (f"{scopes.get(scope, scope)}{slash}{rest}", value) for (scope, slash, rest), value in named
    ]
    return network


def load(network: TensorFlowNetwork) -> sefa.Generator:
    file = Checkpoint(Path("network.pkl"), network)
    assert tensorflow_stylegan2.FORMAT.recognises(file)
    return tensorflow_stylegan2.FORMAT.load(file, LoadOptions())


def test_scopes_may_be_named_as_if_images_were_square() -> None:
    generator = load(renamed({"3x5": "4x4", "6x10": "8x8", "12x20": "16x16"}))
    assert generator.resolution == (12, 20)
    expected = GOLDEN.generator.state_dict()
    assert all(torch.equal(tensor, expected[key]) for key, tensor in generator.state_dict().items())


@pytest.mark.parametrize("scope", ["10x6", "8x8", "6x12"])
def test_a_scope_of_another_shape_is_not_understood(scope: str) -> None:
    with pytest.raises(CheckpointError, match=rf"not understood synthesis/{scope}/Conv0_up/weight"):
        load(renamed({"6x10": scope}))
