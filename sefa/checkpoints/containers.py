"""What checkpoints are kept in: a plain pickle, and torch.save's stream of pickles and numbers or its zip archive."""

import io
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sefa.checkpoints.rebuilding import TABLE, Storage, storage_dtype
from sefa.errors import CheckpointError
from sefa_runtime.archives import open_archive
from sefa_runtime.errors import ContentError
from sefa_runtime.pickles.limits import Limits
from sefa_runtime.pickles.machine import RestrictedUnpickler, Source, Table

STREAM_MAGIC = 0x1950A86A20F9469CFC6C
STREAM_PROTOCOL = 1001
# The first pickle of a stream is the magic number.
STREAM_HEAD = b"\x80\x02\x8a\x0a" + STREAM_MAGIC.to_bytes(10, "little") + b"."
CHUNK = 2**20  # bytes
NESTED_COST = 200  # Steps of work for a stream within a pickle, beside those of its own pickles.


def read_pickle(source: Source, limits: Limits) -> Any:
    """Read a plain pickle, as NVlabs' code writes: its storages are torch's streams inside.

    Args:
        source: At the pickle's beginning.
        limits: What reading it may take.

    Raises:
        CheckpointError: If it is damaged or wants to run code.
    """
    return _unpickled(source, TABLE_WITH_STORAGES, limits)


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
        dtype, key, numel, view = _parsed(reference)
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
        return _unpickled(source, table, limits, persistent)

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
    with open_archive(path) as archive:
        members = _members(archive, path.stat().st_size)
        pickles = [name for name in members if re.fullmatch(r"([^/]+/)?data\.pkl", name)]
        if len(pickles) != 1:
            raise CheckpointError(f"damaged: an archive with {len(pickles)} pickles, one was expected")
        root = pickles[0].removesuffix("data.pkl")
        if f"{root}byteorder" in members and archive.read(f"{root}byteorder").strip() != b"little":
            raise CheckpointError("written by a big-endian machine")
        raw: dict[str, Tensor] = {}

        def load_storage(reference: object) -> Storage:
            dtype, key, numel, _ = _parsed(reference)
            if key not in raw:
                member = members.get(f"{root}data/{key}")
                if member is None or member.file_size != numel * dtype.itemsize:
                    raise CheckpointError(f"damaged: its storage {key[:20]} is missing or of the wrong size")
                limits.spend_bytes(member.file_size)
                raw[key] = _bytes_of(archive, member)
            return Storage(raw[key].view(dtype))

        pickle = io.BytesIO(archive.read(pickles[0]))
        return _unpickled(pickle, TABLE_WITH_STORAGES, limits, load_storage)


def _unpickled(source: Source, table: Table, limits: Limits, persistent: Callable[[Any], Any] | None = None) -> Any:
    try:
        return RestrictedUnpickler(source, table, limits, persistent).load()
    except ContentError as error:
        raise CheckpointError(str(error)) from error.__cause__


def _members(archive: zipfile.ZipFile, size: int) -> dict[str, zipfile.ZipInfo]:
    """An archive's members by name, if they are such as torch.save writes: all different, and not compressed."""
    members = {member.filename: member for member in archive.infolist()}
    if len(members) != len(archive.infolist()):
        raise CheckpointError("damaged: an archive with two members of one name")
    for name, member in members.items():
        if name.startswith("/") or "\\" in name or ".." in name.split("/"):
            raise CheckpointError("an archive with a member outside its folder, which torch.save never writes: refused")
        if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1:
            raise CheckpointError("a compressed or encrypted archive, which torch.save never writes: unpack it first")
    if sum(member.file_size for member in members.values()) > size:
        raise CheckpointError("damaged: an archive whose members are larger than itself")
    return members


def _bytes_of(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Tensor:
    raw = torch.empty(member.file_size, dtype=torch.uint8)
    target = raw.numpy().data
    position = 0
    with archive.open(member) as file:
        while chunk := file.read(CHUNK):
            target[position : position + len(chunk)] = chunk
            position += len(chunk)
    if position != member.file_size:
        raise CheckpointError("truncated: it ends within its weights")
    return raw


def _parsed(reference: object) -> tuple[torch.dtype, str, int, tuple[Any, int, int] | None]:
    """A persistent id: what the storage holds, its key, its number of elements, and where in that it is."""
    kind, key, numel, view = None, None, None, None
    if isinstance(reference, tuple) and len(reference) in (5, 6) and reference[0] == "storage":
        _, kind, key, _, numel, *rest = reference
        view = rest[0] if rest else None
    if not isinstance(key, str | int) or type(numel) is not int or numel < 0:
        raise CheckpointError("damaged: a reference to something outside the file")
    if view is not None and (not isinstance(view, tuple) or [type(n) for n in view[1:]] != [int, int]):
        raise CheckpointError("damaged: a reference to a part of a storage")
    return storage_dtype(kind), str(key), numel, view


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
