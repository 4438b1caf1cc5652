"""Tell from a file's first bytes whether it may be a checkpoint, or is something that people mistake for one."""

import os
import re
from pathlib import Path

from sefa_runtime.archives import DAMAGED_ARCHIVE, open_archive
from sefa_runtime.pickles.torch_files import ARCHIVED_PICKLE

HEAD = 512  # bytes looked at

TEXTS = {
    (b"<!doctype", b"<html", b"<?xml", b"<head", b"<!--"): (
        "a web page saved under a checkpoint's name: download the file itself"
    ),
    (b"version https://git-lfs",): "a Git LFS pointer, not the file it stands for: run `git lfs pull`",
    (b'{"', b"{\n", b"{ ", b"{\r"): "not a checkpoint file but a JSON text",
    (b"#!", b"import ", b"from "): "not a checkpoint file but a program's text",
}
MAGICS = {
    b"\x1f\x8b": "a gzip archive: unpack it first",
    b"BZh": "a bzip2 archive: unpack it first",
    b"\xfd7zXZ\x00": "an xz archive: unpack it first",
    b"\x28\xb5\x2f\xfd": "a zstd archive: unpack it first",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive: unpack it first",
    b"Rar!": "a rar archive: unpack it first",
    b"\x89PNG": "a PNG image",
    b"\xff\xd8\xff": "a JPEG image",
    b"GIF8": "a GIF image",
    b"RIFF": "an image, a sound or a video",
    b"\x89HDF\r\n\x1a\n": "an HDF5 file, as Keras writes; of TensorFlow, NVlabs' pickles are read",
    b"\x93NUMPY": "a numpy array",
    b"%PDF": "a PDF document",
    b"\x7fELF": "a program",
    b"GGUF": "a language model",
}
TENSORFLOW_INDEX_TAIL = bytes.fromhex("57fb808b247547db")
# Version 1, then the graphs. An ONNX file also begins with its version, which has been 3 or more from the start.
SAVED_MODEL_HEAD = b"\x08\x01\x12"
# Pickle protocols 0 and 1 have no magic bytes: they begin with a name, the start of a container or an empty container.
OLD_PICKLE = re.compile(rb"c[\w.]+\n[\w.]+\n|\(([dl][pq]|[SV]|t|[ci][\w.]+\n)|[}\]]q")
TORCH_TAR_MEMBERS = (b"sys_info", b"pickle", b"tensors", b"storages")


def is_safetensors(head: bytes) -> bool:
    """Return whether a file begins like a safetensors file: an eight-byte length, then a JSON object."""
    return len(head) > 9 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 100_000_000


def describe_other_file(path: Path, head: bytes) -> str | None:
    """Return in a few words what a file is instead of a checkpoint, or None if it may be a checkpoint.

    Args:
        path: The file.
        head: Its first `HEAD` bytes.
    """
    if not head:
        return "empty file"
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    for beginnings, kind in TEXTS.items():
        if text.startswith(beginnings):
            return kind
    for magic, kind in MAGICS.items():
        if head.startswith(magic):
            return f"not a checkpoint file but {kind}"
    if is_safetensors(head):
        return None
    if head[257:262] == b"ustar":
        return _tar(head)
    if head.startswith(SAVED_MODEL_HEAD):
        return "a TensorFlow SavedModel; of TensorFlow, NVlabs' pickles are read"
    if head.startswith(b"\x08"):
        return "an ONNX model, already exported"
    if head.startswith(b"PK"):
        return _zip(path)
    if _tail(path, 8) == TENSORFLOW_INDEX_TAIL:
        return "the index of a TensorFlow checkpoint; of TensorFlow, NVlabs' pickles are read"
    return None if head.startswith(b"\x80") or OLD_PICKLE.match(head) else "not a checkpoint file"


def _tar(head: bytes) -> str:
    if head.startswith(TORCH_TAR_MEMBERS):
        return "a tar archive as torch.save wrote before 2017: load it with PyTorch, if you trust it, and save it again"
    return "not a checkpoint file but a tar archive: unpack it first"


def _zip(path: Path) -> str | None:
    try:
        with open_archive(path) as archive:
            names = archive.namelist()
    except DAMAGED_ARCHIVE:
        return None  # Reading it will report the damage.
    if any(name.endswith("/constants.pkl") for name in names):
        return "a TorchScript archive"
    if any(name.endswith("/archive_format") for name in names):
        return "a program that torch.export wrote"
    if any(ARCHIVED_PICKLE.fullmatch(name) for name in names):
        return None
    if names and all(name.endswith(".npy") for name in names):
        return "a numpy archive"
    if "model.weights.h5" in names:
        return "a Keras model; of TensorFlow, NVlabs' pickles are read"
    return "a zip archive that torch did not write"


def _tail(path: Path, length: int) -> bytes:
    with path.open("rb") as file:
        file.seek(-min(length, path.stat().st_size), os.SEEK_END)
        return file.read()
