"""A process that lacks what Windows lacks, and in which an open file is as hard to move as there.

What cannot be had here is left out: other separators, names that mean devices, another encoding of files. Imported
first, in a process of its own.
"""

import importlib.abc
import os
import signal
import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

MODULES = {"fcntl", "resource", "uvloop", "pwd", "grp", "termios", "tty", "pty", "syslog", "readline", "posix_ipc"}
OF_OS = (
    "sched_getaffinity", "sched_setaffinity", "fork", "register_at_fork", "fchmod", "fchown", "chown", "lchown",
    "geteuid", "getuid", "getgid", "getegid", "getloadavg", "sysconf", "mkfifo", "getxattr", "setxattr", "listxattr",
    "statvfs", "killpg", "O_NOFOLLOW", "O_NONBLOCK", "O_DIRECTORY", "O_CLOEXEC", "posix_fadvise", "memfd_create",
)  # fmt: skip
OF_SIGNAL = (
    "SIGHUP",
    "SIGKILL",
    "SIGUSR1",
    "SIGUSR2",
    "SIGALRM",
    "alarm",
    "setitimer",
    "pthread_kill",
    "pthread_sigmask",
)


class Absent(importlib.abc.MetaPathFinder):
    """Finds that some modules are not there."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Refuse those, leave the others to the finders that follow."""
        if name in MODULES:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return None


def open_here(path: Any) -> list[int]:
    """Return those of this process's handles that are of a file."""
    real = os.path.realpath(path)
    found = []
    for handle in Path("/proc/self/fd").iterdir():
        try:
            if str(handle.readlink()) == real:
                found.append(int(handle.name))
        except OSError:
            continue
    return found


def unless_open(action: Callable[..., Any]) -> Callable[..., Any]:
    """Return an action on files that fails while one of them is open."""

    def act(*paths: Any, **options: Any) -> Any:
        for path in paths:
            if isinstance(path, str | os.PathLike) and not Path(path).is_dir() and open_here(path):
                raise PermissionError(13, "The process cannot access the file because it is being used", str(path))
        return action(*paths, **options)

    return act


def sync(handle: int, real: Callable[[int], None] = os.fsync) -> None:
    """Refuse a handle that may not write, as FlushFileBuffers does."""
    lines = Path(f"/proc/self/fdinfo/{handle}").read_text(encoding="utf-8").splitlines()
    flags = next(int(line.split()[1], 8) for line in lines if line.startswith("flags:"))
    if flags & os.O_ACCMODE == os.O_RDONLY:
        raise OSError(9, "Bad file descriptor")
    real(handle)


def open_file(path: Any, flags: int, *rest: Any, real: Callable[..., int] = os.open, **options: Any) -> int:
    """Refuse to open a folder."""
    if isinstance(path, str | os.PathLike) and Path(path).is_dir():
        raise PermissionError(13, "Permission denied", str(path))
    return real(path, flags, *rest, **options)


# What the standard library takes of these it has taken.
import asyncio  # noqa: E402, F401
import multiprocessing  # noqa: E402, F401
import shutil  # noqa: E402
import socket  # noqa: E402, F401
import subprocess  # noqa: E402, F401
import tempfile  # noqa: E402, F401

for name in MODULES:
    sys.modules.pop(name, None)
sys.meta_path.insert(0, Absent())
for name in OF_OS:
    if hasattr(os, name):
        delattr(os, name)
if sys.version_info >= (3, 13):  # There Python counts in another way where the first of these is missing.
    os.process_cpu_count = os.cpu_count
for name in OF_SIGNAL:
    if hasattr(signal, name):
        delattr(signal, name)
for name in ("replace", "rename", "unlink", "remove"):
    setattr(os, name, unless_open(getattr(os, name)))
shutil._use_fd_functions = False  # type: ignore[attr-defined]  # How it removes folders where they can be opened.
os.fsync = sync  # type: ignore[assignment]
os.open = open_file
