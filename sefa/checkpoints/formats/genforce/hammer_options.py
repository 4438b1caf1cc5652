"""What Hammer, genforce's trainer (bytedance/Hammer), stores beside its models: the options that each had."""

import math
from collections.abc import Mapping
from typing import Any

from sefa.checkpoints.assumptions import Assumptions
from sefa.checkpoints.checkpoint import Checkpoint, LoadOptions
from sefa.errors import CheckpointError

# For each fact, the name of Hammer's option and its default.
Facts = Mapping[str, tuple[str, float | None]]

# What each option must be for the tensors to mean what the formats take them for; the first is its default.
SUPPORTED: Mapping[str, tuple[object, ...]] = {
    "repeat_w": (True,),
    "normalize_z": (True,),
    "mapping_use_wscale": (True,),
    "embedding_use_wscale": (True,),
    "embedding_wscale_gian": (1.0,),
    "embedding_lr_mul": (1.0,),
    "normalize_embedding": (True,),
    "normalize_embedding_latent": (False,),
    "const_input": (True,),
    "demodulate": (True,),
    "use_wscale": (True,),
    "lr_mul": (1.0,),
    "noise_type": ("spatial", "none"),
}


def options_of(checkpoint: Checkpoint, gain: float) -> Mapping[str, Any] | None:
    """Return the options that a generator was built with; None if the file holds none.

    Args:
        checkpoint: The generator's state dict, and what is stored beside it.
        gain: The default gain of weights before their activations.

    Raises:
        CheckpointError: If they give the same tensors another meaning.
    """
    models = checkpoint.beside.get("model_kwargs_init")
    options = models.get(checkpoint.location[-1]) if isinstance(models, Mapping) and checkpoint.location else None
    if not isinstance(options, Mapping):
        return None
    supported = {**SUPPORTED, "wscale_gain": (gain,), "mapping_wscale_gain": (gain,)}
    for name, values in supported.items():
        value = options.get(name, values[0])
        if not isinstance(value, str | int | float) or not (value in values or _is_close(value, values[0])):
            raise CheckpointError(f"it was built with {name} = {value!r}, which is not supported")
    return options


def facts(checkpoint: Checkpoint, options: LoadOptions, names: Facts, gain: float) -> Assumptions:
    """Return facts as the file has them or, if it holds no options, as they are usual or were told.

    Args:
        checkpoint: The generator's state dict, and what is stored beside it.
        options: What was told.
        names: The facts.
        gain: The default gain of weights before their activations.

    Raises:
        CheckpointError: If the file's options are not supported.
    """
    own = options_of(checkpoint, gain)
    if own is None:
        return options.assumptions
    if own.get("final_tanh", False) is not False:
        raise CheckpointError(f"it was built with final_tanh = {own['final_tanh']!r}, which is not supported")
    found = {fact: own.get(name, usual) for fact, (name, usual) in names.items()}
    for fact, value in found.items():
        if not (value is None and fact == "conv_clamp") and not _is_positive(value):
            raise CheckpointError(f"it was built with {names[fact][0]} = {value!r}, a positive number was expected")
    return Assumptions({fact: "none" if value is None else value for fact, value in found.items()})


def _is_close(value: object, number: object) -> bool:
    return isinstance(value, float) and isinstance(number, float) and math.isclose(value, number, rel_tol=1e-6)


def _is_positive(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf
