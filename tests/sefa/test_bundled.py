"""The generator of letters that comes with the package: by its name, with the images of its training's own code."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

import sefa
from sefa.bundled import BUNDLED, LETTERS
from sefa.demo.ruler import CHARACTERS
from sefa.opening import Kind, kind_of
from sefa_runtime.inputs.latents import latents_from_seeds
from support.paths import GOLDEN

# Sums of a thousand float32 products in another order, on images of magnitude 3; seen: 1e-5.
ATOL = 1e-4


@torch.no_grad()
def test_the_bundled_generator_renders_what_its_training_code_rendered() -> None:
    generator = sefa.load(LETTERS)
    with np.load(GOLDEN / "letters.npz") as golden:
        z = torch.from_numpy(latents_from_seeds(golden["seed"].tolist(), generator.z_dim))
        codes = generator.encode(z, torch.from_numpy(golden["label"]), torch.from_numpy(golden["truncation"]))
        torch.testing.assert_close(generator.decode(codes), torch.from_numpy(golden["image"]), rtol=0, atol=ATOL)
    assert generator.truncation_center == "stored, one for each class"
    assert "".join(generator.class_names) == CHARACTERS
    assert (generator.resolution, generator.channels, generator.license) == ((64, 64), 1, "Apache-2.0")


def test_the_bundled_file_is_small_and_in_half_precision() -> None:
    path = BUNDLED[LETTERS]
    assert path.stat().st_size < 2e6
    with safe_open(path, framework="pt") as file:
        assert {file.get_tensor(name).dtype for name in file.keys()} == {torch.float16}  # noqa: SIM118


def test_a_file_or_folder_of_that_name_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert sefa.load("letters").num_classes == kind_classes(Path("letters")) == len(CHARACTERS)
    Path("letters").mkdir()
    with pytest.raises(sefa.CheckpointError, match=r"^letters: is a folder.*; it hides the generator letters"):
        sefa.load("letters")
    Path("letters").rmdir()
    Path("letters").write_bytes(b"mine")
    with pytest.raises(sefa.CheckpointError, match=r"^letters: not a checkpoint file"):
        sefa.load("letters")


def kind_classes(source: Path) -> int:
    """Return the number of classes of a source that is a checkpoint."""
    assert kind_of(source) == Kind.CHECKPOINT
    return sefa.load(source).num_classes


@pytest.mark.parametrize(
    ("name", "has_hint"), [("lettres", True), ("netG.pth", False), ("folder/letters", False), ("letters.pt", False)]
)
def test_a_missing_file_that_looks_like_a_name_brings_the_name_to_mind(
    name: str, has_hint: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(sefa.CheckpointError, match="no such file") as error:
        sefa.load(name)
    assert ("the generator that comes with sefa is called letters" in str(error.value)) == has_hint
