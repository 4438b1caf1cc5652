"""The output of onnxruntime and its libraries: keep it off the caller's streams, capture it, put it on one line."""

import contextlib
import io
import os
import re
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

# onnxruntime's severities.
WARNING, ERROR, FATAL = 2, 3, 4
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
# `2026-01-31 12:00:00.000000000 [E:onnxruntime:Default, file.cc:2043 Create] ` before each message.
ENTRY = re.compile(r"^\S+ \S+ \[([VIWEF]):onnxruntime:[^\]]*\] ", re.MULTILINE)
# What precedes the useful part of a message: the library's source location, error codes, other wrapping.
PREAMBLES = (
    re.compile(r"^.*(?:with error: |\[ERROR\] (?:\[[\w-]+\] )?)", re.DOTALL),
    re.compile(r"^\[ONNXRuntimeError\] : \d+ : \w+ : "),
    re.compile(r"^\S+\.(?:cc|cpp|h):\d+ [^()]*\([^()]*\) "),
)
MAX_CHARACTERS = 400
ONE_AT_A_TIME = threading.RLock()


def is_from_onnxruntime(error: Exception) -> bool:
    """Return whether onnxruntime raised an error: its own have no common base, and C++ errors come through, too."""
    return isinstance(error, RuntimeError | MemoryError) or type(error).__module__.startswith("onnxruntime")


def one_line(said: Exception | str) -> str:
    """Return the gist of a message or an exception on one line."""
    text = " ".join(str(said).split())
    for preamble in PREAMBLES:
        text = preamble.sub("", text)
    return text[:MAX_CHARACTERS] or type(said).__name__


@contextlib.contextmanager
def silence(ort: ModuleType) -> Iterator[None]:
    """Keep the banners of a provider's libraries off stdout, where the caller's own output goes.

    This silences the whole process while it lasts, since the libraries bypass Python.
    """
    with ONE_AT_A_TIME:  # Else a thread might mistake another's replacement for the original stream.
        yield from _silence(ort)


def _silence(ort: ModuleType) -> Iterator[None]:
    if sys.stdout is not None:
        sys.stdout.flush()
    ort.set_default_logger_severity(FATAL)  # Errors are raised, not printed.
    try:
        with (
            Path(os.devnull).open("wb") as null,
            _redirected(1, null.fileno()),
            contextlib.redirect_stdout(io.StringIO()),
        ):
            yield
    finally:
        ort.set_default_logger_severity(WARNING)


def first_error(ort: ModuleType, attempt: Callable[[], object]) -> str:
    """Return the first error that onnxruntime writes to stderr during an attempt, on one line; empty if there is none.

    Anything else that the process writes to stderr meanwhile is lost.
    """
    from tempfile import TemporaryFile

    with TemporaryFile() as file:
        with silence(ort), _redirected(2, file.fileno()):
            ort.set_default_logger_severity(ERROR)
            try:
                attempt()
            except Exception as error:
                if not is_from_onnxruntime(error):
                    raise
        file.seek(0)
        text = COLOUR.sub("", file.read().decode(errors="replace"))
    entries = ENTRY.split(text)[1:]  # severity, message, severity, message, ...
    errors = [message for severity, message in zip(entries[::2], entries[1::2], strict=True) if severity in "EF"]
    return one_line(errors[0]) if errors else ""


@contextlib.contextmanager
def _redirected(stream: int, target: int) -> Iterator[None]:
    try:
        original = os.dup(stream)
    except OSError:  # The stream does not exist, as under some service managers.
        yield
        return
    os.dup2(target, stream)
    try:
        yield
    finally:
        os.dup2(original, stream)
        os.close(original)
