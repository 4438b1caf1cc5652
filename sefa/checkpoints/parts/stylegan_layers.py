"""A StyleGAN from its parts' tensors, whichever format's keys they come from."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from sefa.checkpoints.assumptions import Assumptions, one_of
from sefa.checkpoints.parts.assembly import Source, Weights, assemble, combine, source
from sefa.checkpoints.parts.growing import SQRT2, Growth
from sefa.errors import CheckpointError
from sefa.generators.common.mapping import LabelNorm
from sefa.generators.common.mapping import Mapping as MappingNetwork
from sefa.generators.stylegan import StyleGAN, instance_norm

# Of the mapping network, unless the file tells.
MAPPING_LR = 0.01
# From this size of the output on, the original fuses doubling and convolution.
FUSED_FROM = 128


@dataclass(frozen=True)
class Layer:
    """A layer of the synthesis network.

    Attributes:
        conv: Effective weight, as `up_kernel` makes it in the first layer of a level; of the first layer of all, the
            constant [1, C, h, w].
        bias: [C].
        noise_weight: [C].
        noise: Constant noise, [1, 1, H, W].
        style: Effective weight [2C, D] and bias [2C] of the style's transform, as stored.
        blur: The filter behind a doubling, [C, 1, 3, 3].
    """

    conv: Source
    bias: Source
    noise_weight: Source
    noise: Source
    style: Weights
    blur: Source | None


@dataclass(frozen=True)
class MappingParts:
    """The mapping network.

    Attributes:
        shapes: Length of each layer's input and output.
        layers: Effective weights.
        embedding: One row per class, [num_classes, embed_dim], and its shape; None if there are no classes.
    """

    shapes: Sequence[tuple[int, int]]
    layers: Sequence[Weights]
    embedding: tuple[Source, tuple[int, int]] | None


def build(
    tensors: Mapping[str, Tensor],
    *,
    mapping: MappingParts,
    center: Source | None,
    layers: Sequence[Layer],
    widths: Sequence[int],
    base: tuple[int, int],
    images: Sequence[Weights],
    channels: int,
    growth: Growth,
    noise: str,
    unused: Iterable[str] = (),
) -> StyleGAN:
    """Assemble the generator.

    Args:
        tensors: The file's tensors.
        mapping: The mapping network.
        center: Centre of truncation, [D]; None if it must be estimated.
        layers: All layers, two per level.
        widths: Channels that each of them gives.
        base: Height and width of the first level.
        images: Effective 1x1 convolutions to an image, one per level.
        channels: Channels of the image.
        growth: How many of the levels are used.
        noise: `const` or `none`: see LoadOptions.
        unused: Keys that may be left over: those of levels that did not draw the image, and of noise.

    Raises:
        CheckpointError: If keys are missing, not understood, or of the wrong shape.
    """
    built = layers[: 2 * growth.levels]
    classes, embed_dim = mapping.embedding[1] if mapping.embedding else (0, 0)
    inputs, w_dim = mapping.shapes[0][0], mapping.shapes[-1][1]
    if inputs <= embed_dim:
        raise CheckpointError(f"its mapping network takes {inputs} values, of which {embed_dim} are the label's: no z")
    with torch.device("meta"):
        network = MappingNetwork(
            inputs - embed_dim,
            [width for _, width in mapping.shapes],
            classes,
            embed_dim,
            LabelNorm.JOINT,
        )
        to_image = growth.to_image(widths[1::2], channels)
        generator = StyleGAN(network, w_dim, base, widths[: len(built)], noise == "const", to_image)
    plan: dict[str, Source] = growth.to_image_plan(images)
    # A centre that is to be estimated needs the mapping network first.
    plan["center"] = center or source(convert=lambda: torch.zeros(w_dim))
    if mapping.embedding:
        plan["mapping.embedding"] = mapping.embedding[0]
    for index, dense in enumerate(mapping.layers):
        plan |= {f"mapping.layers.{index}.weight": dense.weight, f"mapping.layers.{index}.bias": dense.bias}
    for index, layer in enumerate(built):
        plan |= {f"styles.{index}.weight": layer.style.weight}
        plan |= {f"styles.{index}.bias": combine(layer.style.bias, convert=_scale_around_one)}
        if index == 0:
            plan["constant"] = combine(layer.conv, _offset(layer, noise), convert=_first_features)
            continue
        name = f"layers.{index - 1}"
        plan |= {f"{name}.conv.weight": layer.conv, f"{name}.bias": combine(layer.bias, convert=_as_channels)}
        if noise == "const":
            plan[f"{name}.noise_weight"] = combine(layer.noise_weight, convert=_as_channels)
            plan[f"{name}.noise"] = layer.noise
        if layer.blur is not None:
            plan[f"{name}.blur"] = layer.blur
    assemble(generator, plan, tensors, map(re.escape, unused))
    generator.noise = noise
    generator.truncation_center = "stored"
    if center is None:
        generator.estimate_center()
    return generator


def fused_from(assumptions: Assumptions) -> float:
    """From which size of the output on the original fuses doubling and convolution, of which no tensor tells."""
    sizes = {"auto": FUSED_FROM, "all": 0, "none": math.inf}
    fused = assumptions.take("fused", "auto", partial(one_of, names=sizes))
    words = {
        "auto": f"upsampling fused from {FUSED_FROM} pixels on",
        "all": "upsampling fused",
        "none": "no upsampling fused",
    }
    assumptions.note(words[fused], "fused")
    return sizes[fused]


def dense_weight(weight: Tensor, learning_rate: float) -> Tensor:
    """The effective weight of the mapping network's layer, [out, in]. The activation adds no gain to this one."""
    return weight * (learning_rate * SQRT2 / math.sqrt(weight.shape[1]))


def _offset(layer: Layer, noise: str) -> Source:
    """What is added to the first layer's features: [1, C, H, W], or [1, C, 1, 1] without noise."""
    if noise == "none":
        return combine(layer.bias, convert=_as_channels)
    return combine(
        layer.bias,
        layer.noise_weight,
        layer.noise,
        convert=lambda bias, weight, noise: _as_channels(weight) * noise + _as_channels(bias),
    )


def _as_channels(tensor: Tensor) -> Tensor:
    return tensor.reshape(1, -1, 1, 1)


def _first_features(constant: Tensor, offset: Tensor) -> Tensor:
    return instance_norm(F.leaky_relu(constant + offset, 0.2))


def _scale_around_one(bias: Tensor) -> Tensor:
    """The first half scales by 1 more than it says."""
    scale, shift = bias.chunk(2)
    return torch.cat([scale + 1, shift])
