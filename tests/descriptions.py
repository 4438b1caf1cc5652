"""Models that say something else about themselves, with checksums that fit."""

import hashlib
import json
from pathlib import Path


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
