"""From a file to its contents, without running anything in it."""

import mmap
import re
import struct
import zipfile
from pathlib import Path
from typing import Any

from sefa.checkpoints.checkpoint import Checkpoint
from sefa.checkpoints.other_kinds import HEAD, other_kind
from sefa.checkpoints.safetensors_files import is_safetensors, read_safetensors
from sefa.checkpoints.unpickling.containers import STREAM_HEAD, read_pickle, read_stream, read_zip
from sefa.checkpoints.unpickling.limits import Limits
from sefa.errors import CheckpointError
from sefa_runtime.files import input_problem

# As Hugging Face's tools call the files of a checkpoint that they have divided.
PART = re.compile(r".*-\d{5}-of-(?P<count>\d{5})\.\w+")
EXPECTED = "a checkpoint of a GAN's generator was expected"
# What contents that do not fit together raise in the standard library, in numpy, in torch and in us.
DAMAGED = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    NotImplementedError,
    RecursionError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
    zipfile.BadZipFile,
)


def read(path: Path) -> Checkpoint:
    """Read a file's contents.

    Raises:
        CheckpointError: If it is missing, damaged, wants to run code, or is no checkpoint, or a part of one: the first
            layers of a network may be a network, too.
    """
    problem = input_problem(path)
    if problem:
        raise CheckpointError(problem)
    part = PART.fullmatch(path.name)
    if part and int(part["count"]) > 1:
        raise CheckpointError(
            f"one of {int(part['count'])} parts of a checkpoint: put the tensors of all into one dict, torch.save it, "
            "and give that file"
        )
    try:
        with path.open("rb") as file:
            head = file.read(HEAD)
        kind = other_kind(path, head)
        if kind is None:
            return Checkpoint(path, _content(path, head))
    except OSError as error:
        raise CheckpointError(f"cannot be read: {error.strerror or error}") from error
    except DAMAGED as error:
        raise CheckpointError(f"truncated or damaged; {EXPECTED}") from error
    raise CheckpointError(f"{kind}; {EXPECTED}")


def _content(path: Path, head: bytes) -> Any:
    if is_safetensors(head):
        return read_safetensors(path)
    limits = Limits(path.stat().st_size)
    if head.startswith(b"PK"):
        return read_zip(path, limits)
    # A file would make room for as much as a pickle claims to have before it reads.
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        if not head.startswith(STREAM_HEAD):
            return read_pickle(data, limits)
        with memoryview(data) as view:
            return read_stream(data, view, limits)
