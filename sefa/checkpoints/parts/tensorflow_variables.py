"""What the formats of NVlabs' TensorFlow generators share."""

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from torch import Tensor

from sefa.errors import CheckpointError

# Label embeddings, which have one row per class in both layouts.
UNTURNED = ("mapping/LabelConcat/weight", "mapping/LabelEmbed/weight")


def in_torchs_layout(variables: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return views of the variables with their axes in torch's order.

    A dense layer's weight [in, out] becomes [out, in], a convolution's [k, k, in, out] becomes [out, in, k, k].
    """
    axes = {2: (1, 0), 4: (3, 2, 0, 1)}
    return {
        name: value.permute(axes[value.ndim])
        if name.endswith("weight") and value.ndim in axes and name not in UNTURNED
        else value
        for name, value in variables.items()
    }


def levels_of(names: Iterable[str]) -> int:
    """Return how many levels the variables' scopes name: 4x4, 8x8, ..."""
    sizes = [int(match[1]) for name in names if (match := re.match(r"(?:.*/)?(\d{1,6})x\1/", name))]
    return 1 + max((round(math.log2(size / 4)) for size in sizes if size >= 4), default=0)


def check_kwargs(kwargs: Mapping[str, Any], allowed: Mapping[str, tuple[object, ...]]) -> None:
    """Refuse a network built with options that give the same variables another meaning.

    Args:
        kwargs: The options that the trainer passed.
        allowed: The supported values of each option that matters; other options do not affect inference.

    Raises:
        CheckpointError: If such an option has another value; the message lists all of them.
    """
    others = [f"{name} = {kwargs[name]!r}" for name in allowed if name in kwargs and kwargs[name] not in allowed[name]]
    if others:
        raise CheckpointError(f"its network was built with {', '.join(others)}, which is not supported")


def integer(kwargs: Mapping[str, Any], name: str, default: int) -> int:
    """Read a size from the options.

    Raises:
        CheckpointError: If it is not a natural number.
    """
    value = kwargs.get(name, default)
    if isinstance(value, np.integer):
        value = value.item()
    if type(value) is not int or value < 0:
        raise CheckpointError(f"its network was built with {name} = {value!r}, a natural number was expected")
    return value
