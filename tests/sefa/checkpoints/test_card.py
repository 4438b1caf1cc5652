from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import sefa
from sefa_runtime.model.card import MAX_LICENSE, MAX_NOTE, card_problems

WEIGHTS = "checkpoints/dcgan_small_64/netG.pth"
Write = Callable[[Path, dict[str, str]], object]


@pytest.fixture
def weights(golden: Path) -> dict[str, Any]:
    content: dict[str, Any] = torch.load(golden / WEIGHTS, weights_only=True)
    return content


@pytest.mark.parametrize(
    ("metadata", "license", "note"),
    [
        ({"license": "MIT", "note": "of faces"}, "MIT", "of faces"),
        ({"modelspec.license": "CC-BY-4.0", "modelspec.description": "by\nsomebody"}, "CC-BY-4.0", "by somebody"),
        ({"license": " ", "modelspec.license": "OFL-1.1", "description": "letters"}, "OFL-1.1", "letters"),
        ({"format": "pt"}, "", ""),
    ],
)
def test_a_file_says_its_own_licence(
    tmp_path: Path, weights: dict[str, Any], metadata: dict[str, str], license: str, note: str
) -> None:
    save_file(weights, tmp_path / "g.safetensors", metadata)
    torch.save({**metadata, "generator": weights}, tmp_path / "g.pth")
    for name in ("g.safetensors", "g.pth"):
        generator = sefa.load(tmp_path / name)
        assert (generator.license, generator.note) == (license, note)


def test_hostile_text_becomes_a_printable_line_of_limited_length(tmp_path: Path, weights: dict[str, Any]) -> None:
    text = "\x1b[2J<script>\u202e " + "x" * 100_000
    save_file(weights, tmp_path / "g.safetensors", {"license": text, "note": text})
    generator = sefa.load(tmp_path / "g.safetensors")
    assert (len(generator.license), len(generator.note)) == (MAX_LICENSE, MAX_NOTE)
    assert generator.note.startswith("?[2J<script>? xxx")
    assert generator.note.endswith("x...")
    assert card_problems(generator.license, generator.note) == []


@pytest.mark.parametrize("odd", [7, None, ["MIT"], {"name": "MIT"}])
def test_what_is_no_text_says_nothing(tmp_path: Path, weights: dict[str, Any], odd: object) -> None:
    torch.save({"license": odd, "generator": weights}, tmp_path / "g.pth")
    assert sefa.load(tmp_path / "g.pth").license == ""
