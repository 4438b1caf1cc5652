"""The inputs of a call besides latents and edits: one number per image, such as its class or truncation."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sefa_runtime.errors import InputError
from sefa_runtime.inputs.batches import Feeds
from sefa_runtime.inputs.coercion import as_numbers
from sefa_runtime.model.class_names import listed_classes
from sefa_runtime.model.info import ModelInfo
from sefa_runtime.model.signature import TensorSpec

DTYPES: dict[str, type[np.generic]] = {"float32": np.float32, "int64": np.int64}


def prepare_conditions(info: ModelInfo, given: Mapping[str, ArrayLike | None], batch: int) -> Feeds:
    """Return the inputs that are one number per image, [batch] each.

    Args:
        info: The model's description.
        given: The caller's values by name; a missing one or None gets its default.
        batch: The number of images.

    Raises:
        InputError: If a required one is missing, or a shape or value is invalid.
    """
    if info.class_names and info.takes_label and given.get("label") is None:
        there = listed_classes(info.class_names, info.num_classes)
        raise InputError(f"class-conditional: a label is needed, the index or name of a class: {there}")
    return {spec.name: _prepare(spec, given.get(spec.name), batch) for spec in info.signature.conditions}


def why_not_taken(info: ModelInfo, name: str, taken: Iterable[str] = ()) -> str:
    """Return why a model does not take an input.

    Args:
        info: The model's description.
        name: The input's name.
        taken: Names of what the call takes; none: the graph's inputs.
    """
    if name == "label":
        return "it takes no label beside a code" if info.num_classes else "not class-conditional: it takes no label"
    if name == "truncation" and info.truncation is not None:
        return f"truncation is not an input of this model: psi {info.truncation:g} was fixed when it was exported"
    if name in info.signature.names:
        return f"{name} is for run; edit takes edits, and sweep alphas"
    return f"{name} is not an input of this model; it takes {', '.join(taken or info.signature.names)}"


def _prepare(spec: TensorSpec, value: ArrayLike | None, batch: int) -> NDArray[Any]:
    integers = spec.bounds if spec.dtype == "int64" else None
    if value is None:
        if integers and spec.required:
            raise InputError(f"class-conditional: a {spec.name} in 0..{integers[1] - 1} is needed")
        return np.full(batch, spec.fill, spec.dtype)
    values = as_numbers(value, spec.name, DTYPES[spec.dtype])
    if values.shape not in ((), (1,), (batch,)):
        shape = list(values.shape)
        raise InputError(f"{spec.name} must be one number or one for each of {batch} images, got shape {shape}")
    if integers and not (values.min() >= integers[0] and values.max() < integers[1]):
        wrong = values[(values < integers[0]) | (values >= integers[1])].flat[0]
        raise InputError(f"{spec.name} must be in 0..{integers[1] - 1}, got {wrong}")
    return np.ascontiguousarray(np.broadcast_to(values, batch))
