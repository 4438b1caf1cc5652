"""Make the layers of a FastGAN, whose weights have torch's spectral norm and whose batch norms are torch's."""

from dataclasses import dataclass

import torch
from torch import Tensor

from sefa.checkpoints.parts.assembly import Parameters
from sefa.checkpoints.parts.growing import up_kernel
from sefa.checkpoints.parts.spectral_norm import SpectralLayers, dense, normalized
from sefa.checkpoints.parts.stylegan2_layers import seeded_noise
from sefa.generators.biggan import ConditionalNorm

EPSILON = 1e-5  # of batch norms


@dataclass(frozen=True)
class ConvNames:
    """The names of a convolution, its noise's strength and its norm."""

    conv: str
    strength: str | None
    norm: str


def names_of_level(weights: SpectralLayers, size: int, is_conditional: bool) -> list[ConvNames]:
    """Return the names of a level's convolutions: one, or two with noise."""
    level = f"feat_{size}"
    if is_conditional:
        if weights.has(f"{level}.conv"):
            return [ConvNames(f"{level}.conv", None, f"{level}.bn")]
        return [ConvNames(f"{level}.conv{i}", f"{level}.noise.weight", f"{level}.bn{i}") for i in (1, 2)]
    if not weights.has(f"{level}.5"):
        return [ConvNames(f"{level}.1", None, f"{level}.2")]
    return [ConvNames(f"{level}.{i}", f"{level}.{i + 1}.weight", f"{level}.{i + 2}") for i in (1, 5)]


def linear(**tensors: Tensor) -> Parameters:
    """Return the linear layer that a transposed convolution [D, 2C, 4, 4] of a 1x1 image is."""
    weight = normalized({**tensors, "weight": tensors["weight"].transpose(0, 1)}, "weight")  # [2C, D, 4, 4]
    return {"weight": weight.permute(0, 2, 3, 1).flatten(0, 2)}  # [2C·4·4, D]


def gated_conv(up: bool, size: int, index: int, strength: Tensor | None = None, **tensors: Tensor) -> Parameters:
    """Return the parameters of a `GatedConv`, without those of its norm.

    Args:
        up: Whether nearest-neighbour doubling is merged into the convolution.
        size: Height and width of the output.
        index: Chooses the noise, which the file does not store.
        strength: The single number by which the noise is multiplied; None if there is none.
        tensors: The weight [2·out, in, 3, 3], with its spectral norm's vectors.
    """
    weight = dense(**tensors)["weight"]
    parameters = {"conv.weight": up_kernel(weight, fused=False) if up else weight}
    if strength is not None:
        parameters["noise"] = seeded_noise(index, (size, size)) * strength.reshape(())
    return parameters


def conditional_norm(
    mean: Tensor, variance: Tensor, gain_bias: Tensor, bias_bias: Tensor, **tensors: Tensor
) -> Parameters:
    """Return the parameters of a batch norm with gain and bias affine in the class embedding."""
    gain, bias = (normalized(tensors, name) for name in ("gain", "bias"))
    inverse_std = (variance.double() + EPSILON).rsqrt()
    scale = (1 + gain_bias) * inverse_std
    return {
        "affine.weight": ConditionalNorm.folded_weight(gain, bias, mean, variance + EPSILON),
        "affine.bias": torch.cat([scale, bias_bias - mean * scale]).float(),
    }
