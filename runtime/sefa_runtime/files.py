"""Output files that appear whole or not at all."""

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def check_output(path: Path) -> None:
    """Fail now rather than after minutes of work if `path` cannot become an output file.

    Raises:
        OSError: If the folder is missing or not writable, or `path` is a folder.
    """
    folder = path.parent
    if not folder.exists():
        raise FileNotFoundError(2, "no such folder", str(folder))
    if not folder.is_dir():
        raise NotADirectoryError(20, "not a folder", str(folder))
    if path.is_dir():
        raise IsADirectoryError(21, "is a folder, a file name was expected", str(path))
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
    partial = path.with_name(f".{path.stem}.{uuid.uuid4().hex[:8]}.part{path.suffix}")
    try:
        yield partial
        with partial.open("rb") as written:
            os.fsync(written.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_whole(path: Path, content: bytes) -> None:
    """Write `content` to `path`, whole or not at all.

    Raises:
        OSError: If the folder is missing or not writable, or the disk is full.
    """
    with replacing(path) as partial:
        partial.write_bytes(content)
