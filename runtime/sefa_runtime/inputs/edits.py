"""The edits of a call: the directions and alphas of each image."""

import contextlib
import operator
from collections.abc import Mapping, Sequence
from typing import Any, SupportsIndex

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sefa_runtime.errors import InputError
from sefa_runtime.inputs.coercion import as_numbers
from sefa_runtime.model.info import ModelInfo

# Direction and alpha, [batch, edits] each.
Edits = tuple[NDArray[np.int64], NDArray[np.float32]]
# Alpha by direction name or index: one for all images, or one per image.
NamedEdits = Mapping[str | int, float | Sequence[float]]


def prepare_edits(info: ModelInfo, direction: ArrayLike | None, alpha: ArrayLike | None, batch: int) -> Edits:
    """Return edits from indices and alphas; None and None mean no edits.

    Raises:
        InputError: If shapes do not match, or an index is out of range.
    """
    if direction is None and alpha is None:
        return np.empty((batch, 0), np.int64), np.empty((batch, 0), np.float32)
    if direction is None or alpha is None:
        given, missing = ("alpha", "direction") if direction is None else ("direction", "alpha")
        raise InputError(f"{given} without {missing}: an edit is both")
    direction = as_numbers(direction, "direction", np.int64)
    alpha = as_numbers(alpha, "alpha", np.float32)
    last = len(info.directions) - 1
    if direction.size and direction.view(np.uint64).max() > last:  # Negative ones are the largest of all.
        wrong = direction[(direction < 0) | (direction > last)][0]
        raise InputError(f"direction must be in 0..{last}, got {wrong}")
    if direction.ndim == 2 and direction.shape == alpha.shape and len(direction) == batch:
        # Already as the graph takes them; broadcasting would cost more than everything above.
        return np.ascontiguousarray(direction), np.ascontiguousarray(alpha)
    try:
        columns = _columns(direction, batch), _columns(alpha, batch)
        shape = (batch, np.broadcast_shapes(columns[0].shape, columns[1].shape)[1])
        direction, alpha = (np.broadcast_to(column, shape) for column in columns)
    except ValueError:
        raise InputError(
            f"direction and alpha must be single numbers or have shape [{batch}] or [{batch}, edits], "
            f"got {list(np.shape(direction))} and {list(np.shape(alpha))}"
        ) from None
    return np.ascontiguousarray(direction), np.ascontiguousarray(alpha)


def prepare_named_edits(info: ModelInfo, edits: NamedEdits, batch: int) -> Edits:
    """Return edits from alphas by direction name or index.

    Raises:
        InputError: If a direction is unknown or given twice, or an alpha is neither one number nor one per image.
    """
    if not isinstance(edits, Mapping):
        raise InputError(f"edits must map directions to alphas, as {{'pose': 2.0}}, got {type(edits).__name__}")
    indices = [direction_index(info, key) for key in edits]
    if len(set(indices)) != len(indices):
        raise InputError(f"a direction is given twice: {', '.join(map(str, edits))}")
    alpha = np.empty((batch, len(edits)), np.float32)
    for column, (key, value) in enumerate(edits.items()):
        values = as_numbers(value, f"alpha of direction {key}", np.float32)
        if values.shape not in ((), (batch,)):
            raise InputError(
                f"alpha of direction {key} must be one number or one for each of {batch} images, "
                f"got shape {list(values.shape)}"
            )
        alpha[:, column] = values
    return np.tile(np.asarray(indices, np.int64), (batch, 1)), alpha


def prepare_alphas(alphas: Sequence[float]) -> NDArray[np.float32]:
    """Return the steps of a sweep, [A].

    Raises:
        InputError: If they are not one or more numbers.
    """
    steps = as_numbers(alphas, "alphas", np.float32)
    if steps.ndim != 1 or not len(steps):
        raise InputError(f"alphas must be a list of one or more numbers, got shape {steps.shape}")
    return steps


def direction_index(info: ModelInfo, direction: str | SupportsIndex) -> int:
    """Return the index of a direction given by name or index.

    Raises:
        InputError: If there is no such direction.
    """
    names = info.names
    if isinstance(direction, str):
        if direction in names:
            return names.index(direction)
    elif not isinstance(direction, bool):
        with contextlib.suppress(TypeError):  # Not an integer.
            index = operator.index(direction)
            if 0 <= index < len(names):
                return index
    some = ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")
    raise InputError(f"direction must be in 0..{len(names) - 1} or a name ({some}), got {direction!r}")


def _columns(values: NDArray[Any], batch: int) -> NDArray[Any]:
    """Return direction or alpha as a 2-D array that broadcasts to [batch, edits].

    Raises:
        ValueError: If it has more dimensions.
    """
    if values.ndim == 1 and batch > 1:
        return values[:, None]  # One edit per image: [batch] -> [batch, 1]
    if values.ndim > 2:
        raise ValueError
    return np.atleast_2d(values)
