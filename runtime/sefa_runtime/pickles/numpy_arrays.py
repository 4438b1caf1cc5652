"""NumPy arrays in pickles: arrays of numbers only, since arrays of objects could hold anything."""

import math
import re
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import DTypeLike, NDArray

from sefa_runtime.errors import ContentError
from sefa_runtime.pickles.limits import Limits
from sefa_runtime.pickles.placeholders import StandIn

MAX_AXES = 16


class StoredDtype(StandIn):
    """Stand-in for a numeric NumPy dtype.

    Args:
        name: Kind and size in bytes: "f4".
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._byte_order = "="

    def set_state(self, state: object) -> None:
        order = state[1] if isinstance(state, tuple) and len(state) > 1 else None
        if not isinstance(order, str) or order not in ("<", ">", "=", "|"):
            raise ContentError("damaged: an array of unknown byte order")
        self._byte_order = order

    @property
    def numpy(self) -> np.dtype[Any]:
        """The dtype itself."""
        return np.dtype(self._byte_order + self._name)


class StoredArray(StandIn):
    """Stand-in for a NumPy array; `numpy.asarray` returns the array.

    Args:
        array: The numbers, if already known.
        limits: What the numbers may cost, if they follow as a state.

    Attributes:
        array: The numbers; None until the pickle gives them, or if it holds something other than numbers.
        objects: The items of an array of Python objects, row by row.
        shape: The shape of an array of Python objects.
    """

    def __init__(self, array: NDArray[Any] | None = None, limits: Limits | None = None) -> None:
        self.array = array
        self.objects: list[Any] = []
        self.shape: tuple[int, ...] = ()
        self._limits = Limits(0) if limits is None else limits

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        return np.array(self.array, dtype=dtype)

    def set_state(self, state: object) -> None:
        if not isinstance(state, tuple) or len(state) != 5:
            raise ContentError("damaged: an array without its contents")
        _, shape, dtype, fortran_order, data = state
        if isinstance(dtype, StoredDtype):
            self.array = array_of(self._limits, data, dtype, shape, fortran_order is True)
        elif isinstance(data, list) and is_shape(shape) and math.prod(shape) == len(data):
            self.objects, self.shape = data, shape


def is_number(dtype_name: object) -> TypeGuard[str]:
    """Return whether a dtype's name means booleans, integers or floating-point numbers."""
    return isinstance(dtype_name, str) and re.fullmatch(r"b1|[iu][1248]|f(2|4|8|16)", dtype_name) is not None


def is_shape(shape: object) -> TypeGuard[tuple[int, ...]]:
    """Return whether a value is a shape: a tuple of a few sizes."""
    return isinstance(shape, tuple) and len(shape) <= MAX_AXES and all(type(n) is int and 0 <= n < 2**62 for n in shape)


def array_of(
    limits: Limits, data: object, dtype: StoredDtype, shape: object, fortran_order: bool = False
) -> NDArray[Any]:
    """Return an array that views its bytes in the pickle, without copying them.

    Raises:
        ContentError: If there are more or fewer bytes than the shape needs, or too many elements in total.
    """
    if isinstance(data, str):  # Python 2's bytes, read as characters.
        limits.spend_elements(len(data))
        data = data.encode("latin1")
    if not isinstance(data, bytes | bytearray) or not is_shape(shape):
        raise ContentError("damaged: an array without its contents")
    if len(data) != math.prod(shape) * dtype.numpy.itemsize:
        raise ContentError(f"truncated or damaged: an array of shape {list(shape)} with {len(data)} bytes")
    limits.spend_elements(math.prod(shape))
    return np.frombuffer(data, dtype.numpy).reshape(shape, order="F" if fortran_order else "C")
