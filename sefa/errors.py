"""Errors that the caller of `sefa` can fix."""

from collections.abc import Sequence


class SefaError(Exception):
    """Base of all errors of `sefa` and `sefa_export`; the message is one line that names the file or value."""


class CheckpointError(SefaError):
    """The file is missing, damaged, or holds no generator that can be read."""


class BankError(SefaError):
    """The direction bank is missing, damaged, or was made for another generator."""


class ArgumentError(SefaError, ValueError):
    """A layer, number or option that the call cannot take."""


def listed(names: Sequence[str], most: int = 8) -> str:
    """Write `a, b, c` for a message; beyond `most` names, write the first ones and how many more there are."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
