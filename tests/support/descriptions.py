"""Models that say something else about themselves, with checksums that fit."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict
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
    payload = read_info(source).payload
    assert payload is not None
    target.write_bytes(describe(source, None, change, asdict(payload.weights) if payload.weights else None))
    return target


def replace_graph(source: Path, target: Path, payload: bytes, **changes: object) -> Path:
    """Write a model of another graph under a model's description, but for `changes`; return the path."""
    target.write_bytes(describe(source, payload, lambda document: document.update(changes)))
    return target


def describe(
    source: Path,
    payload: bytes | None,
    change: Callable[[dict[str, Any]], object] = lambda document: None,
    weights: dict[str, Any] | None = None,
) -> bytes:
    """Return a graph under a model's description, as an export writes them.

    Args:
        source: The model.
        payload: The graph; None: the model's own.
        change: Changes the description, at last.
        weights: Where the description says that the weights are, if not in the graph.
    """
    info = read_info(source)
    assert info.payload is not None
    graph = source.read_bytes()[: info.payload.bytes] if payload is None else payload
    document = json.loads(json.dumps(info.to_dict()))
    document["payload"] = {"bytes": len(graph), "sha256": hashlib.sha256(graph).hexdigest(), "weights": weights}
    change(document)
    return graph + described(json.dumps(document).encode())  # Escaped, so that it can hold what is no text.


def described(document: bytes) -> bytes:
    """Return the end of a model that has this description, whatever it is, and its checksum."""
    entries = ((METADATA_KEY, document), (CHECKSUM_KEY, hashlib.sha256(document).hexdigest().encode()))
    return b"".join(
        bytes_field(METADATA_PROPS, bytes_field(KEY, key.encode()) + bytes_field(VALUE, value))
        for key, value in entries
    )
