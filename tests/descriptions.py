"""Models that say something else about themselves, with checksums that fit."""

import hashlib
from pathlib import Path

from sefa_runtime.exported import read_info


def replace_description(source: Path, target: Path, old: str, new: str) -> None:
    """Write a copy of a model with other text in its description, no longer than what it replaces."""
    content = source.read_bytes()
    document = read_info(source).to_json()
    checksum = hashlib.sha256(document.encode()).hexdigest()
    changed = document.replace(old, new + " " * (len(old) - len(new)), 1)
    assert changed != document
    content = content.replace(document.encode(), changed.encode())
    target.write_bytes(content.replace(checksum.encode(), hashlib.sha256(changed.encode()).hexdigest().encode()))
