"""Rules for the names of a generator's classes."""

from collections.abc import Sequence

MAX_LENGTH = 100
MAX_SHOWN = 6  # in one message


def class_name_problems(names: Sequence[object], num_classes: int) -> list[str]:
    """Return what is wrong with the names of `num_classes` classes; an empty list if nothing is, or there are none."""
    if not names:
        return []
    if len(names) != num_classes:
        return [f"{len(names)} names of classes for {num_classes} classes"]
    unfit = next((name for name in names if not _is_name(name)), None)
    if unfit is not None:
        return [
            f"{unfit!r:.{MAX_LENGTH}} cannot name a class: a name is 1 to {MAX_LENGTH} printable characters without "
            "commas"
        ]
    seen: set[object] = set()
    for name in names:
        if name in seen:
            return [f"two classes have the same name {name!r}"]
        seen.add(name)
    return []


def listed_classes(names: Sequence[str], num_classes: int) -> str:
    """Return which classes there are, for messages: `A to Z, 0 to 9`, `cat, dog and more`, or `0..9`."""
    if not names:
        return f"0..{num_classes - 1}"
    runs: list[tuple[str, str]] = []  # First and last of names that follow each other, as letters do.
    for name in names:
        first, last = runs[-1] if runs else ("", "")
        if len(last) == len(name) == 1 and ord(name) == ord(last) + 1:
            runs[-1] = (first, name)
        else:
            runs.append((name, name))
    words = [first if first == last else f"{first} to {last}" for first, last in runs]
    return ", ".join(words[:MAX_SHOWN]) + (" and more" if len(words) > MAX_SHOWN else "")


def _is_name(name: object) -> bool:
    if not isinstance(name, str) or not 0 < len(name) <= MAX_LENGTH or name != name.strip():
        return False
    return name.isprintable() and "," not in name  # Commas stand between the names of a list.
