from dataclasses import replace
from pathlib import Path

import pytest
import torch

import sefa
from sefa import ArgumentError, BankError, DirectionBank
from sefa.bank.editing import change, merge, subset
from sefa.bank.naming import Change
from sefa_export import bake
from support.golden_checkpoints import GoldenCheckpoint


@pytest.fixture(scope="module")
def generator() -> sefa.Generator:
    return GoldenCheckpoint("sefa_stylegan2_64").generator


@pytest.fixture(scope="module")
def coarse(generator: sefa.Generator) -> DirectionBank:
    return sefa.factorize(generator, layers="0-3", top=3)


@pytest.fixture(scope="module")
def sampled(generator: sefa.Generator) -> DirectionBank:
    return sefa.factorize(generator, layers="4-7", top=2, method="ganspace", samples=500)


def draw(generator: sefa.Generator, bank: DirectionBank, direction: int, alpha: float) -> torch.Tensor:
    z = torch.randn(1, 32, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        image: torch.Tensor = bake(generator, bank, output_type="float32")(
            z, torch.tensor([[direction]]), torch.tensor([[alpha]])
        )
    return image


def test_a_turned_direction_draws_the_opposite_edit(generator: sefa.Generator, coarse: DirectionBank) -> None:
    bank = replace(coarse, alpha_range=torch.tensor([[-1.0, 4.0]] * 3))
    turned = change(bank, {1: Change("smile", flip=True)})
    torch.testing.assert_close(draw(generator, turned, 1, 2.0), draw(generator, coarse, 1, -2.0))
    torch.testing.assert_close(draw(generator, turned, 0, 2.0), draw(generator, coarse, 0, 2.0))
    assert turned.alpha_range.tolist() == [[-1, 4], [-4, 1], [-1, 4]]
    assert turned.names == ("direction-0", "smile", "direction-2")
    again = change(turned, {1: Change(flip=True)})
    torch.testing.assert_close(again.vectors, bank.vectors, rtol=0, atol=0)


def test_two_names_are_swapped_at_once(coarse: DirectionBank) -> None:
    named = change(coarse, {0: Change("a"), 1: Change("b")})
    assert change(named, {0: Change("b"), 1: Change("a")}).names == ("b", "a", "direction-2")
    with pytest.raises(BankError, match="two directions have the same name 'b'"):
        change(named, {0: Change("b")})


@pytest.mark.parametrize("name", ["7", "a=b", "a:b", "a,b", " a", "x" * 101])
def test_what_is_no_name_is_refused(coarse: DirectionBank, name: str) -> None:
    with pytest.raises(BankError, match="is not a name"):
        change(coarse, {0: Change(name)})


def test_a_subset_draws_the_same_edits_in_its_order(generator: sefa.Generator, coarse: DirectionBank) -> None:
    some = subset(coarse, [2, 0])
    torch.testing.assert_close(draw(generator, some, 0, 2.0), draw(generator, coarse, 2, 2.0))
    torch.testing.assert_close(draw(generator, some, 1, 2.0), draw(generator, coarse, 0, 2.0))
    assert some.names == ("direction-2", "direction-0")
    assert some.source == coarse.source
    for indices in ([], [0, 0], [3], [-1]):
        with pytest.raises(ArgumentError, match=r"directions must be in 0\.\.2"):
            subset(coarse, indices)


def test_a_merged_bank_draws_what_its_parts_draw_and_knows_where_they_came_from(
    generator: sefa.Generator, coarse: DirectionBank, sampled: DirectionBank, tmp_path: Path
) -> None:
    both = DirectionBank.load(merge([coarse, sampled]).save(tmp_path / "both.safetensors"))
    assert both.names == tuple(f"direction-{index}" for index in range(5))
    torch.testing.assert_close(draw(generator, both, 1, 2.0), draw(generator, coarse, 1, 2.0))
    torch.testing.assert_close(draw(generator, both, 4, 2.0), draw(generator, sampled, 1, 2.0))
    assert [both.origin(index).alpha_unit for index in range(5)] == ["distance"] * 3 + ["sigma"] * 2
    assert both.source.method == "sefa + ganspace"
    # What is left of one of them alone is that one again.
    alone = subset(both, [3, 4])
    assert (alone.source, alone.origins) == (sampled.source, ())


def test_layer_groups_merge_to_one_bank_of_one_source(generator: sefa.Generator, coarse: DirectionBank) -> None:
    fine = sefa.factorize(generator, layers="4-7", top=3)
    both = merge([coarse, fine], prefixes=["coarse-", "fine-"])
    assert both.names[2:4] == ("coarse-direction-2", "fine-direction-0")
    assert both.edited_layers[4].nonzero()[:, 0].tolist() == [4, 5, 6, 7]


def test_names_that_were_chosen_are_not_changed_by_a_merge(coarse: DirectionBank) -> None:
    named = change(coarse, {0: Change("pose")})
    with pytest.raises(BankError, match="same name 'pose'"):
        merge([named, named])
    with pytest.raises(ArgumentError, match="1 prefixes for 2 banks"):
        merge([named, coarse], prefixes=["a"])


def test_banks_of_different_generators_do_not_merge(coarse: DirectionBank) -> None:
    other = replace(coarse, source=replace(coarse.source, checkpoint_sha256="0" * 64))
    with pytest.raises(BankError, match=r"different checkpoints, sha256 .* and 000000000000: --allow-other-checkpoint"):
        merge([coarse, other])
    with pytest.raises(ArgumentError, match="no bank"):
        merge([])
