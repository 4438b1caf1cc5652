"""Read files of pickles: a plain pickle, or either format of torch.save, a zip archive and an older stream."""

import io
import mmap
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sefa_runtime.archives import DAMAGED_ARCHIVE, open_archive
from sefa_runtime.errors import ContentError
from sefa_runtime.pickles.interpreter import Interpreter, Source, Table, is_key
from sefa_runtime.pickles.limits import Limits
from sefa_runtime.pickles.torch_tensors import Storage, Storages

CHUNK = 2**20  # bytes
ARCHIVED_PICKLE = re.compile(r"([^/]+/)?data\.pkl")
STREAM_MAGIC = 0x1950A86A20F9469CFC6C
STREAM_PROTOCOL = 1001
# The first pickle of a stream is the magic number.
STREAM_HEAD = b"\x80\x02\x8a\x0a" + STREAM_MAGIC.to_bytes(10, "little") + b"."
NESTED_COST = 200  # Steps of work for a stream nested in a pickle, besides those of its own pickles.


class PickleReader:
    """A reader of one file of pickles, which runs nothing in it.

    Args:
        limits: What reading it may cost.
        table: The functions called in place of the names in its pickles.
        refuse_unknown: See `Interpreter`.
    """

    def __init__(self, limits: Limits, table: Table, *, refuse_unknown: bool = False) -> None:
        self._limits = limits
        self._table = table
        self._refuse_unknown = refuse_unknown
        self._with_nested = {**table, ("torch.storage", "_load_from_bytes"): self._nested_storage}

    def read_file(self, path: Path, start: int = 0) -> Any:
        """Read a file; its first bytes say which kind it is.

        Args:
            path: The file.
            start: Where its pickle begins, if something else comes first.

        Raises:
            ContentError: If it is damaged, wants to run code, or takes too much.
            OSError: If it cannot be read.
        """
        with path.open("rb") as file:
            head = file.read(len(STREAM_HEAD))
            if head.startswith(b"PK"):
                return self.read_archive(path)
            # Mapped, since reading from a file would allocate as much as a pickle claims to hold.
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                if head != STREAM_HEAD:
                    data.seek(start)
                    return self.read_pickle(data)
                with memoryview(data) as view:
                    return self._read_stream(data, view, self._with_nested)

    def read_pickle(self, source: Source) -> Any:
        """Read a plain pickle, such as NVlabs' code writes: each storage in it is a torch stream.

        Raises:
            ContentError: If it is damaged, wants to run code, or takes too much.
        """
        return self._interpret(source, self._with_nested)

    def read_archive(self, path: Path) -> Any:
        """Read a torch.save archive: a pickle, and a member for each storage.

        Raises:
            ContentError: If it is damaged, wants to run code, or takes too much.
        """
        try:
            with open_archive(path) as archive:
                members = _members(archive, path.stat().st_size)
                pickles = [name for name in members if ARCHIVED_PICKLE.fullmatch(name)]
                if len(pickles) != 1:
                    raise ContentError(f"damaged: an archive with {len(pickles)} pickles, one was expected")
                root = pickles[0].removesuffix("data.pkl")
                if f"{root}byteorder" in members and archive.read(f"{root}byteorder").strip() != b"little":
                    raise ContentError("written by a big-endian machine")
                pickle = archive.read(pickles[0])
        except DAMAGED_ARCHIVE as error:
            raise ContentError("truncated or damaged: an archive that cannot be read") from error
        storages = Storages(self._limits)
        content = self._interpret(io.BytesIO(pickle), self._with_nested, storages.load)
        try:
            with open_archive(path) as archive:
                for key, raw in storages.raw.items():
                    member = members.get(f"{root}data/{key}")
                    if member is None or member.file_size != len(raw):
                        raise ContentError(f"damaged: its storage {key[:20]} is missing or of the wrong size")
                    _read_into(raw, archive, member)
        except DAMAGED_ARCHIVE as error:
            raise ContentError("truncated or damaged: an archive that cannot be read") from error
        return content

    def _read_stream(self, source: Source, data: memoryview, table: Table) -> Any:
        """Read an older torch.save file: five pickles, then the numbers of the storages.

        Args:
            source: Positioned at the stream's beginning.
            data: All bytes of the source.
            table: The functions called in place of the names in it.
        """
        if self._interpret(source, table) != STREAM_MAGIC or self._interpret(source, table) != STREAM_PROTOCOL:
            raise ContentError("damaged, or of an unknown version of torch")
        system = self._interpret(source, table)
        if isinstance(system, dict) and system.get("little_endian") is False:
            raise ContentError("written by a big-endian machine")
        storages = Storages(self._limits)
        content = self._interpret(source, table, storages.load)
        keys = self._interpret(source, table)
        if not isinstance(keys, list) or not all(isinstance(key, str | int) and is_key(key) for key in keys):
            raise ContentError("damaged: its list of storages has no names")
        if sorted(map(str, keys)) != sorted(storages.raw):
            raise ContentError("damaged: its list of storages does not fit its tensors")
        position = source.tell()
        for key in map(str, keys):
            start = position + 8  # The number of elements comes first.
            position = start + len(storages.raw[key])
            if position > len(data):
                raise ContentError("truncated: it ends within its weights")
            if int.from_bytes(data[start - 8 : start], "little") != storages.lengths[key]:
                raise ContentError("damaged: a storage of another length than its tensors'")
            memoryview(storages.raw[key])[:] = data[start:position]
        source.seek(position)
        return content

    def _nested_storage(self, limits: Limits, data: object, *rest: object) -> Storage:
        """Return the storage in a stream; replaces torch.storage._load_from_bytes, which would run anything."""
        limits.spend_work(NESTED_COST)
        if not isinstance(data, bytes):
            raise ContentError("damaged: a storage that is no bytes")
        source = io.BytesIO(data)
        storage = self._read_stream(source, memoryview(data), self._table)
        if not isinstance(storage, Storage) or source.tell() != len(data):
            raise ContentError("damaged: a storage with something else in it")
        return storage

    def _interpret(self, source: Source, table: Table, load_storage: Callable[[Any], Any] | None = None) -> Any:
        return Interpreter(source, table, self._limits, load_storage, refuse_unknown=self._refuse_unknown).load()


def _members(archive: zipfile.ZipFile, size: int) -> dict[str, zipfile.ZipInfo]:
    """Return an archive's members by name; all must be uncompressed and have distinct names, as torch.save's do."""
    members = {member.filename: member for member in archive.infolist()}
    if len(members) != len(archive.infolist()):
        raise ContentError("damaged: an archive with two members of one name")
    for name, member in members.items():
        if name.startswith("/") or "\\" in name or ".." in name.split("/"):
            raise ContentError("an archive with a member outside its folder, which torch.save never writes: refused")
        if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1:
            raise ContentError("a compressed or encrypted archive, which torch.save never writes: unpack it first")
    if sum(member.file_size for member in members.values()) > size:
        raise ContentError("damaged: an archive whose members are larger than itself")
    return members


def _read_into(raw: bytearray, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> None:
    position = 0
    with archive.open(member) as file, memoryview(raw) as target:
        while chunk := file.read(CHUNK):
            target[position : position + len(chunk)] = chunk
            position += len(chunk)
    if position != len(raw):
        raise ContentError("truncated: it ends within its weights")
