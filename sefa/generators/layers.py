"""Layer specifications: `all`, `3`, `0-3`, `0,2,5-7`."""

import operator
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from sefa.errors import ArgumentError

LayerSpec = str | int | Iterable[int]


def parse_layers(
    spec: LayerSpec, num_layers: int, default: tuple[int, ...] | None = None, names: Sequence[str] = ()
) -> tuple[int, ...]:
    """Turn a specification into layer indices.

    Args:
        spec: `all`, an index, a range including both ends, a comma-separated list of these, or an iterable of indices.
        num_layers: The number of layers, L.
        default: What `all` means; None: every layer.
        names: Names of the layers, if they have any: these, and patterns such as `blocks.*.style`, stand for indices.

    Returns:
        Indices in ascending order, each once.

    Raises:
        ArgumentError: If the specification cannot be read, is empty, or names a layer that does not exist.

    Examples:
        >>> sefa.parse_layers("0,2-4", num_layers=14)
        (0, 2, 3, 4)
    """
    if isinstance(spec, str):
        wanted = set[int]()
        for part in spec.split(","):
            every = range(num_layers) if default is None else default
            named = {index for index, name in enumerate(names) if fnmatchcase(name, part.strip())}
            wanted |= set(every) if part.strip() == "all" else named or _parse_part(part.strip(), spec, num_layers)
    else:
        try:
            wanted = {operator.index(index) for index in (spec if isinstance(spec, Iterable) else [spec])}
        except TypeError:
            raise ArgumentError(f"layers must be text like 0-3, or integers, got {spec!r}") from None
    unknown = sorted(index for index in wanted if not 0 <= index < num_layers)
    if unknown or not wanted:
        raise ArgumentError(
            f"layers must be all or in 0..{num_layers - 1}, got {spec!r}"
            if isinstance(spec, str)
            else f"layers must be in 0..{num_layers - 1}, got {sorted(wanted)}"
        )
    return tuple(sorted(wanted))


def _parse_part(part: str, spec: str, num_layers: int) -> set[int]:
    first, dash, last = part.partition("-")
    try:
        start, end = int(first), int(last if dash else first)
    except ValueError:
        raise ArgumentError(f"layers must look like all, 3, 0-3 or 0,2,5-7, got {spec!r}") from None
    if end < start:
        raise ArgumentError(f"layers {part!r} run backwards")
    if end >= num_layers:  # Checked here, before a set of that size is built.
        raise ArgumentError(f"layers must be all or in 0..{num_layers - 1}, got {spec!r}")
    return set(range(start, end + 1))
