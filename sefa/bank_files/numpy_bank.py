"""Direction banks as NumPy `.npz` files, and the arrays in any NumPy file."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sefa.bank.direction_bank import METADATA_KEY, TENSORS, DirectionBank
from sefa.errors import BankError
from sefa_runtime.errors import ContentError
from sefa_runtime.files import write_whole
from sefa_runtime.inputs.numpy_files import is_numpy_file, read_numpy_file

Arrays = Mapping[str, NDArray[Any]]


def load_arrays(path: Path) -> Arrays | None:
    """Return the arrays in an `.npz` or `.npy` file; None if it is neither.

    Nothing in the file is unpickled.

    Raises:
        BankError: If the file is damaged, too large, or holds objects rather than numbers.
    """
    if not is_numpy_file(path):
        return None
    try:
        return read_numpy_file(path)
    except ContentError as error:
        raise BankError(f"{path}: {error}") from error.__cause__


def is_bank(arrays: Arrays) -> bool:
    """Return whether the arrays were written by `write_bank`."""
    return METADATA_KEY in arrays


def read_bank(path: Path, arrays: Arrays) -> DirectionBank:
    """Return the bank that `write_bank` wrote.

    Raises:
        BankError: If something is missing or damaged.
    """
    try:
        tensors = {name: torch.tensor(arrays[name]) for name in TENSORS}
        return DirectionBank.build(str(arrays[METADATA_KEY]), tensors)
    except BankError as error:
        raise BankError(f"{path}: {error}") from error.__cause__
    except (KeyError, TypeError) as error:
        raise BankError(f"{path}: damaged direction bank ({error})") from error


def write_bank(bank: DirectionBank, path: Path) -> Path:
    """Write all of a bank: its tensors, `names` [K], and the rest as JSON.

    Raises:
        OSError: If the file cannot be written.
    """
    arrays: dict[str, Any] = {name: tensor.numpy() for name, tensor in bank.tensors().items()}
    arrays |= {"names": np.array(bank.names), METADATA_KEY: np.array(bank.description())}
    content = io.BytesIO()
    np.savez(content, **arrays)
    write_whole(path, content.getvalue())
    return path
