"""Models that say something else about themselves, with checksums that fit."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sefa_runtime.model.graph_check import KEY, METADATA_PROPS, VALUE
from sefa_runtime.model.info import CHECKSUM_KEY, METADATA_KEY
from sefa_runtime.model.protobuf import bytes_field
from sefa_runtime.model.reading import read_info


def replace_description(source: Path, target: Path, old: str, new: str) -> None:
    """Write a copy of a model with other text in its description, no longer than what it replaces."""
    content = source.read_bytes()
    # Not ModelInfo.to_json(), which has fields that older files lack.
    text = content[content.index(b'{"format_version"') :].decode(errors="replace")
    document = text[: json.JSONDecoder().raw_decode(text)[1]]
    checksum = hashlib.sha256(document.encode()).hexdigest()
    changed = document.replace(old, new + " " * (len(old) - len(new)), 1)
    assert changed != document
    content = content.replace(document.encode(), changed.encode())
    target.write_bytes(content.replace(checksum.encode(), hashlib.sha256(changed.encode()).hexdigest().encode()))


def change_description(source: Path, target: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """Write a copy of a model with another description, of any length; return its path."""
    info = read_info(source)
    assert info.payload is not None
    document = json.loads(json.dumps(info.to_dict()))
    change(document)
    return write_model(source.read_bytes()[: info.payload.bytes], target, document)


def replace_graph(source: Path, target: Path, payload: bytes, **changes: object) -> Path:
    """Write a model of another graph under a model's description, but for `changes`; return the path."""
    document = read_info(source).to_dict() | changes
    document["payload"] = {"bytes": len(payload), "sha256": hashlib.sha256(payload).hexdigest(), "weights": None}
    return write_model(payload, target, document)


def write_model(payload: bytes, target: Path, document: dict[str, Any]) -> Path:
    """Write graph and description as an export does; return the path."""
    text = json.dumps(document)  # Escaped, so that it can hold what is no text.
    entries = ((METADATA_KEY, text), (CHECKSUM_KEY, hashlib.sha256(text.encode()).hexdigest()))
    tail = [
        bytes_field(METADATA_PROPS, bytes_field(KEY, key.encode()) + bytes_field(VALUE, value.encode()))
        for key, value in entries
    ]
    target.write_bytes(b"".join([payload, *tail]))
    return target
