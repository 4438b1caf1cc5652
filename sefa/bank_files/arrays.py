"""Banks as numpy's `.npz`, and the arrays in any such file."""

import io
import tokenize
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sefa.bank import METADATA_KEY, TENSORS, DirectionBank
from sefa.errors import BankError
from sefa_runtime.files import write_whole

Arrays = Mapping[str, NDArray[Any]]

NPY_HEAD = b"\x93NUMPY"
ZIP_HEAD = b"PK\x03\x04"
SINGLE = ""  # The name of a `.npy` file's only array.
# Far beyond any bank; what claims to be larger is not unpacked.
MAX_BYTES = 2**31
DAMAGED = (ValueError, EOFError, KeyError, MemoryError, OverflowError, tokenize.TokenError, zipfile.BadZipFile)


def load_arrays(path: Path) -> Arrays | None:
    """The arrays in a `.npz` or `.npy` file; None if it is neither.

    Nothing in it is unpickled.

    Raises:
        BankError: If it is damaged, too large, or holds objects rather than numbers.
    """
    with path.open("rb") as file:
        head = file.read(len(NPY_HEAD))
    try:
        if head == NPY_HEAD:
            array: NDArray[Any] = np.load(path, allow_pickle=False)
            return {SINGLE: array}
        if not head.startswith(ZIP_HEAD):
            return None
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
        if not all(entry.filename.endswith(".npy") for entry in entries):
            return None
        if sum(entry.file_size for entry in entries) > MAX_BYTES:
            raise BankError(f"{path}: larger than any direction bank")
        with np.load(path, allow_pickle=False) as file_of_arrays:
            return dict(file_of_arrays)
    except (*DAMAGED, NotImplementedError, RuntimeError, zlib.error) as error:
        if "allow_pickle" in str(error):
            raise BankError(f"{path}: it holds pickled objects, which are not opened; numbers were expected") from error
        raise BankError(f"{path}: not a file of numbers, or damaged") from error


def is_bank(arrays: Arrays) -> bool:
    """Whether `write_bank` wrote them."""
    return METADATA_KEY in arrays


def read_bank(path: Path, arrays: Arrays) -> DirectionBank:
    """The bank that `write_bank` wrote.

    Raises:
        BankError: If something is missing or damaged.
    """
    try:
        tensors = {name: torch.from_numpy(arrays[name]) for name in TENSORS}
        return DirectionBank.build(str(arrays[METADATA_KEY]), tensors)
    except BankError as error:
        raise BankError(f"{path}: {error}") from error.__cause__
    except (KeyError, TypeError) as error:
        raise BankError(f"{path}: damaged direction bank ({error})") from error


def write_bank(bank: DirectionBank, path: Path) -> Path:
    """Write everything of a bank: its tensors, `names` [K], and the rest as JSON.

    Raises:
        OSError: If the file cannot be written.
    """
    arrays: dict[str, Any] = {name: tensor.numpy() for name, tensor in bank.tensors().items()}
    arrays |= {"names": np.array(bank.names), METADATA_KEY: np.array(bank.description())}
    content = io.BytesIO()
    np.savez(content, **arrays)
    write_whole(path, content.getvalue())
    return path
