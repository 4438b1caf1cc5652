"""Activations by name, as `--assume` takes them."""

from collections.abc import Callable

from torch import nn

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "elu": nn.ELU,
    "selu": nn.SELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "mish": nn.Mish,
    "softplus": nn.Softplus,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "none": nn.Identity,
}
SLOPED: dict[str, Callable[[float], nn.Module]] = {"leaky_relu": nn.LeakyReLU, "elu": nn.ELU}
# What may end a generator, and the values that it gives for black and white.
OUTPUTS = {"tanh": (-1.0, 1.0), "sigmoid": (0.0, 1.0), "none": (-1.0, 1.0)}


def activation(text: str) -> nn.Module:
    """Return the module that `relu` or `leaky_relu:0.2` names.

    Raises:
        ValueError: If there is none of that name.
    """
    name, colon, number = text.strip().partition(":")
    if colon and name in SLOPED:
        return SLOPED[name](float(number))
    if colon or name not in ACTIVATIONS:
        raise ValueError(f"one of {', '.join(ACTIVATIONS)}, leaky_relu:SLOPE was expected")
    return ACTIVATIONS[name]()
