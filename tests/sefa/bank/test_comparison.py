from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import sefa
from sefa import BankError, DirectionBank
from sefa.bank.comparison import compare_banks
from sefa.bank.editing import change, subset
from sefa.bank.naming import Change
from sefa.method_comparison.plot import save_matrix
from support.golden_checkpoints import GoldenCheckpoint


@pytest.fixture(scope="module")
def bank() -> DirectionBank:
    return sefa.factorize(GoldenCheckpoint("sefa_stylegan2_64").generator, layers="0-3", top=6)


def test_shuffled_and_turned_directions_find_each_other(bank: DirectionBank) -> None:
    order = [3, 0, 5, 1]
    other = change(subset(bank, order), {1: Change(flip=True)})
    comparison = compare_banks(bank, other)
    assert {(pair.a, pair.b) for pair in comparison.pairs} == {(a, b) for b, a in enumerate(order)}
    assert {pair.a: round(pair.cosine, 5) for pair in comparison.pairs} == {3: 1, 0: -1, 5: 1, 1: 1}


def test_the_cosine_is_that_of_what_is_added_to_all_codes(bank: DirectionBank) -> None:
    other = sefa.factorize(GoldenCheckpoint("sefa_stylegan2_64").generator, layers="2-7", top=5)
    moves = [
        (one.edited_layers[:, :, None] * one.vectors[:, None]).flatten(1).double().numpy() for one in (bank, other)
    ]
    moves = [move / np.linalg.norm(move, axis=1, keepdims=True) for move in moves]
    comparison = compare_banks(bank, other)
    np.testing.assert_allclose(comparison.cosines.numpy(), moves[0] @ moves[1].T, atol=1e-6)
    assert comparison.pairs[0].shared_layers == pytest.approx(2 / (4 * 6) ** 0.5)  # Layers 2 and 3 of 4 and of 6.


def test_edits_of_different_layers_have_nothing_in_common(bank: DirectionBank) -> None:
    other = replace(bank, edited_layers=~bank.edited_layers)
    comparison = compare_banks(bank, other)
    assert not comparison.cosines.any()
    assert comparison.pairs[0].same_direction == pytest.approx(1)


def test_lengths_do_not_matter() -> None:
    generator = GoldenCheckpoint("sefa_stylegan2_64").generator
    sampled = sefa.factorize(generator, top=4, method="ganspace", samples=500)
    unit = replace(
        sampled,
        vectors=torch.nn.functional.normalize(sampled.vectors, dim=1),
        source=replace(sampled.source, alpha_unit="distance"),
    )
    assert [pair.cosine for pair in compare_banks(sampled, unit).pairs] == pytest.approx([1] * 4)


def test_banks_of_other_sizes_are_refused(bank: DirectionBank) -> None:
    other = replace(bank, vectors=torch.eye(6, 7))
    with pytest.raises(BankError, match="one is for 10 layers and codes of 32, the other for 10 and 7"):
        compare_banks(bank, other)


def test_the_matrix_is_drawn_with_its_values_as_colours(bank: DirectionBank, tmp_path: Path) -> None:
    path = tmp_path / "matrix.png"
    named = change(bank, {0: Change("a $very$ long name of a direction that does not fit")})
    save_matrix(compare_banks(named, bank), named, bank, path)
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB")).reshape(-1, 3).astype(int)
    # viridis: yellow for the six cells of 1, dark purple for the others.
    yellow, purple = ((np.abs(pixels - colour).sum(axis=1) < 12).sum() for colour in ([253, 231, 37], [68, 1, 84]))
    assert yellow > 0
    assert 3 < purple / yellow < 7


def test_the_most_alike_are_matched_first_each_once(bank: DirectionBank) -> None:
    other = sefa.factorize(GoldenCheckpoint("sefa_stylegan2_64").generator, layers="2-7", top=4)
    comparison = compare_banks(bank, other)
    left = np.abs(comparison.cosines.numpy())
    expected = []
    while (left >= 0).any():
        row, column = np.unravel_index(left.argmax(), left.shape)
        expected.append((int(row), int(column)))
        left[row], left[:, column] = -1, -1
    assert [(pair.a, pair.b) for pair in comparison.pairs] == expected


def test_more_pairs_than_memory_are_refused(bank: DirectionBank, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sefa.bank.comparison.MAX_PAIRS", 35)
    with pytest.raises(BankError, match="6 x 6 directions are more than can be compared at once"):
        compare_banks(bank, bank)
