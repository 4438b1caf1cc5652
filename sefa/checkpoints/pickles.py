"""Reading pickles without running anything in them.

A pickle names the functions that rebuild its objects. Here every name is looked up in a table of this module's own
functions and inert classes; nothing is imported, and a name that is not in the table becomes a placeholder.
"""

import io
import math
import pickle
import re
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from sefa.checkpoints.objects import PersistedModule, StoredArray, TensorFlowNetwork, placeholder
from sefa.errors import CheckpointError

# Names of torch's storages in pickles, and what they hold.
STORAGES: dict[str, torch.dtype] = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
# The stream that torch.save wrote before it wrote zip archives.
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_PROTOCOL = 1001
MAX_ELEMENTS = 2**32  # of one tensor: strides of 0 let a small file claim any number


class StorageType:
    """Stands for torch.FloatStorage and the like."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype


class RestrictedUnpickler(pickle.Unpickler):
    """An unpickler that imports nothing.

    Args:
        file: The pickle.
        load_storage: What a torch container's persistent ids stand for: called with dtype, key and number of elements.
    """

    def __init__(
        self, file: Any, load_storage: Callable[[torch.dtype, str, int], Tensor] | None = None, encoding: str = "ASCII"
    ) -> None:
        super().__init__(file, encoding=encoding)
        self._load_storage = load_storage

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and name in STORAGES:
            return StorageType(STORAGES[name])
        return TABLE.get((module, name)) or placeholder(module, name)

    def persistent_load(self, pid: Any) -> Tensor:
        if (
            self._load_storage is None
            or not isinstance(pid, tuple)
            or len(pid) < 5
            or pid[0] != "storage"
            or not isinstance(pid[1], StorageType)
        ):
            raise CheckpointError("damaged: a reference to something outside the file")
        return self._load_storage(pid[1].dtype, str(pid[2]), int(pid[4]))


def read_legacy_stream(file: BinaryIO, size: int) -> Any:
    """Read what torch.save wrote before it wrote zip archives: five pickles, then the storages.

    Args:
        file: At the stream's beginning.
        size: Where it ends.

    Raises:
        CheckpointError: If it is damaged.
    """
    if RestrictedUnpickler(file).load() != LEGACY_MAGIC or RestrictedUnpickler(file).load() != LEGACY_PROTOCOL:
        raise CheckpointError("not a torch file, or damaged")
    RestrictedUnpickler(file).load()  # Of the system that wrote it.
    storages: dict[str, Tensor] = {}

    def allocate(dtype: torch.dtype, key: str, numel: int) -> Tensor:
        if key not in storages:
            if not 0 <= numel * dtype.itemsize <= size:
                raise CheckpointError("damaged: a tensor of more bytes than the file has")
            storages[key] = torch.empty(numel, dtype=dtype)
        return storages[key]

    content = RestrictedUnpickler(file, allocate).load()
    keys = RestrictedUnpickler(file).load()
    if not isinstance(keys, list) or sorted(map(str, keys)) != sorted(storages):
        raise CheckpointError("damaged: its list of storages does not fit its tensors")
    for key in keys:
        storage = storages[str(key)]
        count = int.from_bytes(file.read(8), "little")
        if count != storage.numel() or file.readinto(storage.numpy().view(np.uint8).data) != storage.nbytes:
            raise CheckpointError("truncated: it ends within its weights")
    return content


def read_torch_zip(path: Path) -> Any:
    """Read the archive that torch.save writes: a pickle, and one member for each storage.

    Raises:
        CheckpointError: If it is damaged.
    """
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        (pickle_name,) = [name for name in names if name.count("/") == 1 and name.endswith("/data.pkl")]
        root = pickle_name.removesuffix("data.pkl")
        if f"{root}byteorder" in names and archive.read(f"{root}byteorder").strip() != b"little":
            raise CheckpointError("written by a big-endian machine")
        storages: dict[str, Tensor] = {}

        def load_storage(dtype: torch.dtype, key: str, numel: int) -> Tensor:
            if key not in storages:
                data = archive.read(f"{root}data/{key}")
                if len(data) != numel * dtype.itemsize:
                    raise CheckpointError("damaged: a storage of another size than its tensor's")
                storages[key] = torch.frombuffer(bytearray(data), dtype=dtype)
            return storages[key]

        return RestrictedUnpickler(io.BytesIO(archive.read(pickle_name)), load_storage).load()


def _rebuild_tensor(storage: Any, offset: int, size: Any, stride: Any, *rest: object) -> Tensor:
    if not isinstance(storage, Tensor) or storage.ndim != 1:
        raise CheckpointError("damaged: a tensor without its storage")
    size, stride = tuple(size), tuple(stride)
    last = offset + sum((length - 1) * step for length, step in zip(size, stride, strict=True))
    if min((offset, *size, *stride)) < 0 or math.prod(size) > MAX_ELEMENTS:
        raise CheckpointError(f"damaged: a tensor of size {size}, strides {stride}")
    if math.prod(size) and last >= storage.numel():
        raise CheckpointError("damaged: a tensor that reaches beyond its storage")
    return torch.as_strided(storage, size, stride, offset)


def _rebuild_parameter(tensor: Any, *rest: object) -> Any:
    return tensor


def _load_storage(data: Any) -> Tensor:
    """What torch.storage._load_from_bytes gives, which would run anything: one storage, as a legacy stream."""
    if not isinstance(data, bytes):
        raise CheckpointError("damaged: a storage that is no bytes")
    storage = read_legacy_stream(io.BytesIO(data), len(data))
    if not isinstance(storage, Tensor):
        raise CheckpointError("damaged: a storage that is no storage")
    return storage


def _reconstruct_persistent_object(meta: Any) -> PersistedModule:
    if not isinstance(meta, dict) or meta.get("type") != "class" or not isinstance(meta.get("state"), dict):
        raise CheckpointError("damaged: a network without its state")
    return PersistedModule(str(meta.get("class_name")), meta["state"])


class _ArrayType:
    """Stands for numpy.ndarray, where a pickle passes it to the function that makes one."""


class _Dtype:
    """Stands for numpy.dtype: kinds of numbers alone, as object arrays would hold anything."""

    def __init__(self, name: Any, *rest: object) -> None:
        if not isinstance(name, str) or not re.fullmatch(r"[biuf]\d{1,2}", name):
            raise CheckpointError(f"damaged, or not numbers: an array of {name!r}")
        self.name = name
        self.byte_order = "="

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) < 2 or state[1] not in ("<", ">", "=", "|"):
            raise CheckpointError("damaged: an array of unknown byte order")
        self.byte_order = state[1]

    def numpy(self) -> np.dtype[Any]:
        return np.dtype(self.byte_order + self.name)


def _scalar(dtype: Any, data: Any) -> Any:
    if not isinstance(dtype, _Dtype) or not isinstance(data, bytes) or len(data) != dtype.numpy().itemsize:
        raise CheckpointError("damaged: a number without its bytes")
    return np.frombuffer(data, dtype.numpy())[0]


class _Array(StoredArray):
    """An array that the BUILD after its reconstruction fills."""

    def __init__(self, *arguments: object) -> None:
        super().__init__(np.empty(0))

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) != 5 or not isinstance(state[2], _Dtype):
            raise CheckpointError("damaged: an array without its contents")
        _, shape, dtype, fortran_order, data = state
        if isinstance(data, str):  # Of Python 2.
            data = data.encode("latin1")
        if not isinstance(data, bytes) or len(data) != math.prod(shape) * dtype.numpy().itemsize:
            raise CheckpointError(f"damaged: an array of shape {shape} without its bytes")
        self.array = np.frombuffer(data, dtype.numpy()).reshape(shape, order="F" if fortran_order else "C")


TABLE: Mapping[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("builtins", "set"): set,
    ("dnnlib.util", "EasyDict"): dict,
    ("torch_utils.persistence", "_reconstruct_persistent_obj"): _reconstruct_persistent_object,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
    ("torch._utils", "_rebuild_parameter_with_state"): _rebuild_parameter,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch.storage", "_load_from_bytes"): _load_storage,
    ("numpy", "ndarray"): _ArrayType,
    ("numpy", "dtype"): _Dtype,
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy._core.multiarray", "scalar"): _scalar,
    ("tfutil", "Network"): TensorFlowNetwork,
    ("dnnlib.tflib.network", "Network"): TensorFlowNetwork,
}
