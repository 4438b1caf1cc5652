"""The machine's memory."""

import contextlib
import ctypes
import os


def give_back_memory() -> None:
    """Hand freed memory back to the system: glibc would keep some of it forever. Does nothing on other systems."""
    with contextlib.suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


def total_gib() -> float | None:
    """Return the machine's memory in GiB; None if the system does not report it."""
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (AttributeError, ValueError, OSError):  # Not POSIX.
        return None
