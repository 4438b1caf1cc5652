"""A bank of one checkpoint on another one that was tuned from it."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import sefa
import sefa_export
import sefa_runtime
from sefa import BankError
from sefa.bank.editing import change, merge
from sefa.bank.naming import Change
from sefa.directions.compatibility import check_fits, likeness, other_checkpoints
from sefa_runtime.model.reading import read_info
from sefa_runtime.verification import verify

Command = Callable[..., Any]


@pytest.fixture
def base(golden: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(golden / "checkpoints/dcgan_small_64/netG.pth", tmp_path / "base.pth"))


def retrain(base: Path, path: Path, share: float) -> Path:
    """Move every weight by a share of its layer's deviation; a share of 1 and more leaves little of it."""
    random = torch.Generator().manual_seed(1)
    state = torch.load(base, weights_only=True)
    for key, value in state.items():
        if value.is_floating_point() and "running" not in key:
            state[key] = value + share * value.std() * torch.randn(value.shape, generator=random)
    torch.save(state, path)
    return path


@pytest.fixture
def tuned(base: Path, tmp_path: Path) -> Path:
    return retrain(base, tmp_path / "tuned.pth", 0.02)


@pytest.fixture
def bank(base: Path) -> sefa.DirectionBank:
    bank = sefa.factorize(sefa.load(base), top=5)
    return change(bank, {1: Change("turn", alpha_range=(-1.0, 4.0))})


@pytest.mark.parametrize("allow", [False, True])
def test_directions_of_all_of_z_do_not_fit_where_a_label_is_behind_it(base: Path, allow: bool) -> None:
    alone, conditional = sefa.load(base), sefa.load(base, num_classes=3)
    with pytest.raises(BankError, match=r"move the class: the last 3 of 20 entries .*--num-classes"):
        check_fits(sefa.factorize(alone, top=2), conditional, allow_other_checkpoint=allow)
    bank = sefa.factorize(conditional, top=2)
    check_fits(bank, conditional)
    assert not bank.vectors[:, 17:].any()


def test_a_bank_of_what_was_tuned_is_taken_on_request(
    base: Path, tuned: Path, bank: sefa.DirectionBank, tmp_path: Path
) -> None:
    generator = sefa.load(tuned)
    with pytest.raises(BankError, match=r"another checkpoint: .* --allow-other-checkpoint \(allow_other_checkpoint=T"):
        sefa_export.export_onnx(generator, bank, tmp_path / "model.onnx")
    path = sefa_export.export_onnx(generator, bank, tmp_path / "model.onnx", "float32", allow_other_checkpoint=True)
    editor = sefa_runtime.load(path, "cpu")
    assert editor.info.names == bank.names
    assert editor.info.directions[1].alpha_range == (-1.0, 4.0)
    assert editor.info.source_sha256 == sefa_runtime.files.sha256_of(tuned)
    assert editor.info.bank_sha256 == (sefa_runtime.files.sha256_of(base),)
    z = np.random.default_rng(0).standard_normal((2, generator.z_dim), np.float32)
    with torch.no_grad():
        expected = generator.decode(generator.encode(torch.from_numpy(z)) + 2 * bank.vectors[1])
    np.testing.assert_allclose(editor.run(z, 1, 2.0), expected, atol=1e-4)
    finding = next(one for one in verify(path, "cpu", checkpoint=tuned).findings if one.name == "checkpoint")
    assert finding.ok
    assert "its directions are of another checkpoint" in finding.detail


@pytest.mark.parametrize("write", [sefa_export.export_torchscript, sefa_export.export_pt2])
def test_the_other_formats_take_it_too(
    write: Callable[..., Path], tuned: Path, bank: sefa.DirectionBank, tmp_path: Path
) -> None:
    path = write(sefa.load(tuned), bank, tmp_path / "model.any", allow_other_checkpoint=True)
    assert read_info(path).bank_sha256 == (bank.source.checkpoint_sha256,)


def test_a_file_of_its_own_directions_says_nothing_of_others(base: Path, bank: sefa.DirectionBank) -> None:
    generator = sefa.load(base)
    assert other_checkpoints(bank, generator) == ()
    check_fits(bank, generator, allow_other_checkpoint=True)


def test_likeness_is_that_of_singular_vectors(base: Path, tmp_path: Path, bank: sefa.DirectionBank) -> None:
    first = torch.load(base, weights_only=True)["main.0.weight"].flatten(1).double()  # [D, out]: A is its transpose.
    cosines = {}
    for share in (0.02, 3.0):
        path = retrain(base, tmp_path / f"{share}.pth", share)
        second = torch.load(path, weights_only=True)["main.0.weight"].flatten(1).double()
        vectors = [torch.linalg.svd(weight)[0].T for weight in (first, second)]
        table = (vectors[0][:5] @ vectors[1][:16].T).abs()
        found = likeness(bank, sefa.load(path))
        assert found is not None
        assert found.directions == 5
        cosines[share] = found.cosine
        if share < 1:  # Nothing competes for a partner: each one's best is its own.
            assert found.cosine == pytest.approx(float(table.max(dim=1).values.mean()), abs=1e-6)
    assert cosines[0.02] > 0.99 > 0.9 > cosines[3.0]


def test_likeness_follows_layers_and_method(golden: Path) -> None:
    generator = sefa.load(golden / "checkpoints/sefa_stylegan2_64/checkpoint.pth")
    banks = [
        sefa.factorize(generator, "0-3", top=3, normalize="rows"),
        sefa.factorize(generator, "4-6", top=3),
        sefa.factorize(generator, top=2, method="ganspace", samples=600, seed=5),
    ]
    found = likeness(merge(banks, ["a-", "b-", "c-"]), generator)
    assert found is not None
    assert found.directions == 8
    assert found.cosine == pytest.approx(1, abs=1e-6)
    assert found.chance < 0.8
    boundaries = replace(banks[0], source=replace(banks[0].source, method="boundaries"))
    assert likeness(boundaries, generator) is None
    other = replace(boundaries, source=replace(boundaries.source, checkpoint_sha256="0" * 64))
    with pytest.raises(BankError, match="how alike the two are is not known of directions by boundaries"):
        check_fits(other, generator)


def test_where_sizes_differ_no_option_helps(base: Path, bank: sefa.DirectionBank) -> None:
    other = replace(bank, vectors=torch.eye(5, 8))
    with pytest.raises(BankError, match="latent size 8, not 20; allowing another checkpoint does not help"):
        check_fits(other, sefa.load(base), allow_other_checkpoint=True)


def test_banks_of_both_merge_on_request_and_remember(base: Path, tuned: Path, bank: sefa.DirectionBank) -> None:
    generator = sefa.load(tuned)
    own = sefa.factorize(generator, top=2)
    with pytest.raises(BankError, match=r"of different checkpoints, sha256 .*: --allow-other-checkpoint"):
        merge([bank, own])
    merged = merge([bank, own], ["base-", "tuned-"], allow_other_checkpoint=True)
    assert [merged.origin(index).checkpoint_sha256 for index in (0, 5)] == [
        bank.source.checkpoint_sha256,
        generator.source_sha256,
    ]
    assert other_checkpoints(merged, generator) == (bank.source.checkpoint_sha256,)
    with pytest.raises(BankError, match="another checkpoint"):
        check_fits(merged, generator)
    check_fits(merged, generator, allow_other_checkpoint=True)


def test_on_the_command_line(sefa_command: Command, base: Path, tuned: Path, tmp_path: Path) -> None:
    bank, model, other = tmp_path / "bank.safetensors", tmp_path / "model.onnx", tmp_path / "two.safetensors"
    assert sefa_command("factorize", base, "-o", bank, "--top", "3").code == 0
    assert sefa_command("factorize", tuned, "-o", other, "--top", "2").code == 0
    refused = sefa_command("export", tuned, "--bank", bank, "-o", model)
    assert refused.code == 1
    assert "the mean |cosine| of 3 of its directions and this one's own is 0.9" in refused.err
    assert not model.exists()
    result = sefa_command("export", tuned, "--bank", bank, "-o", model, "--allow-other-checkpoint")
    said = f"another checkpoint, sha256 {sefa_runtime.files.sha256_of(base)}"
    assert result.code == 0
    assert f"directions of: {said}" in result.out
    assert said in sefa_command("inspect", model).out
    document = json.loads(sefa_command("inspect", model, "--json").out)
    assert list(document["info"]["bank_sha256"]) == [sefa_runtime.files.sha256_of(base)]
    assert sefa_command("bank", "merge", bank, other, "-o", tmp_path / "all.safetensors").code == 1
    merged = ["bank", "merge", bank, other, "-o", tmp_path / "all.safetensors", "--allow-other-checkpoint"]
    assert sefa_command(*merged).code == 0
    alone = sefa_command("export", tuned, "-o", model, "--allow-other-checkpoint")
    assert "--allow-other-checkpoint is for --bank" in alone.err


def test_a_generator_of_ones_own_that_was_tuned() -> None:
    module = nn.Sequential(nn.Linear(6, 48), nn.Tanh(), nn.Unflatten(1, (3, 4, 4)))
    generators = [sefa.wrap(module, latent_dim=6, layers=["0"]) for _ in range(2)]
    for generator, sha256 in zip(generators, "ab", strict=True):
        generator.source_sha256 = sha256 * 64
    bank = sefa.factorize(generators[0])
    with pytest.raises(BankError, match=r"directions and this one's own is 1\.000"):
        check_fits(bank, generators[1])
