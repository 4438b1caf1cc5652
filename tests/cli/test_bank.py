import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import sefa
from support.golden_checkpoints import GoldenCheckpoint

Command = Callable[..., Any]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two banks of one generator."""
    folder = tmp_path_factory.mktemp("banks")
    generator = GoldenCheckpoint("sefa_stylegan2_64").generator
    sefa.factorize(generator, "0-3", top=3).save(folder / "coarse.safetensors")
    sefa.factorize(generator, "4-7", top=2, method="ganspace", samples=400).save(folder / "fine.safetensors")
    return folder


def test_banks_merge_and_what_they_hold_is_shown(sefa_command: Command, folder: Path, tmp_path: Path) -> None:
    both = tmp_path / "both.safetensors"
    result = sefa_command(
        "bank", "merge", folder / "coarse.safetensors", folder / "fine.safetensors", "-o", both, "--prefix", "a-,b-"
    )
    assert result.code == 0, result.err
    shown = sefa_command("bank", "show", both).out
    assert "400 samples, seed 0" in shown
    assert "-3 to 3 σ" in shown
    document = json.loads(sefa_command("bank", "show", both, "--json").out)
    assert [entry["name"] for entry in document["directions"]][2:4] == ["a-direction-2", "b-direction-0"]
    assert document["directions"][3]["found_by"]["method"] == "ganspace"
    assert document["directions"][3]["edited_layers"] == [4, 5, 6, 7]
    # What other commands make of it.
    assert json.loads(sefa_command("inspect", both, "--json").out)["method"] == "sefa + ganspace"
    checkpoint = GoldenCheckpoint("sefa_stylegan2_64").path
    assert sefa_command("export", checkpoint, "--bank", both, "-o", tmp_path / "m.onnx").code == 0
    assert "b-direction-1" in sefa_command("inspect", tmp_path / "m.onnx").out


def test_a_subset_is_taken(sefa_command: Command, folder: Path, tmp_path: Path) -> None:
    few = tmp_path / "few.safetensors"
    assert sefa_command("bank", "subset", folder / "coarse.safetensors", "2,direction-0", "-o", few).code == 0
    assert sefa.DirectionBank.load(few).names == ("direction-2", "direction-0")


def test_two_banks_are_compared(sefa_command: Command, folder: Path, tmp_path: Path) -> None:
    few, image = tmp_path / "few.safetensors", tmp_path / "alike.png"
    shutil.copy(folder / "coarse.safetensors", few)
    assert sefa_command("name", few, "0=pose:-1", "--keep", "2,0").code == 0
    result = sefa_command("bank", "compare", folder / "coarse.safetensors", few, "-o", image)
    assert result.code == 0, result.err
    assert "-1.0000" in result.out
    with Image.open(image) as opened:
        assert opened.format == "PNG"
    document = json.loads(sefa_command("bank", "compare", folder / "coarse.safetensors", few, "--json").out)
    assert {(pair["name_a"], pair["name_b"], round(pair["cosine"], 4)) for pair in document["pairs"]} == {
        ("direction-2", "direction-2", 1.0),
        ("direction-0", "pose", -1.0),
    }
    result = sefa_command("bank", "compare", few, few, "-o", tmp_path / "alike.gif")
    assert "a plot is a .png file" in result.err


def test_directions_go_out_and_come_in(sefa_command: Command, folder: Path, tmp_path: Path) -> None:
    coarse, rows = folder / "coarse.safetensors", tmp_path / "boundaries.npy"
    result = sefa_command("bank", "export", coarse, "-o", rows)
    assert "the layers to edit: 0-3" in result.out
    checkpoint = GoldenCheckpoint("sefa_stylegan2_64").path
    back = tmp_path / "back.safetensors"
    assert sefa_command("bank", "import", rows, checkpoint, "-o", back, "--layers", "0-3").code == 0
    one, other = sefa.DirectionBank.load(coarse), sefa.DirectionBank.load(back)
    np.testing.assert_allclose(other.vectors, one.vectors, atol=1e-7)
    np.testing.assert_allclose(other.eigenvalues, one.eigenvalues, rtol=1e-5)
    assert other.edited_layers.equal(one.edited_layers)
    assert sefa_command("bank", "export", coarse, "-o", tmp_path / "bank.npz").code == 0
    assert sefa_command("bank", "import", tmp_path / "bank.npz", "-o", back).code == 0
    assert back.read_bytes() == coarse.read_bytes()
    other_family = GoldenCheckpoint("dcgan_small_64").path
    result = sefa_command("bank", "import", tmp_path / "bank.npz", other_family, "-o", back)
    assert result.code == 1
    assert "made for another generator" in result.err


def test_rosinalitys_file_comes_in_and_goes_out(sefa_command: Command, tmp_path: Path) -> None:
    case = GoldenCheckpoint("rosi_train_64")
    bank, factor = tmp_path / "bank.safetensors", tmp_path / "factor.pt"
    assert sefa_command("bank", "import", case.path.with_name("factor.pt"), case.path, "-o", bank).code == 0
    assert sefa_command("bank", "export", bank, "-o", factor, "--ckpt", "there.pt").code == 0
    import torch

    assert torch.load(factor, weights_only=True)["ckpt"] == "there.pt"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("merge", "{coarse}", "{missing}", "-o", "{out}"), "no such file"),
        (("merge", "{coarse}", "-o", "{coarse}"), "is an input"),
        (("subset", "{coarse}", "9", "-o", "{out}"), "direction must be in 0..2"),
        (("show", "{onnx}"), "not a direction bank"),
        (("import", "{npy}", "-o", "{out}"), "name the checkpoint"),
        (("import", "{onnx}", "{checkpoint}", "-o", "{out}"), "tiny.onnx"),
        (("export", "{coarse}", "-o", "{folder}/a.txt"), "must end in"),
        (("export", "{coarse}", "-o", "{folder}/a.pt"), "direction-0 does not"),
        (("export", "{coarse}", "-o", "{folder}/a.npz", "--ckpt", "x"), "--ckpt is for a factor.pt"),
    ],
)
def test_mistakes_get_one_line_and_leave_nothing(
    sefa_command: Command, golden: Path, folder: Path, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    np.save(tmp_path / "b.npy", np.eye(2, 32))
    places = {
        "coarse": folder / "coarse.safetensors",
        "missing": tmp_path / "missing",
        "out": tmp_path / "out.safetensors",
        "onnx": golden / "tiny.onnx",
        "npy": tmp_path / "b.npy",
        "checkpoint": GoldenCheckpoint("sefa_stylegan2_64").path,
        "folder": tmp_path,
    }
    result = sefa_command("bank", *(argument.format(**places) for argument in arguments))
    assert result.code == 1
    assert message in result.err
    assert result.err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["b.npy"]
