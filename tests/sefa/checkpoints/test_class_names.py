import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import sefa
from sefa import ArgumentError, CheckpointError
from sefa.checkpoints.class_names import CLASS_NAMES_KEY, class_names_metadata
from sefa_export.draft import prepare
from support.golden_checkpoints import GoldenCheckpoint

NAMES = ("S", "é", "a cat", "0", "1", "2")


@pytest.fixture
def write(tmp_path: Path) -> Callable[[dict[str, str]], Path]:
    """Write the weights of a generator of six classes beside metadata."""
    contents = torch.load(GoldenCheckpoint("sefa_stylegan2_cond_32").path, weights_only=True)["generator"]
    tensors = {name: tensor.clone().contiguous() for name, tensor in contents.items()}

    def written(metadata: dict[str, str]) -> Path:
        save_file(tensors, tmp_path / "named.safetensors", metadata)
        return tmp_path / "named.safetensors"

    return written


def test_names_in_a_checkpoint_are_in_what_is_exported(write: Callable[[dict[str, str]], Path]) -> None:
    generator = sefa.load(write(class_names_metadata(NAMES)))
    assert generator.class_names == NAMES
    assert described(generator) == NAMES
    generator.class_names = tuple("uvwxyz")  # The caller knows better.
    assert described(generator) == tuple("uvwxyz")


def described(generator: sefa.Generator) -> tuple[str, ...]:
    """Return the names in the description of an exported file."""
    bank = sefa.factorize(generator, top=2)
    draft = prepare(generator, bank, "uint8", latent="z", truncation=1.0, allow_other_checkpoint=False)
    return draft.info.class_names


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("S,e,a", "are not JSON"),
        ('{"S": 0}', "are not a list of names"),
        ('["S", "e"]', "2 names of classes for 6 classes"),
        ('["S", "e", 3, "0", "1", "2"]', "3 cannot name a class"),
    ],
)
def test_names_that_do_not_fit_are_refused_with_the_file(
    write: Callable[[dict[str, str]], Path], text: str, problem: str
) -> None:
    with pytest.raises(CheckpointError, match=f"named.safetensors: .*{CLASS_NAMES_KEY}.*{problem}"):
        sefa.load(write({CLASS_NAMES_KEY: text}))


def test_other_metadata_name_no_classes(write: Callable[[dict[str, str]], Path]) -> None:
    assert sefa.load(write({"class_names": json.dumps(NAMES)})).class_names == ()


def test_an_export_refuses_names_that_do_not_fit(write: Callable[[dict[str, str]], Path]) -> None:
    generator = sefa.load(write({}))
    generator.class_names = ("S", "e")
    with pytest.raises(ArgumentError, match="2 names of classes for 6 classes"):
        described(generator)
