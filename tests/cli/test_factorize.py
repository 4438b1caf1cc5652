from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sefa

Command = Callable[..., Any]


@pytest.fixture
def checkpoint(golden: Path) -> Path:
    return golden / "checkpoints/dcgan_small_64/netG.pth"


def test_factorize_prints_the_directions(sefa_command: Command, checkpoint: Path, tmp_path: Path) -> None:
    result = sefa_command("factorize", checkpoint, "-o", tmp_path / "b.safetensors", "--top", "3")
    assert "direction-2" in result.out
    assert "3 directions of 20 components" in result.out
    assert result.err == ""


def test_factorize_normalizes_rows_on_request(sefa_command: Command, checkpoint: Path, tmp_path: Path) -> None:
    path = tmp_path / "b.safetensors"
    assert sefa_command("factorize", checkpoint, "-o", path, "--normalize", "rows", "--json").code == 0
    expected = sefa.factorize(sefa.load(checkpoint), normalize="rows")
    np.testing.assert_array_equal(sefa.DirectionBank.load(path).vectors, expected.vectors)
