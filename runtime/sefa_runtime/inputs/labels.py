"""Classes given by name: of one image, or of several in a row."""

import re
from collections.abc import Sequence
from typing import Any

from numpy.typing import ArrayLike

from sefa_runtime.errors import InputError
from sefa_runtime.inputs.conditions import why_not_taken
from sefa_runtime.model.class_names import listed_classes
from sefa_runtime.model.info import ModelInfo

MAX_LABELS = 1000  # in one text
MAX_TEXT = 20_000  # characters
RANGE = re.compile(r"(\d{1,9})(?:-(\d{1,9}))?")

# Class indices or names: one for all images, or one for each.
Labels = ArrayLike | str | Sequence[str | int]


def label_index(info: ModelInfo, name: str) -> int:
    """Return the index of a class given by name.

    Raises:
        InputError: If there is no such class.
    """
    try:
        return info.class_names.index(name)
    except ValueError:
        raise _unknown(info, name) from None


def label_indices(info: ModelInfo, label: Labels | None) -> Any:
    """Return labels with indices in place of names; what holds no names is returned as it is.

    Raises:
        InputError: If there is no such class.
    """
    if isinstance(label, str):
        return label_index(info, label)
    if isinstance(label, list | tuple) and any(isinstance(one, str) for one in label):
        return [label_index(info, one) if isinstance(one, str) else one for one in label]
    return label


def count_labels(label: Labels | None) -> int:
    """Return how many images labels are for; 1 if there is one for all."""
    several = isinstance(label, list | tuple) or getattr(label, "ndim", 0) == 1
    return max(1, len(label)) if several else 1  # type: ignore[arg-type]


def parse_labels(info: ModelInfo, text: str) -> list[int]:
    """Return the class indices that a text stands for: `S,e,F,a` or `SeFa`; `3`, `3,3,8` or `0-5`.

    Commas separate. What stands between them is, in this order, the name of a class; a word each of whose characters
    names a class; or, with none of these, an index or a range of indices.

    Raises:
        InputError: If it is none of these, or stands for too many classes, or the model takes no label.
    """
    if not info.takes_label:
        raise InputError(why_not_taken(info, "label"))
    if len(text) > MAX_TEXT:
        raise InputError(f"labels of at most {MAX_TEXT} characters, got {len(text)}")
    labels: list[int] = []
    for part in text.split(","):
        found = _parse_part(info, part.strip())
        if len(labels) + len(found) > MAX_LABELS:
            raise InputError(f"at most {MAX_LABELS} labels at once, got {text[:80]!r}")
        labels += found
    return labels


def _parse_part(info: ModelInfo, part: str) -> Sequence[int]:
    names = info.class_names
    if part in names:
        return [names.index(part)]
    if part and all(character in names for character in part):
        return [names.index(character) for character in part]
    indices = RANGE.fullmatch(part)
    if indices is None:
        raise _unknown(info, part)
    first, last = int(indices[1]), int(indices[2] or indices[1])
    if not first <= last < info.num_classes:
        raise _unknown(info, part)
    return range(first, last + 1)


def _unknown(info: ModelInfo, text: str) -> InputError:
    there = listed_classes(info.class_names, info.num_classes)
    if info.class_names:
        return InputError(f"there is no class {text[:80]!r}: there are {there}")
    if RANGE.fullmatch(text):
        return InputError(f"label must be in {there}, got {text}")
    return InputError(f"label must be in {there}, got {text[:80]!r}: the classes of this model have no names")
