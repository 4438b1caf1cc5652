"""NVlabs' networks from state dicts: modules, which are given the attributes that only a pickle holds."""

import math
from collections.abc import Iterator, Mapping

from torch import Tensor

from sefa.checkpoints.assumptions import Assumptions, mapping_rate, positive
from sefa.checkpoints.pickled_networks import PersistedModule
from sefa.errors import CheckpointError

MAPPING_LR = 0.01
CLAMP = 256.0


def as_modules(tensors: Mapping[str, Tensor]) -> PersistedModule:
    """Return the modules that a state dict's keys name, still without attributes."""
    network = _empty("Generator")
    for key, tensor in tensors.items():
        *path, name = key.split(".")
        module = network
        for inner in path:
            module = module.modules.setdefault(inner, _empty(inner))
        module.parameters[name] = tensor
    return network


def each_module(network: PersistedModule) -> Iterator[tuple[str, PersistedModule]]:
    """Yield every module within a network made by `as_modules`, and the last part of its name."""
    for name, module in network.modules.items():
        yield name, module
        yield from each_module(module)


def describe(network: PersistedModule, assumptions: Assumptions, style: str) -> None:
    """Give the modules the attributes that all of NVlabs' generators have.

    Args:
        network: The modules.
        assumptions: What was told, and a record of what was assumed.
        style: The path of a layer that reads w.

    Raises:
        CheckpointError: If that layer is missing, or the number of classes cannot be known.
    """
    rate = mapping_rate(assumptions, MAPPING_LR)
    usual: float | None = CLAMP
    clamp = assumptions.take("conv_clamp", usual, _limit)
    assumptions.note("no clamp" if clamp is None else f"outputs of layers clamped to {clamp:g}", "conv_clamp")
    for name, module in each_module(network):
        multiplier = rate if name.startswith("fc") else 1.0
        module.attributes |= {
            "activation": "linear" if name in ("affine", "embed") else "lrelu",
            "weight_gain": multiplier / math.sqrt(inputs_of(module)),
            "bias_gain": multiplier,
            "conv_clamp": clamp,
        }
    _describe_sizes(network, style)


def _describe_sizes(network: PersistedModule, style: str) -> None:
    if "weight" not in network.module(style).parameters:
        raise CheckpointError(f"missing {style}.weight")
    mapping, w_dim = network.module("mapping"), size_of(network.module(style), "weight", 1)
    inputs = size_of(mapping.modules.get("fc0"), "weight", 1)
    embed, projection = (mapping.modules.get(name) for name in ("embed", "embed_proj"))
    classes = 0
    if projection:  # StyleGAN-XL's embeddings may be of more classes, but it has a centre for each of its own.
        center = mapping.parameters.get("w_avg")
        if not isinstance(center, Tensor) or center.ndim != 2:
            raise CheckpointError("its mapping.w_avg has no row for each class, so the number of classes is unknown")
        classes, inputs = len(center), inputs - size_of(projection, "weight", 0)
    elif embed and "bias" in embed.parameters:
        classes, inputs = size_of(embed, "weight", 1), inputs - size_of(embed, "weight", 0)
    elif embed and inputs > w_dim == size_of(embed, "weight", 0):  # Else it is StyleGAN-XL's, unused without classes.
        raise CheckpointError("missing mapping.embed.bias")
    network.attributes |= {"z_dim": max(inputs, 0), "c_dim": classes, "w_dim": w_dim}


def inputs_of(module: PersistedModule) -> int:
    """Return how many values each output of a layer reads; 1 if its weight is missing or no weight."""
    weight = module.parameters.get("weight")
    return weight[0].numel() if isinstance(weight, Tensor) and weight.ndim > 1 else 1


def size_of(module: PersistedModule | None, name: str, axis: int) -> int:
    """Return a parameter's size along an axis; 1 if it is missing or has no such axis, which the reader will report."""
    tensor = module.parameters.get(name) if module else None
    return tensor.shape[axis] if isinstance(tensor, Tensor) and tensor.ndim > axis else 1


def _limit(text: str) -> float | None:
    return None if text == "none" else positive(text)


def _empty(class_name: str) -> PersistedModule:
    return PersistedModule(class_name, {"_parameters": {}, "_buffers": {}, "_modules": {}})
