"""The functions called in place of the names in pickles of plain data and NumPy arrays, by exact module and name.

Each takes the limits, then whatever arguments the pickle gives.
"""

from typing import Any

from sefa_runtime.errors import ContentError
from sefa_runtime.pickles.interpreter import Table, dict_of, is_key
from sefa_runtime.pickles.limits import Limits
from sefa_runtime.pickles.numpy_arrays import StoredArray, StoredDtype, array_of, is_number
from sefa_runtime.pickles.placeholders import Placeholder


def make_dict(limits: Limits, pairs: object = (), *rest: object) -> dict[Any, Any]:
    """Make what `dict` and the like make from a dict, or from pairs."""
    if isinstance(pairs, dict):
        limits.spend_work(len(pairs))
        return dict(pairs)
    return dict_of([item for pair in _items(limits, pairs) for item in _items(limits, pair, 2)])


def make_tuple(limits: Limits, items: object = ()) -> tuple[Any, ...]:
    """Make what `tuple` makes."""
    return tuple(_items(limits, items))


def _default_dict(limits: Limits, factory: object = None, pairs: object = (), *rest: object) -> dict[Any, Any]:
    return make_dict(limits, pairs)


def _list(limits: Limits, items: object = ()) -> list[Any]:
    return list(_items(limits, items))


def _set(limits: Limits, items: object = ()) -> set[Any]:
    return set(filter(is_key, _items(limits, items)))


def _frozenset(limits: Limits, items: object = ()) -> frozenset[Any]:
    return frozenset(_set(limits, items))


def _items(limits: Limits, items: object, length: int | None = None) -> list[Any] | tuple[Any, ...]:
    if not isinstance(items, list | tuple) or length not in (None, len(items)):
        raise ContentError("damaged: a container without its items")
    limits.spend_work(len(items))
    return items


def _encode(limits: Limits, text: object, encoding: object = "latin1") -> bytes:
    # How Python 3 pickles bytes for Python 2.
    if not isinstance(text, str):
        raise ContentError("damaged: bytes that are no text")
    limits.spend_elements(len(text))
    return text.encode("latin1")


def _bytes(limits: Limits, content: object = b"", *rest: object) -> bytes:
    return content if isinstance(content, bytes) else _encode(limits, content)


def _dtype(limits: Limits, name: object, *rest: object) -> StoredDtype | Placeholder:
    return StoredDtype(name) if is_number(name) else Placeholder("numpy.dtype")


def _scalar(limits: Limits, dtype: object, data: object = b"") -> object:
    return array_of(limits, data, dtype, ())[()] if isinstance(dtype, StoredDtype) else Placeholder("numpy.generic")


def _array(limits: Limits, *rest: object) -> StoredArray:
    return StoredArray(limits=limits)  # A state follows.


def _array_from_buffer(
    limits: Limits, data: object, dtype: object, shape: object, order: object, *rest: object
) -> StoredArray:
    return StoredArray(array_of(limits, data, dtype, shape, order == "F") if isinstance(dtype, StoredDtype) else None)


PLAIN_TABLE: Table = {
    ("builtins", "set"): _set,
    ("builtins", "frozenset"): _frozenset,
    ("builtins", "list"): _list,
    ("builtins", "tuple"): make_tuple,
    ("builtins", "dict"): make_dict,
    ("builtins", "bytes"): _bytes,
    ("_codecs", "encode"): _encode,
    ("collections", "OrderedDict"): make_dict,
    ("collections", "defaultdict"): _default_dict,
    ("torch", "Size"): make_tuple,
    ("numpy", "dtype"): _dtype,
    ("numpy.core.multiarray", "_reconstruct"): _array,
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy.core.numeric", "_frombuffer"): _array_from_buffer,
    ("numpy._core.multiarray", "_reconstruct"): _array,
    ("numpy._core.multiarray", "scalar"): _scalar,
    ("numpy._core.numeric", "_frombuffer"): _array_from_buffer,
}
