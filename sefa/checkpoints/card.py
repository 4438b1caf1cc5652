"""The licence and the note that a checkpoint file has for itself, if it has any."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sefa.checkpoints.file_kinds import HEAD, is_safetensors
from sefa_runtime.model.card import MAX_LICENSE, MAX_NOTE, tidied

# In the order of preference; `modelspec` is Stability AI's convention for the metadata of safetensors files.
LICENSE_KEYS = ("license", "modelspec.license")
NOTE_KEYS = ("note", "modelspec.description", "description")


def read_card(path: Path, content: Any = None) -> tuple[str, str]:
    """Return a file's licence and note: one printable line each, empty where it has none.

    Args:
        path: A file that has been read: of a safetensors file, the metadata say it.
        content: Its contents: of a dict, entries beside the weights say it.
    """
    with path.open("rb") as file:
        entries = _metadata(path) if is_safetensors(file.read(HEAD)) else content
    return _first(entries, LICENSE_KEYS, MAX_LICENSE), _first(entries, NOTE_KEYS, MAX_NOTE)


def _metadata(path: Path) -> dict[str, str]:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        return file.metadata() or {}


def _first(entries: Any, keys: tuple[str, ...], most: int) -> str:
    if not isinstance(entries, Mapping):
        return ""
    texts = (tidied(entries[key], most) for key in keys if isinstance(entries.get(key), str))
    return next(filter(None, texts), "")
