"""Read arrays of numbers from NumPy's `.npy` and `.npz` files, without trusting what these claim to hold."""

import io
import math
import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from sefa_runtime.archives import DAMAGED_ARCHIVE, check_member, open_archive
from sefa_runtime.errors import ContentError

NPY_HEAD = b"\x93NUMPY"
ZIP_HEAD = b"PK"
SINGLE = ""  # The name given to a `.npy` file's only array.
# Bytes of all arrays together, unpacked: far more than any codes or directions take.
MAX_BYTES = 2**29
MAX_HEADER = 10_000
CHUNK = 2**20  # bytes
# Accepted kinds of dtype: numbers, and text for the names of directions.
KINDS = "fiubU"


def is_numpy_file(path: Path) -> bool:
    """Return whether a file begins like a `.npy` file or is an archive of them."""
    with path.open("rb") as file:
        head = file.read(len(NPY_HEAD))
    if not head.startswith(ZIP_HEAD):
        return head == NPY_HEAD
    try:
        with open_archive(path) as archive:
            return all(name.endswith(".npy") for name in archive.namelist())
    except DAMAGED_ARCHIVE:
        return False


def start_of_objects(path: Path) -> int | None:
    """Return where the pickle in a `.npy` file of Python objects begins; None if the file is one of numbers."""
    with path.open("rb") as file:
        try:
            _, _, dtype = _read_header(file)
        except ContentError:
            return None
        return file.tell() if dtype.hasobject else None


def read_numpy_file(path: Path) -> dict[str, NDArray[Any]]:
    """Read a `.npz` file's arrays by name, or a `.npy` file's only array under the name `SINGLE`.

    Nothing in it is unpickled.

    Raises:
        ContentError: If it is damaged, too large, or holds anything but numbers and text.
        OSError: If it cannot be read.
    """
    try:
        with path.open("rb") as file:
            if file.read(len(NPY_HEAD)) == NPY_HEAD:
                file.seek(0)
                return {SINGLE: _read_array(file, path.stat().st_size)}
        with open_archive(path) as archive:
            return _read_archive(archive)
    except ContentError:
        raise
    except DAMAGED_ARCHIVE as error:
        raise ContentError("not a file of numbers, or damaged") from error


def _read_archive(archive: zipfile.ZipFile) -> dict[str, NDArray[Any]]:
    members = archive.infolist()
    if sum(member.file_size for member in members) > MAX_BYTES:
        raise ContentError(f"larger than any codes or directions: more than {MAX_BYTES >> 20} MB")
    arrays: dict[str, NDArray[Any]] = {}
    for member in members:
        check_member(member)
        name = member.filename.removesuffix(".npy")
        if name in arrays:  # Which of them is meant depends on who reads it.
            raise ContentError(f"damaged: it holds two arrays called {name[:80]!r}")
        with archive.open(member) as file:
            arrays[name] = _read_array(file, member.file_size)
    return arrays


def _read_array(file: IO[bytes], size: int) -> NDArray[Any]:
    """Read an array of at most `size` bytes, including its header."""
    shape, fortran_order, dtype = _read_header(file)
    if dtype.hasobject:
        raise ContentError("it holds pickled objects, which are not opened; numbers were expected")
    if dtype.kind not in KINDS or not dtype.itemsize:  # However many, empty texts take no room in a file.
        raise ContentError(f"it holds {str(dtype)[:80]}, numbers were expected")
    count = math.prod(shape) * dtype.itemsize
    if count > min(size, MAX_BYTES):
        raise ContentError(f"truncated or damaged: an array of shape {list(shape)[:8]} in {size} bytes")
    if not count:
        return np.empty(shape, dtype)
    data = bytearray(count)  # Unlike bytes, it makes a writable array.
    position = 0
    while position < count and (chunk := file.read(min(count - position, CHUNK))):
        data[position : position + len(chunk)] = chunk
        position += len(chunk)
    if position < count:
        raise ContentError(f"truncated or damaged: an array of shape {list(shape)[:8]} with {position} bytes")
    return np.frombuffer(data, dtype).reshape(shape, order="F" if fortran_order else "C")


def _read_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    try:
        version = np.lib.format.read_magic(file)
        if version == (3, 0):
            raise ContentError("it holds records, numbers were expected")  # Version 3.0 is only for these.
        is_first = version == (1, 0)
        length = file.read(2 if is_first else 4)
        size = int.from_bytes(length, "little")
        if size > MAX_HEADER:  # numpy would read it before checking.
            raise ContentError("not a file of numbers, or damaged")
        read = np.lib.format.read_array_header_1_0 if is_first else np.lib.format.read_array_header_2_0
        shape, fortran_order, dtype = read(io.BytesIO(length + file.read(size)), max_header_size=MAX_HEADER)
    except ContentError:
        raise
    except (OSError, zipfile.BadZipFile):
        raise
    except Exception as error:  # The header is parsed as Python, which fails in many ways.
        raise ContentError("not a file of numbers, or damaged") from error
    if not all(type(length) is int and 0 <= length < 2**62 for length in shape):
        raise ContentError("not a file of numbers, or damaged")
    return shape, fortran_order, dtype
