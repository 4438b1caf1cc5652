"""From a file to its contents, without running anything in it."""

import pickle
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch

from sefa.checkpoints.checkpoint import Checkpoint
from sefa.checkpoints.pickles import RestrictedUnpickler, read_legacy_stream, read_torch_zip
from sefa.errors import CheckpointError
from sefa_runtime.files import input_problem

EXPECTED = "a checkpoint of a GAN's generator was expected"


def read(path: Path) -> Checkpoint:
    """Read a file's contents.

    Raises:
        CheckpointError: If it is missing, damaged, wants to run code, or is no checkpoint.
    """
    problem = input_problem(path)
    if problem:
        raise CheckpointError(problem)
    with path.open("rb") as file:
        head = file.read(512)
    _refuse_other_kinds(path, head)
    try:
        return Checkpoint(path, _content(path, head))
    except CheckpointError:
        raise
    except (pickle.UnpicklingError, RuntimeError, OSError, EOFError, ValueError, LookupError, AttributeError) as error:
        # What pickle and torch raise for damaged files has no class of its own.
        raise CheckpointError(f"truncated or damaged; {EXPECTED}") from error
    except (TypeError, MemoryError, RecursionError, zipfile.BadZipFile) as error:
        raise CheckpointError(f"truncated or damaged; {EXPECTED}") from error


def _content(path: Path, head: bytes) -> Any:
    is_zip = head.startswith(b"PK")
    is_legacy = head.startswith(b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19")
    if not is_zip and not is_legacy:
        with path.open("rb") as file:
            return RestrictedUnpickler(file, encoding="latin1").load()
    try:
        with warnings.catch_warnings():
            # Of pickle protocols and deprecated kinds of tensors; what cannot be used is refused below.
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        # Files that hold an argparse.Namespace or another program's classes beside the weights.
        if is_zip:
            return read_torch_zip(path)
        with path.open("rb") as file:
            return read_legacy_stream(file, path.stat().st_size)


def _refuse_other_kinds(path: Path, head: bytes) -> None:
    """Name what the file is if it is something that people mistake for a checkpoint."""
    text = head.lstrip().lower()
    if not head:
        raise CheckpointError(f"empty file; {EXPECTED}")
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head", b"<!--")):
        raise CheckpointError(f"a web page saved under a checkpoint's name: download the file itself; {EXPECTED}")
    if head.startswith(b"version https://git-lfs"):
        raise CheckpointError("a Git LFS pointer, not the file it stands for: run `git lfs pull`")
    if len(head) > 9 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 100_000_000:
        raise CheckpointError(f"a safetensors file (a direction bank?); {EXPECTED}")
    if head.startswith(b"\x08"):
        raise CheckpointError(f"an ONNX model, already exported; {EXPECTED}")
    if head.startswith(b"PK") and zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
        if any(name.endswith("/constants.pkl") for name in names):
            raise CheckpointError(f"a TorchScript archive; {EXPECTED}")
        if not any(name.endswith("data.pkl") for name in names):
            raise CheckpointError(f"a zip archive that torch did not write; {EXPECTED}")
    elif not head.startswith((b"PK", b"\x80")):
        raise CheckpointError(f"not a checkpoint file; {EXPECTED}")
