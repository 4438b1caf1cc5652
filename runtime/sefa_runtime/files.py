"""Input files that are what they should be, output files that appear whole or not at all."""

import hashlib
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def input_problem(path: Path) -> str | None:
    """What keeps `path` from being read as a file: a few words, or None."""
    if path.is_file():
        return None
    if path.is_dir():
        return "is a folder, a file was expected"
    return "is not a regular file" if path.exists() else "no such file"


def sha256_of(path: Path) -> str:
    """sha256 of a file's contents, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_output(path: Path, *inputs: Path | None) -> None:
    """Fail now rather than after minutes of work if `path` cannot become an output file.

    Args:
        path: Where the result shall go.
        inputs: Files that the work reads, and that must not be replaced by its result.

    Raises:
        OSError: If the folder is missing or not writable, or `path` is a folder, a device or one of the inputs.
    """
    path = Path(os.path.realpath(path))  # A link may point elsewhere.
    folder = path.parent
    if not folder.exists():
        raise FileNotFoundError(2, "no such folder", str(folder))
    if not folder.is_dir():
        raise NotADirectoryError(20, "not a folder", str(folder))
    if path.is_dir():
        raise IsADirectoryError(21, "is a folder, a file name was expected", str(path))
    if path.exists() and not path.is_file():
        raise FileExistsError(17, "is not a regular file", str(path))
    for source in inputs:
        if source is not None and path.exists() and source.exists() and path.samefile(source):
            raise FileExistsError(17, "is an input, the output would replace it", str(path))
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(13, "folder is not writable", str(folder))


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path` to write to; it takes the final name when the block succeeds.

    If the block fails (disk full, interrupt, refused check), nothing is left behind and a file that already
    had the name is untouched.

    Raises:
        OSError: As `check_output`, or if writing fails.
    """
    path = Path(os.path.realpath(path))  # Replace what a symbolic link points to, not the link.
    check_output(path)
    # The suffix stays last: some writers choose the format by it.
    partial = path.with_name(f".{uuid.uuid4().hex}.part{path.suffix}")
    try:
        yield partial
        with partial.open("rb") as written:
            os.fsync(written.fileno())
        partial.replace(path)
    except OSError as error:
        if error.strerror is None or error.filename not in (None, str(partial)):
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error  # The name that the user knows.
    finally:
        partial.unlink(missing_ok=True)


def write_whole(path: Path, content: bytes) -> None:
    """Write `content` to `path`, whole or not at all.

    Raises:
        OSError: If the folder is missing or not writable, or the disk is full.
    """
    with replacing(path) as partial:
        partial.write_bytes(content)
