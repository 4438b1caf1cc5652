"""The zip archive that `torch.save` writes: a pickle, and one member for each storage."""

import io
import re
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sefa_runtime.archives import open_archive
from sefa_runtime.errors import ContentError
from sefa_runtime.pickles.interpreter import RestrictedUnpickler, Table
from sefa_runtime.pickles.limits import Limits
from sefa_runtime.pickles.names import MAX_LENGTH

CHUNK = 2**20  # bytes
PICKLE = re.compile(r"([^/]+/)?data\.pkl")


@dataclass(frozen=True)
class StorageReference:
    """How a pickle names a storage.

    Attributes:
        kind: What it holds: the name of a class of torch, or something that is none.
        key: Its name in the file.
        numel: How many numbers it has.
        view: Of old files: its own name, where in the storage it begins, and its length; None: it is the whole.
    """

    kind: object
    key: str
    numel: int
    view: tuple[Any, int, int] | None


def storage_reference(reference: object) -> StorageReference:
    """Take a persistent id apart.

    Raises:
        ContentError: If it is none of a storage.
    """
    kind, key, numel, view = None, None, None, None
    if isinstance(reference, tuple) and len(reference) in (5, 6) and reference[0] == "storage":
        _, kind, key, _, numel, *rest = reference
        view = rest[0] if rest else None
    if not isinstance(key, str | int) or type(numel) is not int or numel < 0 or len(str(key)) > MAX_LENGTH:
        raise ContentError("damaged: a reference to something outside the file")
    if view is not None and (not isinstance(view, tuple) or [type(n) for n in view[1:]] != [int, int]):
        raise ContentError("damaged: a reference to a part of a storage")
    return StorageReference(kind, str(key), numel, view)


def read_torch_archive(
    path: Path,
    limits: Limits,
    table: Table,
    itemsize: Callable[[object], int],
    make_storage: Callable[[object, bytearray], Any],
    *,
    refuse_unknown: bool = False,
) -> Any:
    """Read the archive.

    Args:
        path: The file.
        limits: What reading it may take.
        table: What stands for the names that its pickle calls.
        itemsize: Bytes of a number of a storage of this kind.
        make_storage: What stands for a storage, given its kind and its bytes; these are the same object for each
            mention of one storage.
        refuse_unknown: See `RestrictedUnpickler`.

    Raises:
        ContentError: If it is damaged or wants to run code.
        DAMAGED_ARCHIVE: Any of these, if it is damaged.
    """
    with open_archive(path) as archive:
        members = _members(archive, path.stat().st_size)
        pickles = [name for name in members if PICKLE.fullmatch(name)]
        if len(pickles) != 1:
            raise ContentError(f"damaged: an archive with {len(pickles)} pickles, one was expected")
        root = pickles[0].removesuffix("data.pkl")
        if f"{root}byteorder" in members and archive.read(f"{root}byteorder").strip() != b"little":
            raise ContentError("written by a big-endian machine")
        raw: dict[str, bytearray] = {}

        def load_storage(persistent_id: object) -> Any:
            reference = storage_reference(persistent_id)
            size = reference.numel * itemsize(reference.kind)
            member = members.get(f"{root}data/{reference.key}")
            if member is None or member.file_size != size:
                raise ContentError(f"damaged: its storage {reference.key[:20]} is missing or of the wrong size")
            if reference.key not in raw:
                limits.spend_bytes(size)
                raw[reference.key] = _bytes_of(archive, member)
            return make_storage(reference.kind, raw[reference.key])

        pickle = io.BytesIO(archive.read(pickles[0]))
        return RestrictedUnpickler(pickle, table, limits, load_storage, refuse_unknown=refuse_unknown).load()


def _members(archive: zipfile.ZipFile, size: int) -> dict[str, zipfile.ZipInfo]:
    """An archive's members by name, if they are such as torch.save writes: all different, and not compressed."""
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


def _bytes_of(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytearray:
    raw = bytearray(member.file_size)
    position = 0
    with archive.open(member) as file:
        while chunk := file.read(CHUNK):
            raw[position : position + len(chunk)] = chunk
            position += len(chunk)
    if position != member.file_size:
        raise ContentError("truncated: it ends within its weights")
    return raw
