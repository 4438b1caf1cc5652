import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import sefa
from support.descriptions import change_description

Command = Callable[..., Any]


@pytest.fixture
def checkpoint(golden: Path) -> Path:
    return golden / "checkpoints/dcgan_small_64/netG.pth"


@pytest.mark.parametrize("name", ["checkpoints/dcgan_small_64/netG.pth", "tiny.onnx"])
def test_inspect_tells_the_kind_from_the_contents(
    sefa_command: Command, golden: Path, tmp_path: Path, name: str
) -> None:
    (tmp_path / "file").write_bytes((golden / name).read_bytes())
    kind = json.loads(sefa_command("inspect", tmp_path / "file", "--json").out)["kind"]
    assert kind == {"checkpoints/dcgan_small_64/netG.pth": "checkpoint", "tiny.onnx": "ONNX model"}[name]


def test_inspect_reads_a_bank(sefa_command: Command, checkpoint: Path, tmp_path: Path) -> None:
    path = sefa.factorize(sefa.load(checkpoint), top=3).save(tmp_path / "file")
    assert json.loads(sefa_command("inspect", path, "--json").out)["rank"] == 20
    assert "direction bank" in sefa_command("inspect", path).out


@pytest.mark.parametrize(
    ("macs", "said"), [(42_345_678_901, "42.3 billion"), (128_400_000, "128 million")], ids=["large", "small"]
)
def test_inspect_says_the_multiply_adds(
    sefa_command: Command, golden: Path, tmp_path: Path, macs: int, said: str
) -> None:
    model = change_description(golden / "tiny.onnx", tmp_path / "a.onnx", lambda info: info.update(macs=macs))
    assert f"{said} an image, in convolutions and matrix products" in " ".join(
        sefa_command("inspect", model).out.split()
    )
    assert "an image, in" not in sefa_command("inspect", golden / "tiny.onnx").out  # from before they were counted


def test_inspect_says_what_runs_once_for_each_latent(sefa_command: Command, golden: Path) -> None:
    said = sefa_command("inspect", golden / "style_late.onnx").out
    assert "for each latent, 25% of the multiplications, which no edit reaches" in " ".join(said.split())
    assert "of the multiplications" not in sefa_command("inspect", golden / "style_w.onnx").out
