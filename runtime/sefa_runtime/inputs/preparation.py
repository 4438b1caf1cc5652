"""What callers pass, brought to the arrays that a graph takes, or refused with what was wanted and what came."""

import contextlib
import operator
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, SupportsIndex

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sefa_runtime.errors import InputError
from sefa_runtime.inputs.latents import latents_from_seeds
from sefa_runtime.model.info import ModelInfo
from sefa_runtime.model.signature import BATCH, Signature

Feeds = dict[str, NDArray[Any]]
# The types of a graph's inputs.
DTYPES: dict[str, type[np.generic]] = {"float32": np.float32, "int64": np.int64}


def read_latent(info: ModelInfo, given: Mapping[str, ArrayLike | None]) -> NDArray[np.float32]:
    """The latents of a call, float32 [batch, ...], from the one way of giving them that was used.

    Args:
        info: The model.
        given: `seed`, `z`, `w` and `codes`; all but one are None.

    Raises:
        InputError: If not exactly one is given, the model takes another, or its shape does not fit.
    """
    name = info.latent_name
    ways = [way for way in given if way == name or (way == "seed" and name == "z")]
    used = [way for way, value in given.items() if value is not None]
    if len(used) != 1 or used[0] not in ways:
        got = f", got {' and '.join(used)}" if used else ""
        raise InputError(f"give {'either ' if len(ways) > 1 else ''}{' or '.join(ways)}{got}")
    value = given[used[0]]
    if used[0] == "seed":
        return latents_from_seeds(_listed(value), info.z_dim)
    latents = read_numbers(value, name, np.float32)
    given_shape, shape = latents.shape, info.latent_shape
    if latents.ndim == len(shape):
        latents = latents[None]
    elif name == "w" and latents.ndim == 3 and latents.shape[1] and (latents == latents[:, :1]).all():
        latents = latents[:, 0]  # The same in every layer.
    if latents.ndim != len(shape) + 1 or latents.shape[1:] != shape or not len(latents):
        wanted = ", ".join(map(str, shape))
        hint = _other_space(info, given_shape)
        raise InputError(f"{name} must have shape [batch, {wanted}], got {list(given_shape)}{hint}")
    return np.ascontiguousarray(latents)


def _other_space(info: ModelInfo, shape: tuple[int, ...]) -> str:
    """What a latent of another shape probably is."""
    if shape[-1:] != (info.code_dim,) or 0 in shape:
        return ""
    if info.latent == "w" and len(shape) == 3:
        return ": codes that differ from layer to layer need a model of w+ (sefa export --latent w+)"
    if info.latent == "w+" and len(shape) == 2:
        return f": w must be repeated for each layer, to [batch, {info.num_layers}, {info.code_dim}]"
    return ""


def is_unclear(info: ModelInfo, w: Any) -> bool:
    """Whether `w` has the shape of as many images' w as of one image's code for each layer."""
    dimensions, rows = 0, w
    while isinstance(w, list | tuple) and w:
        dimensions, w = dimensions + 1, w[0]
    return len(rows) == info.num_layers > 1 and dimensions + getattr(w, "ndim", 0) == 2


def read_edits(
    info: ModelInfo, direction: ArrayLike | None, alpha: ArrayLike | None, batch: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Direction and alpha, [batch, edits] each; None and None are no edits.

    Raises:
        InputError: If shapes do not fit, or an index is out of range.
    """
    if direction is None and alpha is None:
        return np.empty((batch, 0), np.int64), np.empty((batch, 0), np.float32)
    if direction is None or alpha is None:
        given, missing = ("alpha", "direction") if direction is None else ("direction", "alpha")
        raise InputError(f"{given} without {missing}: an edit is both")
    direction = read_numbers(direction, "direction", np.int64)
    alpha = read_numbers(alpha, "alpha", np.float32)
    last = len(info.directions) - 1
    if direction.size and not (direction.min() >= 0 and direction.max() <= last):
        wrong = direction[(direction < 0) | (direction > last)][0]
        raise InputError(f"direction must be in 0..{last}, got {wrong}")
    if direction.ndim == 2 and direction.shape == alpha.shape and len(direction) == batch:
        # As the graph takes them: broadcasting costs more than all of the above.
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


def read_edits_by_name(
    info: ModelInfo, edits: Mapping[str | int, float | Sequence[float]], batch: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """As `read_edits`, from alphas by a direction's name or index.

    Raises:
        InputError: If a direction is unknown or given twice, or an alpha is not one number, or one for each image.
    """
    if not isinstance(edits, Mapping):
        raise InputError(f"edits must map directions to alphas, as {{'pose': 2.0}}, got {type(edits).__name__}")
    indices = [direction_index(info, key) for key in edits]
    if len(set(indices)) != len(indices):
        raise InputError(f"a direction is given twice: {', '.join(map(str, edits))}")
    alpha = np.empty((batch, len(edits)), np.float32)
    for column, (key, value) in enumerate(edits.items()):
        values = read_numbers(value, f"alpha of direction {key}", np.float32)
        if values.shape not in ((), (batch,)):
            raise InputError(
                f"alpha of direction {key} must be one number or one for each of {batch} images, "
                f"got shape {list(values.shape)}"
            )
        alpha[:, column] = values
    return np.tile(np.asarray(indices, np.int64), (batch, 1)), alpha


def direction_index(info: ModelInfo, direction: str | SupportsIndex) -> int:
    """The index of a direction given by name or index.

    Raises:
        InputError: If there is no such direction.
    """
    names = info.names
    if isinstance(direction, str):
        if direction in names:
            return names.index(direction)
    elif not isinstance(direction, bool):
        with contextlib.suppress(TypeError):  # It is no integer.
            index = operator.index(direction)
            if 0 <= index < len(names):
                return index
    raise InputError(f"direction must be in 0..{len(names) - 1} or a name ({_some(names)}), got {direction!r}")


def read_conditions(info: ModelInfo, given: Mapping[str, ArrayLike | None], batch: int) -> Feeds:
    """Return the inputs that are one number for each image, [batch] each, such as label and truncation.

    Args:
        info: The model.
        given: What the caller gave, by name; what is None, or is optional and missing, gets its default.
        batch: How many images.

    Raises:
        InputError: If one is needed, is not the model's, or its shape or value does not fit.
    """
    feeds: Feeds = {}
    for spec in info.signature.conditions:
        value = given.get(spec.name)
        integers = spec.bounds if spec.dtype == "int64" else None
        if value is None:
            if integers and spec.required:
                raise InputError(f"class-conditional: a {spec.name} in 0..{integers[1] - 1} is needed")
            value = spec.fill
        values = _one_each(read_numbers(value, spec.name, DTYPES[spec.dtype]), spec.name, batch)
        if integers and not (values.min() >= integers[0] and values.max() < integers[1]):
            wrong = values[(values < integers[0]) | (values >= integers[1])][0]
            raise InputError(f"{spec.name} must be in 0..{integers[1] - 1}, got {wrong}")
        feeds[spec.name] = values
    for name, value in given.items():
        if value is not None and name not in feeds:
            raise InputError(_why_not(info, name))
    return feeds


def _why_not(info: ModelInfo, name: str) -> str:
    """Return why a model does not take an input."""
    if name == "label":
        return "it takes no label beside a code" if info.num_classes else "not class-conditional: it takes no label"
    if name == "truncation":
        return f"truncation is no input of this model: psi {info.truncation:g} was fixed when it was exported"
    return f"{name} is no input of this model"


def fill_up(signature: Signature, feeds: Feeds) -> Feeds:
    """Fill up to the batch and edits that were fixed at export: edits of alpha 0, and the last image again.

    Raises:
        InputError: If there are more edits than the model takes.
    """
    edits = feeds["direction"].shape[1]
    if signature.num_edits is not None and edits > signature.num_edits:
        raise InputError(f"the model was exported for {signature.num_edits} edits at once, got {edits}")
    filled = {}
    for spec in signature.inputs:
        value = feeds[spec.name]
        for index, axis in enumerate(spec.shape):
            missing = signature.static_sizes.get(str(axis), 0) - value.shape[index]
            if missing > 0:
                widths = [(0, missing * (other == index)) for other in range(value.ndim)]
                how: Any = {"mode": "edge"} if axis == BATCH else {"constant_values": spec.fill}
                value = np.pad(value, widths, **how)
        filled[spec.name] = value
    return filled


def split(feeds: Feeds, size: int) -> Iterator[Feeds]:
    """The same inputs in parts of at most `size` images."""
    for start in range(0, len(feeds["direction"]), size):
        yield {name: value[start : start + size] for name, value in feeds.items()}


def read_numbers(values: ArrayLike | None, name: str, dtype: type[np.generic]) -> NDArray[Any]:
    """An array of finite numbers of the kind that `dtype` is.

    Args:
        values: Numbers, lists of them, arrays, or tensors of torch and others: on any device, with or without a
            gradient, also of types that numpy has not, as bfloat16.
        name: What the caller calls them.
        dtype: float32 or int64.

    Raises:
        InputError: If it is none.
    """
    array = values if type(values) is np.ndarray else _as_array(values, name)
    if array.dtype.kind == "V" and "float" in array.dtype.name:
        array = array.astype(np.float32)  # What ml_dtypes adds to numpy, as jax's bfloat16, has no kind of its own.
    integers = dtype is np.int64
    # An empty list is an array of floats to numpy.
    if array.dtype.kind not in ("iu" if integers and array.size else "iuf"):
        raise InputError(f"{name} must be {'integers' if integers else 'numbers'}, got {array.dtype}")
    if array.dtype != dtype:
        if integers and array.dtype.kind == "u" and array.size and array.max() > np.iinfo(np.int64).max:
            raise InputError(f"{name} must be integers below 2**63, got {array.max()}")
        with np.errstate(over="ignore"):
            array = array.astype(dtype)
    if not (integers or np.isfinite(array).all()):
        raise InputError(f"{name} must be finite, got NaN or infinity")
    return array


def _as_array(values: Any, name: str) -> NDArray[Any]:
    """Whatever holds numbers, as numpy sees it.

    Raises:
        InputError: If it cannot be seen so.
    """
    try:
        array = np.asarray(_plain(values) if _holds_tensors(values) else values)
    except Exception as error:  # Whatever a foreign array raises when it cannot become one of numpy's.
        ragged = isinstance(values, list | tuple) and isinstance(error, ValueError)
        why = "rows of unequal length" if ragged else f"{type(values).__name__}: {' '.join(str(error).split())[:200]}"
        raise InputError(f"{name} must be an array of numbers, got {why}") from error
    if np.ma.is_masked(values):
        raise InputError(f"{name} must be finite, got masked values")
    return array


def _holds_tensors(values: Any) -> bool:
    """Whether these are tensors, by the first of them: lists of numbers may be long."""
    while isinstance(values, list | tuple) and values:
        values = values[0]
    return hasattr(values, "detach")


def _plain(values: Any) -> Any:
    """Values without tensors that numpy does not take as they are: with a gradient, on a device, of bfloat16."""
    if isinstance(values, list | tuple):
        return [_plain(value) for value in values]
    if not hasattr(values, "detach"):
        return values
    tensor = values.detach().cpu()
    return tensor.float() if tensor.is_floating_point() and tensor.element_size() < 4 else tensor


def _listed(seeds: Any) -> list[Any]:
    """One seed or several as a list; what they are is not looked at yet."""
    if isinstance(seeds, list | tuple | range):
        return list(seeds)
    array = _as_array(seeds, "seed")
    return [seeds] if array.dtype == object else np.atleast_1d(array).tolist()


def _one_each(values: NDArray[Any], name: str, batch: int) -> NDArray[Any]:
    if values.shape not in ((), (1,), (batch,)):
        raise InputError(f"{name} must be one number or one for each of {batch} images, got {list(values.shape)}")
    return np.ascontiguousarray(np.broadcast_to(values, batch))


def _columns(values: NDArray[Any], batch: int) -> NDArray[Any]:
    """Bring direction or alpha to two dimensions that broadcast to [batch, edits]."""
    if values.ndim == 1 and batch > 1:
        return values[:, None]  # One edit per image: [batch] -> [batch, 1]
    if values.ndim > 2:
        raise ValueError
    return np.atleast_2d(values)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")
