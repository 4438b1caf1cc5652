"""Tensors of every kind that torch can save: read right, or refused with one line by both readers."""

import warnings
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch

import sefa
from sefa import CheckpointError
from sefa_runtime import InputError
from sefa_runtime.inputs.code_files import load_codes

WEIGHT = torch.arange(1.0, 1 + 4 * 3 * 16).reshape(4, 3, 4, 4)
DTYPES = sorted({str(kind): kind for kind in vars(torch).values() if isinstance(kind, torch.dtype)}.items())


def of_kind(kind: torch.dtype) -> torch.Tensor:
    try:
        return WEIGHT.to(kind)
    except (RuntimeError, NotImplementedError):
        return torch.empty(4, 3, 4, 4, dtype=kind)


def odd_tensors() -> dict[str, Any]:
    matrix = WEIGHT[:, :, 0, 0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {
            "sparse": matrix.to_sparse(),
            "sparse rows": matrix.to_sparse_csr(),
            "quantised": torch.quantize_per_tensor(WEIGHT, 0.1, 0, torch.qint8),
            "quantised by channels": torch.quantize_per_channel(
                WEIGHT, torch.ones(4), torch.zeros(4, dtype=torch.int64), 0, torch.quint8
            ),
            "nested": torch.nested.nested_tensor([torch.ones(2, 3), torch.ones(3, 3)]),
            "jagged": torch.nested.nested_tensor([torch.ones(2, 3), torch.ones(3, 3)], layout=torch.jagged),
            "without numbers": WEIGHT.to("meta"),
            "conjugated": (WEIGHT + 1j).conj(),
            "negated": torch._neg_view(WEIGHT),
            "scalar": torch.tensor(1.0),
            "empty": torch.empty(0, 3, 4, 4),
        }


def check(path: Path, content: Any) -> None:
    """Both readers, of a file that holds this alone or beside ordinary weights."""
    for document in (
        content,
        OrderedDict({"main.0.weight": content, "main.1.weight": torch.ones(3)}),
        {"G": [content]},
    ):
        try:
            torch.save(document, path)
        except (RuntimeError, NotImplementedError, KeyError, ValueError):
            return  # torch cannot save it.
        for read in (lambda: sefa.load(path), lambda: load_codes(path, (5, 7))):
            with pytest.raises(
                (CheckpointError, InputError)
            ) as caught:  # No generator, and no codes of 5 layers and 7 numbers.
                read()
            assert str(caught.value).startswith(f"{path}: ")
            assert str(caught.value).isprintable()


@pytest.mark.parametrize("kind", [kind for _, kind in DTYPES], ids=[name for name, _ in DTYPES])
@pytest.mark.filterwarnings("ignore")
def test_every_dtype_is_read_or_refused(tmp_path: Path, kind: torch.dtype) -> None:
    check(tmp_path / "x.pth", of_kind(kind))


@pytest.mark.filterwarnings("ignore")
def test_every_other_kind_is_read_or_refused(tmp_path: Path) -> None:
    for tensor in odd_tensors().values():
        check(tmp_path / "x.pth", tensor)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["jagged", "negated", "nested", "sparse"])
def test_a_weight_that_is_not_read_is_never_left_out(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "netG.pth"
    torch.save(OrderedDict({"main.0.weight": odd_tensors()[kind], "main.1.weight": torch.ones(4, 3, 4, 4)}), path)
    with pytest.raises(CheckpointError, match=r"main\.0\.weight is not an ordinary tensor of weights"):
        sefa.load(path)


def test_codes_that_are_lazily_negated_are_not_read_with_the_wrong_sign(tmp_path: Path) -> None:
    torch.save(torch._neg_view(torch.ones(4, 5)), tmp_path / "codes.pt")
    with pytest.raises(InputError, match="lazily negated"):
        load_codes(tmp_path / "codes.pt", (4, 5))
