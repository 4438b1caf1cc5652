"""Check input files, and write output files that appear whole or not at all."""

import errno
import hashlib
import os
import platform
import re
import shutil
import stat
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from types import ModuleType

fcntl: ModuleType | None
try:
    fcntl = import_module("fcntl")
except ImportError:  # Windows, where an open file cannot be removed, which is as good as a lock.
    fcntl = None

# A part file's name contains the target's name, unless that is longer than this or not ASCII, which some writers cannot
# handle.
MAX_NAME_LENGTH = 100
# Writers choose a format by the suffix; none uses a longer one.
MAX_SUFFIX_LENGTH = 16
# Age at which a part file from another machine, whose locks may be invisible here, counts as abandoned.
ABANDONED_AFTER_S = 24 * 3600
ACCESS_LIST = "system.posix_acl_access"


def input_problem(path: Path) -> str | None:
    """Return what prevents `path` from being read as a file, in a few words, or None."""
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: a name with a zero byte.
        return "no such file"
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    if stat.S_ISREG(mode):
        return None
    return "is a folder, a file was expected" if stat.S_ISDIR(mode) else "is not a regular file"


def utf8_problem(path: Path) -> str | None:
    """Return what prevents libraries that take only UTF-8 names from using `path`, in a few words, or None."""
    try:
        str(path).encode()
    except UnicodeEncodeError:  # A file name may be any bytes.
        return "its name, or its folder's, is not UTF-8, which is needed here: rename it"
    return None


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file's contents, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_utf8_output(path: Path, *inputs: Path | None) -> None:
    """Check like `check_output`, for a file written or read by a library that takes only UTF-8 names.

    Raises:
        OSError: See `check_output`; also if the name is not UTF-8.
    """
    check_output(path, *inputs)
    problem = utf8_problem(path)
    if problem:
        raise OSError(errno.EILSEQ, problem, str(path))


def check_output(path: Path, *inputs: Path | None) -> None:
    """Fail now rather than after minutes of work if `path` cannot become an output file.

    Args:
        path: Where the result goes.
        inputs: Files that the work reads, which its result must not replace.

    Raises:
        OSError: If the folder is missing or not writable, or `path` is a folder, a device, one of the inputs, or a file
            that may not be replaced.
    """
    path = Path(os.path.realpath(path))  # A link may point elsewhere.
    folder = path.parent
    if not folder.exists():
        raise FileNotFoundError(2, "no such folder", str(folder))
    if not folder.is_dir():
        raise NotADirectoryError(20, "not a folder", str(folder))
    found = _stat(path)
    if found is not None:
        if stat.S_ISDIR(found.st_mode):
            raise IsADirectoryError(21, "is a folder, a file name was expected", str(path))
        if not stat.S_ISREG(found.st_mode):
            raise FileExistsError(17, "is not a regular file", str(path))
        for source in inputs:
            if source is not None and source.exists() and path.samefile(source):
                raise FileExistsError(17, "is an input, the output would replace it", str(path))
        if not _may_replace(found, folder):
            raise PermissionError(1, "is another user's, in a folder where only its owner may replace it", str(path))
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(13, "folder is not writable", str(folder))


@contextmanager
def replacing(path: Path, suffix: str | None = None) -> Iterator[Path]:
    """Yield a temporary path beside `path` to write to; it takes the final name when the block succeeds.

    If the block fails (disk full, interrupt, failed check), nothing is left behind and an existing file of that name is
    untouched. What a killed process leaves behind is removed by the next one that writes to the same name. The new file
    takes over the permissions of the file it replaces and, if this process is allowed to set it, the owner; other hard
    links to the old file keep the old contents.

    Args:
        path: Where the result goes.
        suffix: Suffix of the temporary path; None uses that of `path`.

    Raises:
        OSError: See `check_output`; also if writing fails.
    """
    path = Path(os.path.realpath(path))  # Replace what a symbolic link points to, not the link.
    check_output(path)
    remove_abandoned(path)
    partial, handle = _begin(path, path.suffix if suffix is None else suffix, _new_file)
    try:
        old = _stat(path)
        if old is not None:  # Nobody may read the new file who may not read the old one.
            _pass_on(path, old, handle, stat.S_IRUSR | stat.S_IWUSR)
        yield partial
        if not os.fstat(handle).st_size:
            raise OSError(5, "nothing was written")
        os.fsync(handle)
        if old is not None:
            _pass_on(path, old, handle)
        if fcntl is None:
            handle = _close(handle)
        partial.replace(path)
    except OSError as error:
        _raise_named(error, partial, path)
        raise
    finally:
        if fcntl is None:
            handle = _close(handle)
        partial.unlink(missing_ok=True)
        _close(handle)


@contextmanager
def staging(folder: Path, rescue: Callable[[Path], None]) -> Iterator[Path]:
    """Yield an empty folder beside `folder` to move files from; it is removed at the end with whatever is left in it.

    Args:
        folder: The destination of the contents.
        rescue: Called with each folder left by a killed process, before it is removed.

    Raises:
        OSError: If the folder cannot be made.
    """

    def remove(part: Path) -> None:
        rescue(part)
        shutil.rmtree(part)

    remove_abandoned(folder, remove)
    part, handle = _begin(folder, "", _new_folder)
    try:
        yield part
    except OSError as error:
        _raise_named(error, part, folder)
        raise
    finally:
        shutil.rmtree(part, ignore_errors=True)
        _close(handle)


def remove_abandoned(path: Path, remove: Callable[[Path], None] = Path.unlink) -> None:
    """Remove the part files that killed processes left while writing to `path`.

    A writer holds a lock, which ends with its process. Locks from other machines may not be visible here, so their part
    files must also have been untouched for a day.
    """
    with suppress(OSError):
        beginning = _beginning(path)
        pattern = re.compile(r"(?P<machine>[0-9a-f]{8})-[0-9a-f]{12}\.part(\..*)?", re.DOTALL)
        for name in os.listdir(path.parent):  # noqa: PTH208  # Fast even in huge folders.
            match = name.startswith(beginning) and pattern.fullmatch(name, len(beginning))
            if match:
                with suppress(OSError):  # It is another user's, or already gone.
                    _remove_if_abandoned(path.with_name(name), match["machine"] == _machine(), remove)


def write_whole(path: Path, content: bytes) -> None:
    """Write `content`, which must not be empty, to `path`, whole or not at all.

    Raises:
        OSError: If the folder is missing or not writable, or the disk is full.
    """
    with replacing(path) as partial:
        partial.write_bytes(content)


def _remove_if_abandoned(part: Path, is_ours: bool, remove: Callable[[Path], None]) -> None:
    found = part.lstat()
    is_old = time.time() - found.st_mtime > ABANDONED_AFTER_S
    if fcntl is None:
        if is_old or (is_ours and stat.S_ISREG(found.st_mode)):
            remove(part)
        return
    handle = os.open(part, (os.O_RDONLY if stat.S_ISDIR(found.st_mode) else os.O_RDWR) | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        locked = _lock(handle)
        if locked is not False and (is_old or (locked and is_ours)):
            remove(part)
    finally:
        os.close(handle)


def _begin(path: Path, suffix: str, make: Callable[[Path], int]) -> tuple[Path, int]:
    """Make a new part file or folder for `path`; return it and a handle that holds its lock."""
    while True:
        part = path.with_name(_part_name(path, suffix))
        try:
            handle = make(part)
        except OSError as error:  # Such as on a full disk or in /proc.
            _raise_named(error, part, path)
            raise
        # Before it is locked, another process may take it for abandoned.
        if _lock(handle) is not False and part.exists():
            return part, handle
        _close(handle)


def _new_file(part: Path) -> int:
    return os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)


def _new_folder(part: Path) -> int:
    part.mkdir()
    return -1 if fcntl is None else os.open(part, os.O_RDONLY)


def _lock(handle: int) -> bool | None:
    """Lock a file; return whether this process now holds the lock, or None if locks do not exist here."""
    if fcntl is None:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # The file system has no locks.
        return None
    return True


def _close(handle: int) -> int:
    """Close a handle unless it is closed already; return -1, which stands for a closed handle."""
    if handle >= 0:
        os.close(handle)
    return -1


def _pass_on(path: Path, old: os.stat_result, handle: int, more: int = 0) -> None:
    """Give an open file the owner and permissions of `path`, plus the permissions `more`."""
    if not hasattr(os, "fchown"):  # Windows
        return
    mode = stat.S_IMODE(old.st_mode) & 0o777
    for user, group in ((old.st_uid, -1), (-1, old.st_gid)):
        with suppress(OSError):
            os.fchown(handle, user, group)
    with suppress(OSError, AttributeError):  # Linux only, and not on every file system.
        os.setxattr(handle, ACCESS_LIST, os.getxattr(path, ACCESS_LIST))
    if os.fstat(handle).st_gid != old.st_gid:  # This group gets only the old group's rights that everybody has.
        mode = mode & ~0o070 | (mode & 0o007) << 3
    os.fchmod(handle, mode | more)


def _raise_named(error: OSError, part: Path, path: Path) -> None:
    """Raise an error about a part file, or a file in a part folder, under the name that the user knows.

    Errors about other files are left alone.
    """
    # A failed copy names its source first.
    names = [str(name) for name in (error.filename, error.filename2) if name is not None]
    if error.strerror is not None and (not names or any(name.startswith(str(part)) for name in names)):
        raise OSError(error.errno, error.strerror, str(path)) from error


def _may_replace(found: os.stat_result, folder: Path) -> bool:
    """Return whether the folder's sticky bit lets this user replace a file."""
    if not hasattr(os, "geteuid"):  # Windows
        return True
    parent = folder.stat()
    return not parent.st_mode & stat.S_ISVTX or os.geteuid() in (0, found.st_uid, parent.st_uid)


def _part_name(path: Path, suffix: str) -> str:
    kept = suffix if suffix.isascii() and len(suffix) <= MAX_SUFFIX_LENGTH else ""
    # The suffix comes last: some writers choose the format by it.
    return f"{_beginning(path)}{_machine()}-{uuid.uuid4().hex[:12]}.part{kept}"


def _beginning(path: Path) -> str:
    """Return the beginning of the names of all part files of `path`."""
    is_plain = path.name.isascii() and len(path.name) <= MAX_NAME_LENGTH
    return f".{path.name if is_plain else hashlib.sha256(os.fsencode(path.name)).hexdigest()[:32]}."


def _machine() -> str:
    return hashlib.sha256(os.fsencode(platform.node())).hexdigest()[:8]


def _stat(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except FileNotFoundError:
        return None
