"""Parse changes to directions, such as `0=pose`, `3=smile:-1`, `0=pose:[-4,4]`; find directions by name or index."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sefa.errors import ArgumentError, listed

FORM = "a change looks like 0=pose, 3=smile:-1 (flipped) or 0=pose:[-4,4] (its range)"
FLIP = "-1"


@dataclass(frozen=True)
class Change:
    """A change to one direction; None and False change nothing.

    Attributes:
        name: The new name.
        flip: Whether to reverse the direction.
        alpha_range: The new suggested lowest and highest alpha, after the flip.
    """

    name: str | None = None
    flip: bool = False
    alpha_range: tuple[float, float] | None = None


def parse_change(text: str) -> tuple[str, Change]:
    """Parse one change: return the direction, an index or a name, and its change.

    Raises:
        ArgumentError: If the text has none of the forms.

    Examples:
        >>> parse_change("3=smile:-1")
        ('3', Change(name='smile', flip=True, alpha_range=None))
        >>> parse_change("0=pose:[-4,4]")
        ('0', Change(name='pose', flip=False, alpha_range=(-4.0, 4.0)))
    """
    direction, equals, rest = text.partition("=")
    name, *parts = (part.strip() for part in rest.split(":"))
    flip, alpha_range = False, None
    for part in parts:
        if part == FLIP and not flip:
            flip = True
        elif part.startswith("[") and part.endswith("]") and alpha_range is None:
            alpha_range = _range(part[1:-1].split(","), text)
        else:
            raise ArgumentError(f"{FORM}, got {text!r}")
    if not direction.strip() or not equals or not (name or parts):
        raise ArgumentError(f"{FORM}, got {text!r}")
    return direction.strip(), Change(name or None, flip, alpha_range)


def parse_range(text: str) -> tuple[str, Change]:
    """Parse `0=-4:4` or `pose=-4:4`, a change of the range alone.

    Raises:
        ArgumentError: If the text does not have that form.
    """
    direction, equals, rest = text.partition("=")
    if not direction.strip() or not equals:
        raise ArgumentError(f"a range looks like 0=-4:4, got {text!r}")
    return direction.strip(), Change(alpha_range=_range(rest.split(":"), text))


def resolve(names: Sequence[str], requested: Sequence[tuple[str, Change]]) -> dict[int, Change]:
    """Find the directions that changes apply to.

    Args:
        names: The current names.
        requested: Pairs of a direction, by index or name, and a change; several changes to one direction are combined.
            A direction may also be given by the new name that it gets here, if no direction has that name yet.

    Returns:
        The changes by index.

    Raises:
        ArgumentError: If there is no such direction, or two changes to one direction contradict each other.
    """
    changes: dict[int, Change] = {}
    new = {change.name: direction for direction, change in requested if change.name and change.name not in names}
    for direction, change in requested:
        index = find(names, new.get(direction, direction))
        before = changes.get(index, Change())
        if (before.name and change.name) or (before.alpha_range and change.alpha_range):
            raise ArgumentError(f"direction {direction} is changed twice")
        changes[index] = Change(
            change.name or before.name, change.flip != before.flip, change.alpha_range or before.alpha_range
        )
    return changes


def renamed(names: Sequence[str], changes: Mapping[int, Change]) -> tuple[str, ...]:
    """Return all names after the changes."""
    return tuple(changes.get(index, Change()).name or name for index, name in enumerate(names))


def find(names: Sequence[str], direction: str) -> int:
    """Return the index of a direction given by index or name.

    Raises:
        ArgumentError: If there is no such direction.
    """
    direction = direction.strip()
    try:
        index = int(direction)
    except ValueError:
        if direction not in names:
            raise ArgumentError(f"no direction is named {direction!r}; there are {listed(names)}") from None
        return names.index(direction)
    if not 0 <= index < len(names):
        raise ArgumentError(f"direction must be in 0..{len(names) - 1} or a name, got {direction}")
    return index


def find_all(names: Sequence[str], directions: str) -> list[int]:
    """Return the indices of the directions in a list like `0,3,1`, `0-7` or `pose,smile`, in its order.

    Raises:
        ArgumentError: If one does not exist or is listed twice.
    """
    indices: list[int] = []
    for part in directions.split(","):
        first, dash, last = part.strip().partition("-")
        if dash and first.isdecimal() and last.isdecimal():
            found = list(range(find(names, first), find(names, last) + 1))
            if not found:
                raise ArgumentError(f"directions {part.strip()!r} run backwards")
        else:
            found = [find(names, part)]
        for index in found:
            if index in indices:
                raise ArgumentError(f"direction {names[index]!r} is listed twice in {directions!r}")
            indices.append(index)
    return indices


def _range(parts: Sequence[str], text: str) -> tuple[float, float]:
    try:
        low, high = map(float, parts)
    except ValueError:
        raise ArgumentError(f"a range looks like [-4,4], or --range 0=-4:4, got {text!r}") from None
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ArgumentError(f"a range runs from low to high, got {text!r}")
    return low, high
