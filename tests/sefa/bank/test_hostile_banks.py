"""Direction banks made to take for ever or to fill the memory: refused soon, or read soon."""

import json
import struct
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save

from sefa.bank.direction_bank import METADATA_KEY, DirectionSource
from support.resource_use import MAX_CPU_S, MAX_MB, Reading, check_refused, readings

SOURCE = DirectionSource("dcgan", "", "sefa", "none", 1, "0")


def bank_of(count: int, names: Any = None, **changes: Any) -> bytes:
    """A bank of `count` directions of length 1, D = 1."""
    document = {
        "format_version": 2,
        "names": [f"direction-{index}" for index in range(count)] if names is None else names,
        "source": asdict(SOURCE),
    }
    return _file(count, json.dumps(document | changes))


def _file(count: int, description: str, extra: int = 0) -> bytes:
    tensors = {
        "vectors": torch.ones(count, 1),
        "eigenvalues": torch.ones(count, dtype=torch.float64),
        "edited_layers": torch.ones(count, 1, dtype=torch.bool),
        "analysed_layers": torch.ones(count, 1, dtype=torch.bool),
        "alpha_range": torch.tensor([-1.0, 1.0]).repeat(count, 1),
    } | {f"extra-{index}": torch.ones(1) for index in range(extra)}
    return save(tensors, {METADATA_KEY: description})


def long_header() -> bytes:
    header = json.dumps({"__metadata__": {METADATA_KEY: "x" * 20_000_000}}).encode()
    return struct.pack("<Q", len(header)) + header


MANY = 50_000
REFUSED: dict[str, Callable[[], bytes]] = {
    "the last name twice": lambda: bank_of(MANY, [*map("n{}".format, range(MANY - 1)), f"n{MANY - 2}"]),
    "names that are none": lambda: bank_of(MANY, [f"{index}" for index in range(MANY)]),
    "names of other kinds": lambda: bank_of(3, [{}, [], 1]),
    "long names": lambda: bank_of(3, ["x" * 1_000_000, "y", "z"]),
    "nested deep": lambda: _file(1, "[" * 100_000 + "]" * 100_000),
    "nested deep, in a field": lambda: _file(
        1, '{"format_version": 2, "names": ' + "[" * 100_000 + "]" * 100_000 + "}"
    ),
    "a number of many digits": lambda: _file(1, '{"format_version": ' + "9" * 100_000 + "}"),
    "a long description": lambda: _file(1, " " * 9_000_000 + "{}"),
    "a long header": long_header,
    "origins of nothing": lambda: bank_of(2, origins=[], origin_of=[0, 0]),
    "origins that are none": lambda: bank_of(2, origins=[asdict(SOURCE)], origin_of=["a", None]),
    "more rows than names": lambda: bank_of(MANY, ["a"]),
    "no description": lambda: save({"weight": torch.ones(1)}),
    "tensors that no bank has, and none that it has": lambda: save(
        {f"t{index}": torch.ones(1) for index in range(20_000)}, {METADATA_KEY: "{}"}
    ),
    "truncated": lambda: bank_of(3)[:-1],
    "a header beyond the file": lambda: struct.pack("<Q", 2**40) + b"{}",
}
READ: dict[str, Callable[[], bytes]] = {
    "many names": lambda: bank_of(MANY),
    "many origins": lambda: bank_of(
        20_000,
        origins=[asdict(SOURCE) | {"seed": index} for index in range(20_000)],
        origin_of=list(range(20_000)),
    ),
}


@pytest.fixture(scope="module")
def read_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Reading]:
    folder = tmp_path_factory.mktemp("hostile")
    paths = []
    for index, make in enumerate((REFUSED | READ).values()):
        paths.append(folder / f"{index}.safetensors")
        paths[-1].write_bytes(make())
    found = readings(
        "import sefa.bank.direction_bank", "sefa.bank.direction_bank.DirectionBank.load(path).description()", paths
    )
    return dict(zip(REFUSED | READ, found, strict=True))


@pytest.mark.parametrize("kind", REFUSED)
def test_a_hostile_bank_is_refused_soon(read_files: dict[str, Reading], kind: str) -> None:
    check_refused(read_files[kind], "BankError")
    assert len(read_files[kind].message) < 2000


@pytest.mark.parametrize("kind", READ)
def test_a_large_bank_is_read_soon(read_files: dict[str, Reading], kind: str) -> None:
    reading = read_files[kind]
    assert (reading.error, reading.message) == ("", "")
    assert reading.cpu_s < MAX_CPU_S
    assert reading.peak_mb < MAX_MB


def test_arrays_of_a_bank_that_are_no_tensors_are_refused(tmp_path: Path) -> None:
    from sefa.bank_files import import_bank
    from sefa.errors import BankError

    good = {
        "vectors": np.ones((1, 1), np.float32),
        "eigenvalues": np.ones(1),
        "edited_layers": np.ones((1, 1), bool),
        "analysed_layers": np.ones((1, 1), bool),
        "alpha_range": np.array([[-1, 1]], np.float32),
        METADATA_KEY: np.array(json.dumps({"format_version": 2, "names": ["a"], "source": asdict(SOURCE)})),
    }
    path = tmp_path / "bank.npz"
    np.savez(path, **good)  # type: ignore[arg-type]
    assert import_bank(path).names == ("a",)
    odd = [
        np.array(["text"]),
        np.ones((1, 1), np.longdouble),
        np.ones((1, 1), np.uint32),
        np.float32(1),
        np.empty((0, 9)),
    ]
    for array in odd:
        np.savez(path, **good | {"vectors": array})  # type: ignore[arg-type]
        with pytest.raises(BankError, match=r"bank\.npz: .*direction bank"):
            import_bank(path)
