"""Arrays from a file of `torch.save`, with numpy alone.

The archive is a pickle beside one member for each storage. The pickle's names are looked up in a table of this module's
own; nothing is imported, and any other name is refused.
"""

import io
import math
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sefa_runtime.errors import InputError

STORAGES: dict[str, type[np.generic]] = {
    "DoubleStorage": np.float64,
    "FloatStorage": np.float32,
    "HalfStorage": np.float16,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ByteStorage": np.uint8,
}
MAX_BYTES = 2**31


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, archive: zipfile.ZipFile, root: str) -> None:
        super().__init__(file)
        self._archive = archive
        self._root = root

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and name in STORAGES:
            return _StorageType(STORAGES[name])
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) in (("torch._utils", "_rebuild_tensor_v2"), ("torch._utils", "_rebuild_parameter")):
            return _Rebuild(name)
        raise InputError(f"a pickle that wants {module}.{name}: refused, nothing in it was run; save tensors alone")

    def persistent_load(self, pid: Any) -> NDArray[Any]:
        _, kind, key, _, count = pid
        data = self._archive.read(f"{self._root}data/{key}")
        array: NDArray[Any] = np.frombuffer(data, kind.dtype)
        if array.size != count:
            raise ValueError("a storage of another size")
        return array


class _StorageType:
    __slots__ = ("dtype",)

    def __init__(self, dtype: type[np.generic]) -> None:
        self.dtype = dtype


class _Rebuild:
    """One of torch's functions that make tensors, as an object of its own for each mention."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, *arguments: Any) -> NDArray[Any]:
        if self.name == "_rebuild_parameter":
            return arguments[0]  # type: ignore[no-any-return]
        storage, offset, size, stride = arguments[:4]
        last = offset + sum((length - 1) * step for length, step in zip(size, stride, strict=True))
        if min((offset, *size, *stride)) < 0 or last >= storage.size or math.prod(size) > storage.size:
            raise ValueError("a tensor that does not fit its storage")
        steps = [step * storage.itemsize for step in stride]
        return np.lib.stride_tricks.as_strided(storage[offset:], size, steps).copy()


def load_torch_arrays(path: Path) -> Any:
    """What `torch.save` wrote: an array, or dicts and lists of arrays.

    Raises:
        InputError: If it is damaged, too old, or holds more than tensors.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(member.file_size for member in archive.infolist()) > MAX_BYTES:
                raise InputError(f"{path}: more than {MAX_BYTES >> 30} GiB")
            (name,) = [name for name in archive.namelist() if name.endswith("/data.pkl")]
            return _Unpickler(io.BytesIO(archive.read(name)), archive, name.removesuffix("data.pkl")).load()
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    except Exception as error:  # What a damaged pickle raises has no class of its own.
        raise InputError(f"{path}: not a file of torch.save's present format, or damaged") from error
