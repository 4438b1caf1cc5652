import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import sefa
from sefa import BankError, DirectionBank
from sefa.bank.direction_bank import METADATA_KEY
from sefa.directions.compatibility import check_fits
from support.paths import CHECKPOINTS


@pytest.fixture
def generator(golden: Path) -> sefa.Generator:
    return sefa.load(golden / "checkpoints/dcgan_small_64/netG.pth")


@pytest.fixture
def bank(generator: sefa.Generator) -> DirectionBank:
    return sefa.factorize(generator, top=4)


def test_what_is_saved_is_loaded(bank: DirectionBank, tmp_path: Path) -> None:
    again = DirectionBank.load(bank.save(tmp_path / "bank.safetensors"))
    for name in ("vectors", "eigenvalues", "edited_layers", "analysed_layers", "alpha_range"):
        torch.testing.assert_close(getattr(again, name), getattr(bank, name), rtol=0, atol=0)
    assert (again.names, again.source) == (bank.names, bank.source)


def test_a_notebook_shows_it_on_one_line(bank: DirectionBank) -> None:
    assert repr(replace(bank, names=("turn", *bank.names[1:]))) == (
        "<DirectionBank of 4 directions, 20 components each (dcgan, 1 layer, by sefa): turn, direction-1, direction-2, "
        "direction-3>"
    )


@pytest.mark.parametrize("name", ["netG.onnx", "netG.TS", "netG.pt2"])
def test_it_does_not_take_the_place_of_a_model(bank: DirectionBank, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"a model")
    with pytest.raises(sefa.ArgumentError, match=r"the name is that of an exported model: .* ends in \.safetensors$"):
        bank.save(tmp_path / name)
    assert (tmp_path / name).read_bytes() == b"a model"


def test_the_file_is_an_ordinary_safetensors_file(bank: DirectionBank, tmp_path: Path) -> None:
    tensors = load_file(bank.save(tmp_path / "bank.safetensors"))
    assert tensors["vectors"].shape == (4, 20)


def test_the_bank_knows_its_checkpoint(bank: DirectionBank, golden: Path) -> None:
    content = (golden / "checkpoints/dcgan_small_64/netG.pth").read_bytes()
    assert bank.source.checkpoint_sha256 == hashlib.sha256(content).hexdigest()


def test_a_bank_of_another_latent_size_is_refused(bank: DirectionBank) -> None:
    other = replace(bank, vectors=torch.eye(4, 8))
    with pytest.raises(BankError, match="another generator: latent size 8, not 20"):
        check_fits(other, sefa.load(CHECKPOINTS / "dcgan_small_64/netG.pth"))


def test_a_bank_of_another_checkpoint_is_refused(bank: DirectionBank, generator: sefa.Generator) -> None:
    generator.source_sha256 = "f" * 64
    with pytest.raises(BankError, match=r"another checkpoint: its sha256 begins with .*, this one's with ffff"):
        check_fits(bank, generator)


def test_a_generator_made_in_memory_is_judged_by_its_shape(bank: DirectionBank, generator: sefa.Generator) -> None:
    generator.source_sha256 = ""
    check_fits(bank, generator)


def test_what_is_no_bank_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bank.safetensors"
    with pytest.raises(BankError, match=r"bank\.safetensors: no such file"):
        DirectionBank.load(path)
    with pytest.raises(BankError, match="is a folder"):
        DirectionBank.load(tmp_path)
    for content in (b"", b"<html>", b"\x00" * 64):
        path.write_bytes(content)
        with pytest.raises(BankError, match="not a direction bank, or damaged"):
            DirectionBank.load(path)
    save_file({"vectors": torch.eye(2)}, path)
    with pytest.raises(BankError, match="not a direction bank made by"):
        DirectionBank.load(path)


def test_a_truncated_bank_is_refused(bank: DirectionBank, tmp_path: Path) -> None:
    path = bank.save(tmp_path / "bank.safetensors")
    content = path.read_bytes()
    for length in range(0, len(content), 61):
        path.write_bytes(content[:length])
        with pytest.raises(BankError, match=r"bank\.safetensors"):
            DirectionBank.load(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format_version": 3}, "a bank of format 3, this sefa reads 1 and 2"),
        ({"names": ["a", "b", "c"]}, "vectors is .* \\[4, 20\\]"),
        ({"names": ["a", "b", "c", "c"]}, "two directions have the same name"),
        ({"names": ["a", "b", "c", "7"]}, "'7' is not a name"),
        ({"source": {"family": "dcgan"}}, "damaged direction bank"),
        ({"names": None}, "damaged direction bank"),
        ({"names": [["a"], "b", "c", "d"]}, "is not a name"),
        ({"source": None}, "damaged direction bank"),
    ],
)
def test_a_damaged_description_is_refused(
    bank: DirectionBank, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    path = bank.save(tmp_path / "bank.safetensors")
    header_size = int.from_bytes(path.read_bytes()[:8], "little")
    header = json.loads(path.read_bytes()[8 : 8 + header_size])
    document = json.loads(header["__metadata__"][METADATA_KEY]) | change
    save_file(load_file(path), path, {METADATA_KEY: json.dumps(document)})
    with pytest.raises(BankError, match=message):
        DirectionBank.load(path)


def test_a_source_of_other_types_is_refused(bank: DirectionBank, tmp_path: Path) -> None:
    path = replace(bank, source=replace(bank.source, checkpoint_sha256=12)).save(tmp_path / "b")  # type: ignore[arg-type]
    with pytest.raises(BankError, match="source's checkpoint_sha256 is 12"):
        DirectionBank.load(path)


def test_values_that_cannot_be_are_refused(bank: DirectionBank) -> None:
    with pytest.raises(BankError, match="not of unit length"):
        replace(bank, vectors=bank.vectors * 2)
    with pytest.raises(BankError, match="negative"):
        replace(bank, eigenvalues=-bank.eigenvalues)
    with pytest.raises(BankError, match="low to high"):
        replace(bank, alpha_range=bank.alpha_range.flip(1))


def test_values_that_are_not_finite_are_refused(bank: DirectionBank) -> None:
    with pytest.raises(BankError, match="vectors has NaN"):
        replace(bank, vectors=torch.full((4, 20), torch.nan))


@pytest.mark.parametrize("name", ["3", "-1", "", " ", "a=b", "a:b", " a", "a\n", "\x1b[31m"])
def test_a_name_that_could_be_mistaken_is_refused(bank: DirectionBank, name: str) -> None:
    with pytest.raises(BankError, match="is not a name"):
        replace(bank, names=("a", "b", "c", name))


def test_a_bank_of_format_1_is_read(bank: DirectionBank, tmp_path: Path) -> None:
    path = bank.save(tmp_path / "bank.safetensors")
    source = bank.source
    document = {
        "format_version": 1,
        "names": list(bank.names),
        "source": {
            "family": source.family,
            "checkpoint_sha256": source.checkpoint_sha256,
            "method": "sefa",
            "normalize": "none",
            "rank": 20,
            "version": "0.1.0",
        },
    }
    save_file(load_file(path), path, {METADATA_KEY: json.dumps(document)})
    old = DirectionBank.load(path)
    assert old.source == replace(source, version="0.1.0")
    assert old.source.alpha_unit == "distance"
    torch.testing.assert_close(old.vectors, bank.vectors, rtol=0, atol=0)


def test_each_direction_may_have_an_origin_of_its_own(bank: DirectionBank, tmp_path: Path) -> None:
    sampled = replace(bank.source, method="ganspace", alpha_unit="sigma", samples=5000, seed=3, label=1)
    lengths = torch.tensor([[1.0], [1.0], [0.2], [3.0]])
    mixed = replace(bank, vectors=bank.vectors * lengths, origins=(bank.source, bank.source, sampled, sampled))
    again = DirectionBank.load(mixed.save(tmp_path / "bank.safetensors"))
    assert again.origins == mixed.origins
    assert again.origin(3).seed == 3
    with pytest.raises(BankError, match="not of unit length"):
        replace(mixed, origins=())
    with pytest.raises(BankError, match="2 origins of 4 directions"):
        replace(mixed, origins=mixed.origins[:2])
    with pytest.raises(BankError, match="different generators"):
        replace(mixed, origins=(*mixed.origins[:3], replace(sampled, family="pggan")))
    with pytest.raises(BankError, match="alpha_unit is 'miles'"):
        replace(mixed, origins=(*mixed.origins[:3], replace(sampled, alpha_unit="miles")))
    with pytest.raises(BankError, match="a vector is zero"):
        replace(mixed, vectors=mixed.vectors * torch.tensor([[1.0], [1.0], [1.0], [0.0]]))
