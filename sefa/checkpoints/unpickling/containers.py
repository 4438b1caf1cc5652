"""What checkpoints are kept in: a plain pickle, and torch.save's stream of pickles and numbers or its zip archive."""

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sefa.checkpoints.unpickling.rebuilding import TABLE, Storage, storage_dtype
from sefa.errors import CheckpointError
from sefa_runtime.errors import ContentError
from sefa_runtime.pickles.interpreter import RestrictedUnpickler, Source, Table
from sefa_runtime.pickles.limits import Limits
from sefa_runtime.pickles.torch_archive import read_torch_archive, storage_reference

STREAM_MAGIC = 0x1950A86A20F9469CFC6C
STREAM_PROTOCOL = 1001
# The first pickle of a stream is the magic number.
STREAM_HEAD = b"\x80\x02\x8a\x0a" + STREAM_MAGIC.to_bytes(10, "little") + b"."
NESTED_COST = 200  # Steps of work for a stream within a pickle, beside those of its own pickles.


def read_pickle(source: Source, limits: Limits) -> Any:
    """Read a plain pickle, as NVlabs' code writes: its storages are torch's streams inside.

    Args:
        source: At the pickle's beginning.
        limits: What reading it may take.

    Raises:
        CheckpointError: If it is damaged or wants to run code.
    """
    with _our_errors():
        return RestrictedUnpickler(source, TABLE_WITH_STORAGES, limits).load()


def read_stream(source: Source, data: memoryview, limits: Limits, table: Table | None = None) -> Any:
    """Read what torch.save wrote before it wrote zip archives: five pickles, then the storages' numbers.

    Args:
        source: At the stream's beginning.
        data: All bytes of the source.
        limits: What reading it may take.
        table: What stands for the names in it, other than for a file's.

    Raises:
        CheckpointError: If it is damaged or wants to run code.
    """
    table = TABLE_WITH_STORAGES if table is None else table
    raw: dict[str, Tensor] = {}  # Bytes of each storage, filled at the end.
    lengths: dict[str, int] = {}

    def load_storage(reference: object) -> Storage:
        found = storage_reference(reference)
        dtype, key, numel, view = storage_dtype(found.kind), found.key, found.numel, found.view
        if key not in raw:
            limits.spend_bytes(numel * dtype.itemsize)
            raw[key] = torch.empty(numel * dtype.itemsize, dtype=torch.uint8)
            lengths[key] = numel
        numbers = raw[key].view(dtype)
        if view is not None:  # A storage within a storage, as old versions had.
            _, start, length = view
            if start < 0 or length < 0 or start + length > len(numbers):
                raise CheckpointError("damaged: a storage that reaches beyond another")
            numbers = numbers[start : start + length]
        return Storage(numbers)

    def load(persistent: Callable[[Any], Any] | None = None) -> Any:
        with _our_errors():
            return RestrictedUnpickler(source, table, limits, persistent).load()

    if load() != STREAM_MAGIC or load() != STREAM_PROTOCOL:
        raise CheckpointError("damaged, or of an unknown version of torch")
    system = load()
    if isinstance(system, dict) and system.get("little_endian") is False:
        raise CheckpointError("written by a big-endian machine")
    content = load(load_storage)
    keys = load()
    if not isinstance(keys, list) or not all(isinstance(key, str | int) for key in keys):
        raise CheckpointError("damaged: its list of storages has no names")
    if sorted(map(str, keys)) != sorted(raw):
        raise CheckpointError("damaged: its list of storages does not fit its tensors")
    position = source.tell()
    for key in keys:
        numbers = raw[str(key)]
        start = position + 8  # Behind the number of elements.
        position = start + len(numbers)
        if position > len(data):
            raise CheckpointError("truncated: it ends within its weights")
        if int.from_bytes(data[start - 8 : start], "little") != lengths[str(key)]:
            raise CheckpointError("damaged: a storage of another length than its tensors'")
        numbers.numpy().data[:] = data[start:position]
    source.seek(position)
    return content


def read_zip(path: Path, limits: Limits) -> Any:
    """Read the archive that torch.save writes: a pickle, and one member for each storage.

    Raises:
        CheckpointError: If it is damaged or wants to run code.
    """
    with _our_errors():
        return read_torch_archive(
            path, limits, TABLE_WITH_STORAGES, lambda kind: storage_dtype(kind).itemsize, _storage
        )


def _storage(kind: object, raw: bytearray) -> Storage:
    dtype = storage_dtype(kind)
    return Storage(torch.frombuffer(raw, dtype=dtype) if raw else torch.empty(0, dtype=dtype))


@contextmanager
def _our_errors() -> Iterator[None]:
    try:
        yield
    except ContentError as error:
        raise CheckpointError(str(error)) from error.__cause__


def _nested_storage(limits: Limits, data: object, *rest: object) -> Storage:
    """What torch.storage._load_from_bytes gives, which itself would run anything: one storage, of a stream."""
    limits.spend_work(NESTED_COST)
    if not isinstance(data, bytes):
        raise CheckpointError("damaged: a storage that is no bytes")
    source = io.BytesIO(data)
    storage = read_stream(source, memoryview(data), limits, TABLE)
    if not isinstance(storage, Storage) or source.tell() != len(data):
        raise CheckpointError("damaged: a storage with something else in it")
    return storage


TABLE_WITH_STORAGES: Table = {**TABLE, ("torch.storage", "_load_from_bytes"): _nested_storage}
