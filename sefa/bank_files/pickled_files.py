"""The contents of torch files, pickles and safetensors as plain values: arrays, numbers, text, lists and dicts."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from sefa.checkpoints.contents import read_contents
from sefa.errors import BankError, CheckpointError
from sefa_runtime.pickles.numpy_arrays import StoredArray

MAX_DEPTH = 3  # of lists and dicts in each other; deeper, files of directions have nothing


def load_pickled(path: Path) -> Any:
    """Read a file of torch, a pickle or a safetensors file; nothing in it is run.

    Raises:
        BankError: If it is missing, damaged or something else.
    """
    try:
        return _plain(read_contents(path))
    except CheckpointError as error:
        raise BankError(f"{path}: {error}") from error.__cause__


def _plain(value: Any, depth: int = 0) -> Any:
    if isinstance(value, Tensor):
        value = value.detach().cpu()
        return (value.float() if value.is_floating_point() and value.itemsize < 4 else value).numpy()
    if isinstance(value, StoredArray):
        return value.array
    if depth < MAX_DEPTH and isinstance(value, Mapping):
        return {key: _plain(item, depth + 1) for key, item in value.items()}
    if depth < MAX_DEPTH and isinstance(value, list | tuple):
        return [_plain(item, depth + 1) for item in value]
    return value
