"""Open zip archives (from torch, from numpy, exported models) that may be crafted to fill the memory."""

import errno
import io
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# Bytes of the directory at an archive's end: an entry takes 46 bytes plus its name. Checkpoints have some thousand
# members.
MAX_DIRECTORY = 4 * 2**20
# What zipfile raises for archives that are damaged, encrypted, or compressed by a method that it does not know.
DAMAGED_ARCHIVE = (
    zipfile.BadZipFile,
    zlib.error,
    NotImplementedError,
    RuntimeError,
    EOFError,
    OverflowError,
    ValueError,
)


@contextmanager
def open_archive(path: Path) -> Iterator[zipfile.ZipFile]:
    """Open an archive, unless its directory is longer than any honest archive's.

    Raises:
        zipfile.BadZipFile: If it is, or the file is not a zip archive.
        DAMAGED_ARCHIVE: Any of these, if it is damaged.
        OSError: If the file cannot be read.
    """
    try:
        with path.open("rb") as raw, _Reader(raw) as file, zipfile.ZipFile(file) as archive:
            file.is_opening = False
            yield archive
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        raise zipfile.BadZipFile("it refers to before its beginning") from error  # Damaged offsets are negative.


def read_member(archive: zipfile.ZipFile, name: str, most: int) -> bytes:
    """Read a member of at most `most` bytes, whatever size the archive claims for it.

    Raises:
        zipfile.BadZipFile: If it is larger.
        KeyError: If there is no member of this name.
        DAMAGED_ARCHIVE: Any of these, if it is damaged or encrypted.
    """
    check_member(archive.getinfo(name))
    with archive.open(name) as member:
        content = member.read(most + 1)
    if len(content) > most:
        raise zipfile.BadZipFile(f"{name} is larger than {most} bytes")
    return content


def check_member(member: zipfile.ZipInfo) -> None:
    """Check that a member can be unpacked step by step.

    Raises:
        zipfile.BadZipFile: If it is encrypted, or compressed by a method that `zipfile` unpacks all at once.
    """
    if member.flag_bits & 1 or member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise zipfile.BadZipFile(f"{member.filename[:80]!r} is encrypted, or compressed in an unusual way")


class _Reader(io.BufferedReader):
    """Reader that refuses a long directory: `zipfile` reads it at once, however many entries the archive claims."""

    is_opening = True

    def read(self, size: int | None = -1, /) -> bytes:
        if self.is_opening and size is not None and size > MAX_DIRECTORY:
            raise zipfile.BadZipFile("its directory is longer than any honest archive's")
        return super().read(size)
