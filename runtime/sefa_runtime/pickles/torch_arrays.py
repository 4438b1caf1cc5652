"""Arrays from a file of `torch.save`, with numpy alone."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sefa_runtime.archives import DAMAGED_ARCHIVE
from sefa_runtime.errors import ContentError, InputError
from sefa_runtime.pickles.arrays import is_shape
from sefa_runtime.pickles.interpreter import Table
from sefa_runtime.pickles.limits import Limits
from sefa_runtime.pickles.names import Name
from sefa_runtime.pickles.tables import PLAIN_TABLE
from sefa_runtime.pickles.torch_archive import read_torch_archive

STORAGES: dict[str, type[np.generic]] = {
    "DoubleStorage": np.float64,
    "FloatStorage": np.float32,
    "HalfStorage": np.float16,
    "BFloat16Storage": np.uint16,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ShortStorage": np.int16,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
}
TENSOR_COST = 20  # Steps of work: an array takes memory of its own.


@dataclass(frozen=True)
class Storage:
    """The numbers that tensors are views of, shape [numel]."""

    numbers: NDArray[Any]
    is_bfloat16: bool


def load_torch_arrays(path: Path) -> Any:
    """What `torch.save` wrote: an array, or dicts and lists of arrays.

    Nothing in it is ever run, and a pickle that names more than what these are made of is refused.

    Raises:
        InputError: If it is damaged, too old, or holds more than tensors.
    """
    limits = Limits(path.stat().st_size)
    try:
        return read_torch_archive(
            path, limits, TABLE, lambda kind: np.dtype(_stored_type(kind)).itemsize, _storage, refuse_unknown=True
        )
    except ContentError as error:
        raise InputError(f"{path}: {error}; a file of tensors alone was expected") from error.__cause__
    except (*DAMAGED_ARCHIVE, LookupError, TypeError) as error:
        raise InputError(f"{path}: not a file of torch.save's present format, or damaged") from error


def _stored_type(kind: object) -> type[np.generic]:
    if not isinstance(kind, Name) or kind.module not in ("torch", "torch.storage") or kind.name not in STORAGES:
        name = kind.name if isinstance(kind, Name) else "of no known type"
        raise ContentError(f"weights of a kind that is not read, {name}: save them as float32")
    return STORAGES[kind.name]


def _storage(kind: object, raw: bytearray) -> Storage:
    return Storage(np.frombuffer(raw, _stored_type(kind)), isinstance(kind, Name) and kind.name == "BFloat16Storage")


def _rebuild_tensor(
    limits: Limits,
    storage: object,
    offset: object,
    size: object,
    stride: object,
    requires_grad: object = False,
    hooks: object = None,
    metadata: object = None,
) -> NDArray[Any]:
    if metadata:
        raise ContentError("a tensor that is lazily negated or conjugated: save a copy of it")
    if not isinstance(storage, Storage) or type(offset) is not int or not is_shape(size) or not is_shape(stride):
        raise ContentError("damaged: a tensor without its storage")
    numbers, count = storage.numbers, math.prod(size)
    last = offset + sum((length - 1) * step for length, step in zip(size, stride, strict=True))
    if offset < 0 or (count and last >= len(numbers)):
        raise ContentError("damaged: a tensor that reaches beyond its storage")
    limits.spend_work(TENSOR_COST)
    limits.spend_elements(count)
    if not count:
        return np.empty(size, numbers.dtype)
    steps = [step * numbers.itemsize for step in stride]
    view = np.lib.stride_tricks.as_strided(numbers[offset:], size, steps, writeable=False)
    # The upper half of a float32.
    return (view.astype(np.uint32) << 16).view(np.float32) if storage.is_bfloat16 else view


def _rebuild_parameter(limits: Limits, tensor: object, *rest: object) -> object:
    return tensor


TABLE: Table = {
    **{name: function for name, function in PLAIN_TABLE.items() if name != ("builtins", "getattr")},
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
}
