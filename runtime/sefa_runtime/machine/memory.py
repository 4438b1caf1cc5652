"""The machine's memory."""

import contextlib
import ctypes
import os


def give_back_memory() -> None:
    """Return memory that was freed to the system: glibc would keep some of it forever. Other systems need nothing."""
    with contextlib.suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


def total_gib() -> float | None:
    """Return how much memory the machine has, in GiB; None where the system does not say."""
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (AttributeError, ValueError, OSError):  # Not a POSIX system.
        return None
