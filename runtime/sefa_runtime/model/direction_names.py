"""What may name a direction."""

from collections.abc import Sequence

MAX_LENGTH = 100
MAX_NAMED = 4  # in one message
# `pose=2.5`, `pose:-1` and `pose,smile` must be read one way only.
RESERVED = "=:,"


def is_name(name: object) -> bool:
    """Whether `name` can name a direction: printable text that `0=2.5` style options cannot mistake for an index."""
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
    """What is wrong with a bank's names; nothing if they are fine."""
    unfit = [name for name in names if not is_name(name)]
    if unfit:
        shown = [f"{name!r:.{MAX_LENGTH}} is not a name" for name in unfit[:MAX_NAMED]]
        return [*shown, f"nor are {len(unfit) - MAX_NAMED} more"] if len(unfit) > MAX_NAMED else shown
    seen: set[object] = set()
    for name in names:
        if name in seen:
            return [f"two directions have the same name {name!r}"]
        seen.add(name)
    return []
