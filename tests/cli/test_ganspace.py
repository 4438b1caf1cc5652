import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sefa
import sefa_runtime

Command = Callable[..., Any]


@pytest.fixture
def checkpoint(golden: Path) -> Path:
    return golden / "checkpoints/dcgan_small_64/netG.pth"


def test_factorize_draws_samples_on_request(sefa_command: Command, checkpoint: Path, tmp_path: Path) -> None:
    path = tmp_path / "bank.safetensors"
    options = ("--method", "ganspace", "--samples", "3000", "--seed", "4", "--top", "3")
    result = sefa_command("factorize", checkpoint, "-o", path, *options)
    assert result.code == 0
    assert "-3 to 3 σ" in result.out
    expected = sefa.factorize(sefa.load(checkpoint), top=3, method="ganspace", samples=3000, seed=4)
    bank = sefa.DirectionBank.load(path)
    np.testing.assert_allclose(bank.vectors, expected.vectors, atol=1e-6)
    assert bank.source == expected.source


def test_export_bakes_them_like_any_others(sefa_command: Command, checkpoint: Path, tmp_path: Path) -> None:
    model = tmp_path / "model.onnx"
    options = ("--method", "ganspace", "--samples", "1000", "--top", "2", "--json")
    info = json.loads(sefa_command("export", checkpoint, "-o", model, *options).out)["info"]
    assert info["method"] == "ganspace"
    assert sefa_runtime.load(model, provider="cpu").edit(seed=1, edits={1: 2.0}).shape == (1, 64, 64, 3)


@pytest.mark.parametrize("command", ["factorize", "export"])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--samples", "100"), "samples is an option of ganspace"),
        (("--method", "ganspace", "--normalize", "rows"), "ganspace does not analyse: leave it out"),
        (("--method", "ganspace", "--samples", "3"), "samples must be more than 20"),
    ],
)
def test_an_option_of_the_other_method_is_refused(
    sefa_command: Command, checkpoint: Path, tmp_path: Path, command: str, options: tuple[str, ...], message: str
) -> None:
    result = sefa_command(command, checkpoint, "-o", tmp_path / "file", *options)
    assert result.code == 1
    assert message in result.err
    assert result.err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_bank_brings_its_method(sefa_command: Command, checkpoint: Path, tmp_path: Path) -> None:
    bank = sefa.factorize(sefa.load(checkpoint), top=2).save(tmp_path / "bank.safetensors")
    result = sefa_command("export", checkpoint, "-o", tmp_path / "m", "--bank", bank, "--method", "ganspace")
    assert "--bank brings its directions: leave out --method" in result.err
