"""Name a user's module in messages, and handle what its code raises."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import torch
from torch import nn

from sefa.errors import ArgumentError

TORCH, OURS = Path(torch.__file__).parent, Path(__file__).parents[1]
CALLER = Path(__file__).with_name("custom_generator.py")  # where the user's module is called


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


def users_line(frame: FrameType | None) -> str:
    """Return file and line of the innermost call from the user's code, as `users_frame`; empty if there is none."""
    frame = users_frame(frame)
    return "" if frame is None else f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"


def users_frame(frame: FrameType | None) -> FrameType | None:
    """Return the innermost call from the user's code; None if there is none.

    Args:
        frame: Where to begin, going outwards to where this toolkit calls the module.
    """
    while frame is not None:
        file = Path(frame.f_code.co_filename)
        if file == CALLER:
            return None
        if not file.is_relative_to(OURS) and not file.is_relative_to(TORCH) and file.is_file():
            return frame
        frame = frame.f_back
    return None
