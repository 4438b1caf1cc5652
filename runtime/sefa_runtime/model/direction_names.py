"""Rules for the names of directions."""

from collections.abc import Sequence

MAX_LENGTH = 100
MAX_NAMED = 4  # in one message
# `pose=2.5`, `pose:-1` and `pose,smile` must have only one reading.
RESERVED = "=:,"


def is_name(name: object) -> bool:
    """Return whether `name` can name a direction: printable text that options like `0=2.5` cannot read as an index."""
    if not isinstance(name, str) or not 0 < len(name) <= MAX_LENGTH or name != name.strip() or not name.isprintable():
        return False
    if any(character in name for character in RESERVED):
        return False
    try:
        int(name)
    except ValueError:
        return True
    return False


def name_problems(names: Sequence[object]) -> list[str]:
    """Return what is wrong with a bank's names; an empty list if nothing is."""
    unfit = [name for name in names if not is_name(name)]
    if unfit:
        shown = [f"{name!r:.{MAX_LENGTH}} is not a name" for name in unfit[:MAX_NAMED]]
        return [*shown, f"and {len(unfit) - MAX_NAMED} more"] if len(unfit) > MAX_NAMED else shown
    seen: set[object] = set()
    for name in names:
        if name in seen:
            return [f"two directions have the same name {name!r}"]
        seen.add(name)
    return []
