"""A model whose classes have names."""

from pathlib import Path

from support.descriptions import change_description
from support.paths import GOLDEN

NAMES = ("S", "e", "F", "a", "5", "dog")
SIZE = 32  # of an image


def write_named(folder: Path) -> Path:
    """Write `named.onnx`: the golden model style_z, with names for its six classes."""
    return change_description(
        GOLDEN / "style_z.onnx", folder / "named.onnx", lambda document: document.update(class_names=list(NAMES))
    )
