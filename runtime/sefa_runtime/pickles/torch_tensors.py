"""Torch tensors in pickles: views of storages, whose numbers are outside the pickle."""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sefa_runtime.errors import ContentError
from sefa_runtime.pickles.interpreter import Table
from sefa_runtime.pickles.limits import Limits
from sefa_runtime.pickles.names import MAX_LENGTH, Name
from sefa_runtime.pickles.numpy_arrays import StoredArray, is_shape
from sefa_runtime.pickles.placeholders import Placeholder

# Bytes per number, by torch's name for its type.
ITEMSIZES = {
    **dict.fromkeys(("bool", "uint8", "int8"), 1),
    **dict.fromkeys(("float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e8m0fnu"), 1),
    **dict.fromkeys(("float16", "bfloat16", "int16", "uint16"), 2),
    **dict.fromkeys(("float32", "int32", "uint32", "complex32"), 4),
    **dict.fromkeys(("float64", "int64", "uint64", "complex64"), 8),
    "complex128": 16,
    "qint8": 1,
    "quint8": 1,
    "qint32": 4,
}
# The types built into NumPy; other packages may add some to it.
IN_NUMPY = re.compile(r"bool|u?int\d+|float(16|32|64)|complex(64|128)")
# Names of torch's storage classes in pickles, and the type of their numbers.
STORAGES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
    "UntypedStorage": "uint8",
    "ComplexFloatStorage": "complex64",
    "ComplexDoubleStorage": "complex128",
    "QInt8Storage": "qint8",
    "QUInt8Storage": "quint8",
    "QInt32Storage": "qint32",
}
STORAGE_MODULES = ("torch", "torch.cuda", "torch.storage")
TENSOR_COST = 20  # Steps of work: a tensor object takes memory itself.


@dataclass(frozen=True)
class Storage:
    """Numbers that tensors are views of.

    Attributes:
        raw: Their bytes; zeros until the whole pickle has been read.
        dtype: Their type, by torch's name: "float32".
    """

    raw: memoryview
    dtype: str

    def __len__(self) -> int:
        return len(self.raw) // ITEMSIZES[self.dtype]


class Storages:
    """The storages that a pickle refers to, to be filled once it has been read.

    Attributes:
        raw: Their bytes, by their names in the file.
        lengths: How many numbers each has.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.raw: dict[str, bytearray] = {}
        self.lengths: dict[str, int] = {}

    def load(self, reference: object) -> Storage:
        """Return the storage for a persistent id.

        Raises:
            ContentError: If it is not a storage's id, or the storage cannot be in the file.
        """
        kind, name, length, view = None, None, None, None
        if isinstance(reference, tuple) and len(reference) in (5, 6) and reference[0] == "storage":
            _, kind, name, _, length, *rest = reference
            view = rest[0] if rest else None
        if not isinstance(name, str | int) or type(length) is not int or length < 0 or len(str(name)) > MAX_LENGTH:
            raise ContentError("damaged: a reference to something outside the file")
        dtype, key = _storage_dtype(kind), str(name)
        size = length * ITEMSIZES[dtype]
        if key not in self.raw:
            self._limits.spend_bytes(size)
            try:
                self.raw[key] = bytearray(size)
            except MemoryError as error:
                raise ContentError(f"there is no memory for its weights, one storage of {size >> 20} MB") from error
            self.lengths[key] = length
        raw = memoryview(self.raw[key])
        if len(raw) != size:
            raise ContentError(f"damaged: its storage {key[:20]} has two sizes")
        return Storage(raw if view is None else _part_of(raw, view, ITEMSIZES[dtype]), dtype)


@dataclass(frozen=True)
class StoredTensor:
    """Stand-in for a tensor, which is a view of a storage.

    Attributes:
        storage: The storage.
        offset: Position of the first element, in elements.
        size: The shape.
        stride: The strides, in elements.
    """

    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]

    @cached_property
    def array(self) -> NDArray[Any]:
        """The tensor as a NumPy array; bfloat16 becomes float32.

        Raises:
            ContentError: If NumPy has no such type.
        """
        is_bfloat16 = self.storage.dtype == "bfloat16"
        name = "uint16" if is_bfloat16 else self.storage.dtype
        if not IN_NUMPY.fullmatch(name):
            raise ContentError(f"numbers of type {name} are not read: save them as float32")
        dtype = np.dtype(name)
        numbers = np.frombuffer(self.storage.raw, dtype, len(self.storage))[self.offset :]
        steps = [step * dtype.itemsize for step in self.stride]
        if not math.prod(self.size):
            return np.empty(self.size, dtype)
        view = np.lib.stride_tricks.as_strided(numbers, self.size, steps, writeable=False)
        # bfloat16 is the upper half of a float32.
        return (view.astype(np.uint32) << 16).view(np.float32) if is_bfloat16 else view


# Makes what takes the place of a tensor from a storage, an offset, a size and a stride, which stay within the storage.
MakeTensor = Callable[[Storage, int, tuple[int, ...], tuple[int, ...]], Any]


def tensor_table(make_tensor: MakeTensor) -> Table:
    """Return the functions called in place of torch's own.

    Args:
        make_tensor: Makes what takes the place of tensors: `StoredTensor`, or a function that makes real ones.
    """
    return {key: partial(rebuild, make_tensor) for key, rebuild in REBUILDING.items()}


def _storage_dtype(kind: object) -> str:
    """Return the type of the numbers in a storage class, such as `torch.FloatStorage`.

    Raises:
        ContentError: If it is not a storage class.
    """
    if not isinstance(kind, Name) or kind.module not in STORAGE_MODULES or kind.name not in STORAGES:
        raise ContentError("damaged: weights of no known type")
    return STORAGES[kind.name]


def _part_of(raw: memoryview, view: object, itemsize: int) -> memoryview:
    """Return part of a storage: in old versions a view has its own name, its start and its length."""
    if not isinstance(view, tuple) or [type(number) for number in view[1:]] != [int, int]:
        raise ContentError("damaged: a reference to a part of a storage")
    _, start, length = view
    if start < 0 or length < 0 or (start + length) * itemsize > len(raw):
        raise ContentError("damaged: a storage that reaches beyond another")
    return raw[start * itemsize : (start + length) * itemsize]


def _rebuild_tensor(
    make_tensor: MakeTensor,
    limits: Limits,
    storage: object,
    offset: object,
    size: object,
    stride: object,
    requires_grad: object = False,
    hooks: object = None,
    metadata: object = None,
    *rest: object,
) -> object:
    is_plain = metadata is None or (isinstance(metadata, dict) and not metadata)
    if not is_plain:  # Its numbers differ in sign from those in the storage.
        return Placeholder("torch._utils._rebuild_tensor_v2, lazily negated or conjugated")
    if not isinstance(storage, Storage) or type(offset) is not int or not is_shape(size) or not is_shape(stride):
        raise ContentError("damaged: a tensor without its storage")
    if storage.dtype.startswith("q"):
        return Placeholder("torch._utils._rebuild_tensor_v2 of quantised numbers without their scale")
    if len(size) != len(stride):
        raise ContentError("damaged: a tensor with more or fewer strides than axes")
    count = math.prod(size)
    last = offset + sum((length - 1) * step for length, step in zip(size, stride, strict=True))
    if offset < 0 or (count and last >= len(storage)):
        raise ContentError("damaged: a tensor that reaches beyond its storage")
    limits.spend_work(TENSOR_COST)
    limits.spend_elements(count)
    return make_tensor(storage, offset if count else 0, size, stride)


def _rebuild_tensor_v3(
    make_tensor: MakeTensor,
    limits: Limits,
    storage: object,
    offset: object,
    size: object,
    stride: object,
    requires_grad: object,
    hooks: object,
    dtype: object,
    metadata: object = None,
    *rest: object,
) -> object:
    # For types without a storage class: float8, unsigned integers.
    if not isinstance(dtype, Name) or dtype.module != "torch" or not isinstance(storage, Storage):
        raise ContentError("damaged: a tensor of no known type")
    if dtype.name not in ITEMSIZES:
        return Placeholder(f"torch._utils._rebuild_tensor_v3 of {dtype}")
    typed = Storage(storage.raw, dtype.name)
    return _rebuild_tensor(make_tensor, limits, typed, offset, size, stride, requires_grad, hooks, metadata)


def _rebuild_parameter(make_tensor: MakeTensor, limits: Limits, tensor: object, *rest: object) -> object:
    return tensor


def _rebuild_from_type(
    make_tensor: MakeTensor, limits: Limits, function: object, kind: object, arguments: object, *rest: object
) -> object:
    # For tensors with attributes, and for subclasses.
    if not isinstance(function, Name) or not isinstance(arguments, tuple):
        raise ContentError("damaged: a tensor without its storage")
    rebuild = REBUILDING.get((function.module, function.name))
    if rebuild in (_rebuild_tensor, _rebuild_tensor_v3, _rebuild_parameter):
        return rebuild(make_tensor, limits, *arguments)
    return Placeholder(f"torch._tensor._rebuild_from_type_v2 of {function}")


def _rebuild_from_array(make_tensor: MakeTensor, limits: Limits, array: object, *rest: object) -> object:
    # For tensors that were on a TPU.
    numbers = array.array if isinstance(array, StoredArray) else None
    if numbers is None or numbers.dtype.name not in ITEMSIZES:
        raise ContentError("damaged: a tensor without its numbers")
    limits.spend_elements(numbers.size)
    raw = bytearray(numbers.astype(numbers.dtype.newbyteorder("=")).tobytes())
    stride = tuple(math.prod(numbers.shape[axis + 1 :]) for axis in range(numbers.ndim))
    return make_tensor(Storage(memoryview(raw), numbers.dtype.name), 0, numbers.shape, stride)


REBUILDING: dict[tuple[str, str], Callable[..., Any]] = {
    ("torch.nn.parameter", "Parameter"): _rebuild_parameter,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
    ("torch._utils", "_rebuild_parameter_with_state"): _rebuild_parameter,
    ("torch._utils", "_rebuild_tensor"): _rebuild_tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_tensor_v3"): _rebuild_tensor_v3,
    ("torch._utils", "_rebuild_device_tensor_from_numpy"): _rebuild_from_array,
    ("torch._utils", "_rebuild_device_tensor_from_cpu_tensor"): _rebuild_parameter,
    ("torch._tensor", "_rebuild_from_type_v2"): _rebuild_from_type,
}
