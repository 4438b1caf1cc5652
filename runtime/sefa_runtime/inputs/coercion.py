"""Convert whatever holds numbers to numpy arrays: lists, arrays, tensors from torch and others."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sefa_runtime.errors import InputError


def as_numbers(values: ArrayLike | None, name: str, dtype: type[np.generic]) -> NDArray[Any]:
    """Return values as an array of finite numbers of type `dtype`.

    Args:
        values: Numbers, lists of them, arrays, or tensors from torch and others: on any device, with or without a
            gradient, including types that numpy lacks, such as bfloat16.
        name: The caller's name for them.
        dtype: float32 or int64.

    Raises:
        InputError: If they are not such numbers.
    """
    array = values if type(values) is np.ndarray else as_array(values, name)
    if array.dtype.kind == "V" and "float" in array.dtype.name:
        array = array.astype(np.float32)  # The types of ml_dtypes, such as jax's bfloat16, have no kind of their own.
    integers = dtype is np.int64
    # numpy makes an empty list an array of floats.
    if array.dtype.kind not in ("iu" if integers and array.size else "iuf"):
        got = "text" if array.dtype.kind in "US" else array.dtype
        raise InputError(f"{name} must be {'integers' if integers else 'numbers'}, got {got}")
    if array.dtype != dtype:
        if integers and array.dtype.kind == "u" and array.size and array.max() > np.iinfo(np.int64).max:
            raise InputError(f"{name} must be integers below 2**63, got {array.max()}")
        with np.errstate(over="ignore"):
            array = array.astype(dtype)
    if not integers and np.count_nonzero(np.isfinite(array)) < array.size:  # Twice as fast as `all`.
        raise InputError(f"{name} must be finite, got NaN or infinity")
    return array


def as_array(values: Any, name: str) -> NDArray[Any]:
    """Return whatever holds numbers as a numpy array.

    Raises:
        InputError: If numpy cannot.
    """
    try:
        array = np.asarray(_without_tensors(values) if _holds_tensors(values) else values)
    except Exception as error:  # A foreign array that cannot become a numpy array may raise anything.
        ragged = isinstance(values, list | tuple) and isinstance(error, ValueError)
        why = "rows of unequal length" if ragged else f"{type(values).__name__}: {' '.join(str(error).split())[:200]}"
        raise InputError(f"{name} must be an array of numbers, got {why}") from error
    if np.ma.is_masked(values):
        raise InputError(f"{name} must be finite, got masked values")
    return array


def _holds_tensors(values: Any) -> bool:
    """Return whether these are tensors, judging by the first one: lists of numbers may be long."""
    while isinstance(values, list | tuple) and values:
        values = values[0]
    return hasattr(values, "detach")


def _without_tensors(values: Any) -> Any:
    """Convert tensors that numpy refuses: with a gradient, on a device, or of type bfloat16."""
    if isinstance(values, list | tuple):
        return [_without_tensors(value) for value in values]
    if not hasattr(values, "detach"):
        return values
    tensor = values.detach().cpu()
    return tensor.float() if tensor.is_floating_point() and tensor.element_size() < 4 else tensor
