"""Name a user's module in messages, and handle what its code raises."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from sefa.errors import ArgumentError


def kind(module: nn.Module) -> str:
    """Return the class's name; for TorchScript, the name of the original class."""
    return str(getattr(module, "original_name", type(module).__name__))


def first_line(error: BaseException) -> str:
    """Return an error's class and the most informative line of its text."""
    lines = str(error).strip().splitlines()
    # TorchScript's interpreter puts the reason last.
    text = lines[-1] if isinstance(error, torch.jit.Error) else lines[0] if lines else ""
    return f"{type(error).__name__}: {text[:200]}"


@contextmanager
def blamed(message: str) -> Iterator[None]:
    """Turn any exception of the user's code into an ArgumentError: `message`, then the result of `first_line`."""
    try:
        yield
    except ArgumentError:
        raise
    except (Exception, SystemExit) as error:
        raise ArgumentError(message + first_line(error)) from error
