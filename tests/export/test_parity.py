from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import sefa
from sefa_export import EditGraph, VerificationError
from sefa_export.bake import quantize
from sefa_export.draft import Draft, prepare
from sefa_export.parity import BATCHES, EDITS, Case, make_cases, verify


def draft_of(golden: Path, output_type: str) -> Draft:
    generator = sefa.load(golden / "checkpoints/dcgan_small_64/netG.pth")
    bank = sefa.factorize(generator)
    return prepare(generator, bank, output_type, latent="z", truncation=1.0, allow_other_checkpoint=False)


@pytest.fixture
def draft(golden: Path) -> Draft:
    return draft_of(golden, "uint8")


@pytest.fixture
def graph(draft: Draft) -> EditGraph:
    return draft.graph


def run(graph: EditGraph, case: Case) -> np.ndarray[Any, Any]:
    image: np.ndarray[Any, Any] = graph(*map(torch.from_numpy, case.feeds.values())).numpy()
    return image


def test_the_cases_are_every_combination_and_the_same_each_time(draft: Draft) -> None:
    cases, again = make_cases(draft), make_cases(draft)
    assert {case.shape for case in cases} == {(batch, edits) for batch in BATCHES for edits in EDITS}
    for one, other in zip(cases, again, strict=True):
        np.testing.assert_array_equal(one.feeds["z"], other.feeds["z"])


def test_what_is_equal_passes_with_no_error(draft: Draft, graph: EditGraph) -> None:
    parity = verify(draft, lambda case: run(graph, case), make_cases(draft))
    assert (parity.max_abs_error, parity.changed_fraction) == (0, 0)


def levels_of_moved(graph: EditGraph, case: Case, distance: float) -> np.ndarray[Any, Any]:
    with torch.no_grad():
        image = graph.render(*map(torch.from_numpy, case.feeds.values()))
        moved: np.ndarray[Any, Any] = quantize(image + distance).numpy()
    return moved


def test_values_that_cross_a_rounding_border_pass_and_are_measured(draft: Draft, graph: EditGraph) -> None:
    parity = verify(draft, lambda case: levels_of_moved(graph, case, 5e-5), make_cases(draft))
    assert parity.max_abs_error == 1
    assert 0 < parity.changed_fraction < 2e-2


def test_a_level_further_than_rounding_explains_is_a_mismatch(draft: Draft, graph: EditGraph) -> None:
    with pytest.raises(VerificationError, match=r"farther than 0\.0001 from PyTorch's; largest error 1 levels"):
        verify(draft, lambda case: levels_of_moved(graph, case, 2e-3), make_cases(draft))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda image: image ^ 1, r"batch 1, edits 0: 9\d\.\d\d% of the values are farther than 0\.0001"),
        (lambda image: image // 2, "batch 7, edits 3: .* largest error"),
        (lambda image: image.transpose(0, 3, 1, 2), r"batch 2, edits 1: image is uint8 \[2, 3, 64, 64\]"),
        (lambda image: image.astype(np.float32), "image is float32"),
        (lambda image: image[:1], r"batch 2, edits 0: image is uint8 \[1, 64, 64, 3\], expected uint8 \[2"),
    ],
)
def test_what_differs_is_named_case_by_case(draft: Draft, graph: EditGraph, spoil: Any, message: str) -> None:
    with pytest.raises(VerificationError, match=message):
        verify(draft, lambda case: spoil(run(graph, case)), make_cases(draft))


def test_a_graph_that_fails_for_some_batches_is_a_mismatch(draft: Draft, graph: EditGraph) -> None:
    def frozen(case: Case) -> np.ndarray[Any, Any]:
        if case.shape[0] != 1:
            raise RuntimeError("Got invalid dimensions\nfor input: z")
        return run(graph, case)

    with pytest.raises(VerificationError, match=r"batch 2, edits 0: does not run .Got invalid dimensions for"):
        verify(draft, frozen, make_cases(draft))


def test_nan_is_a_mismatch(golden: Path) -> None:
    draft = draft_of(golden, "float32")
    graph = draft.graph
    with pytest.raises(VerificationError, match="largest error nan"):
        verify(draft, lambda case: run(graph, case) * np.float32(np.nan), make_cases(draft))


def test_what_was_known_before_is_reported_together(draft: Draft, graph: EditGraph) -> None:
    with pytest.raises(VerificationError, match="PyTorch: inputs are wrong; batch 1, edits 0: "):
        verify(draft, lambda case: run(graph, case) // 2, make_cases(draft), ["inputs are wrong"])
