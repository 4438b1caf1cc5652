"""Split and join batches of a graph's input arrays, and pad them to a graph's static shape."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sefa_runtime.errors import InputError
from sefa_runtime.model.signature import Signature

# An array for each of the graph's inputs, by name; the first axis is always the batch.
Feeds = dict[str, NDArray[Any]]


def split(feeds: Feeds, size: int) -> Iterator[Feeds]:
    """Yield the same inputs in parts of at most `size` images."""
    for start in range(0, len(feeds["direction"]), size):
        yield {name: value[start : start + size] for name, value in feeds.items()}


def join(parts: Sequence[Feeds]) -> Feeds:
    """Join the inputs of several calls into those of one.

    Args:
        parts: Inputs of one model: arrays of the same names and shapes, except for the batch and the number of edits.
    """
    if len(parts) == 1:
        return parts[0]
    edits = max(part["direction"].shape[1] for part in parts)
    parts = [with_edits(part, edits) for part in parts]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def with_edits(feeds: Feeds, edits: int) -> Feeds:
    """Return the inputs with at least `edits` edits; those added are direction 0 at alpha 0, which changes nothing."""
    missing = edits - feeds["direction"].shape[1]
    if missing <= 0:
        return feeds
    return feeds | {name: np.pad(feeds[name], ((0, 0), (0, missing))) for name in ("direction", "alpha")}


def pad(signature: Signature, feeds: Feeds) -> Feeds:
    """Pad inputs to the batch and edits fixed at export, with edits of alpha 0 and copies of the last image.

    Raises:
        InputError: If there are more edits than the model takes.
    """
    batch, edits = feeds["direction"].shape
    if signature.num_edits is not None:
        if edits > signature.num_edits:
            raise InputError(f"the model takes {signature.num_edits} edits at once, got {edits}")
        feeds = with_edits(feeds, signature.num_edits)
    if signature.batch is not None and batch < signature.batch:
        repeats = [1] * (batch - 1) + [signature.batch - batch + 1]
        feeds = {name: np.repeat(value, repeats, axis=0) for name, value in feeds.items()}
    return feeds
