"""Make the layers of a StyleGAN as rosinality wrote it in PyTorch.

It differs from NVlabs' in what no tensor shows: every weight has the gain √2/√fan_in, that of the noise among them; the
mapping network has no learning rate of its own; a convolution that doubles the size adds its bias before it blurs;
norm's epsilon is larger; the scale's bias is stored around 1; and the two layers of a level add the same noise, which
is drawn anew for every image.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import cast

import torch
from torch import Tensor
from torch.nn import functional as F

from sefa.checkpoints.parts.assembly import Assembly, Parameters
from sefa.checkpoints.parts.growing import conv, equalized, up_kernel
from sefa.checkpoints.parts.stylegan2_layers import NOISE_SEED, check_mapping, seeded_noise
from sefa.checkpoints.sizes import check_pixels
from sefa.generators.common.mapping import Mapping as MappingNetwork
from sefa.generators.common.progressive import ToImage
from sefa.generators.stylegan import Layer, StyleGAN, instance_norm

EPSILON = 1e-5  # of torch's InstanceNorm2d


@dataclass(frozen=True)
class Keys:
    """Where a format keeps the tensors of a StyleGAN, up to the level whose image is read.

    Attributes:
        mapping: `weight` and `bias` of each mapping layer.
        layers: `noise_weight`, `style_weight` and `style_bias` of each layer; `const` in the first, `weight` and `bias`
            in the others; and `blur` in those that double the size.
        fused: The layers that store the weight of a transposed convolution, [in, out, 3, 3].
        image: `weight` and `bias` of the last level's 1x1 convolution to an image.
    """

    mapping: Sequence[Mapping[str, str]]
    layers: Sequence[Mapping[str, str]]
    fused: frozenset[int]
    image: Mapping[str, str]


def build(file: Assembly, keys: Keys, noise: str, ignored: Sequence[str] = ()) -> StyleGAN:
    """Build a generator.

    Args:
        file: The file.
        keys: Where its tensors are.
        noise: `const` or `none`; see LoadOptions.
        ignored: Regular expressions for keys that are not used.

    Raises:
        CheckpointError: If keys are missing, not understood, or of the wrong shape, or sizes do not fit together.
    """
    _, first, height, width = file.shape(keys.layers[0]["const"], 4)
    scale = 1 << len(keys.layers) // 2 - 1
    check_pixels(height * scale, width * scale)
    w_dim = file.shape(keys.layers[0]["style_weight"], 2)[1]
    widths = [first, *(file.shape(layer["bias"], 1)[0] for layer in keys.layers[1:])]
    channels = file.shape(keys.image["bias"], 1)[0]
    with torch.device("meta"):
        mapping = _mapping(file, keys)
        to_image = ToImage(widths[-1], None, channels, scale=1)
        with_noise = noise == "const"
        generator = StyleGAN(mapping, w_dim, (height, width), widths, with_noise, to_image, EPSILON, blurs_bias=True)
    check_mapping(file, mapping, w_dim)
    _add_first_layer(file, generator, keys.layers[0], with_noise)
    for index, layer in enumerate(cast("list[Layer]", list(generator.layers)), start=1):
        _add_layer(file, layer, index, keys)
    for style, of_layer in zip(generator.styles, keys.layers, strict=True):
        file.layer(style, conv, weight=of_layer["style_weight"], bias=of_layer["style_bias"])
    file.layer(to_image.conv, conv, **keys.image)
    file.fill(
        generator, [*ignored, *([] if with_noise else [re.escape(layer["noise_weight"]) for layer in keys.layers])]
    )
    generator.noise = f"const, seed {NOISE_SEED}: the file stores none" if with_noise else noise
    generator.estimate_center()
    return generator


def _mapping(file: Assembly, keys: Keys) -> MappingNetwork:
    shapes = [file.shape(layer["weight"], 2) for layer in keys.mapping]
    w_dim = file.shape(keys.layers[0]["style_weight"], 2)[1]
    mapping = MappingNetwork(shapes[0][1] if shapes else w_dim, [outputs for outputs, _ in shapes])
    for layer, stored in zip(mapping.layers, keys.mapping, strict=True):
        file.layer(layer, conv, **stored)
    return mapping


def _add_first_layer(file: Assembly, generator: StyleGAN, keys: Mapping[str, str], with_noise: bool) -> None:
    shape = tuple(generator.constant.shape)
    noise_weight = (keys["noise_weight"], shape[1]) if with_noise else None
    make = partial(_first_layer, w_dim=generator.code_dim)
    file.layer(generator, make, const=(keys["const"], shape), noise_weight=noise_weight)


def _first_layer(const: Tensor, noise_weight: Tensor | None = None, *, w_dim: int) -> Parameters:
    """Return the features of the first layer before its style; the centre of truncation is still to be estimated."""
    if noise_weight is not None:
        const = const + _noise_weight(noise_weight) * seeded_noise(0, (const.shape[2], const.shape[3]))
    return {"constant": instance_norm(F.leaky_relu(const, 0.2), EPSILON), "center": torch.zeros(w_dim)}


def _add_layer(file: Assembly, layer: Layer, index: int, keys: Keys) -> None:
    stored, fused = keys.layers[index], index in keys.fused
    inputs, outputs = layer.conv.in_channels, layer.conv.out_channels
    size = None if layer.noise is None else (layer.noise.shape[2], layer.noise.shape[3])
    file.layer(
        layer,
        partial(_layer, fused=fused, level=index // 2, size=size),
        weight=(stored["weight"], (*((inputs, outputs) if fused else (outputs, inputs)), 3, 3)),
        bias=(stored["bias"], (outputs,)),
        blur=stored.get("blur"),
        noise_weight=(stored["noise_weight"], outputs) if size else None,
    )


def _layer(
    weight: Tensor,
    bias: Tensor,
    blur: Tensor | None = None,
    noise_weight: Tensor | None = None,
    *,
    fused: bool,
    level: int,
    size: tuple[int, int] | None,
) -> Parameters:
    weight = equalized(weight.transpose(0, 1) if fused else weight)
    parameters = {"conv.weight": weight, "bias": bias.reshape(1, -1, 1, 1)}
    if blur is not None:
        # The fused layer takes the mean of the four shifted kernels, where doubling and convolving gives their sum.
        parameters = {"conv.weight": up_kernel(weight / 4 if fused else weight, fused), "conv.bias": bias, "blur": blur}
    if noise_weight is not None and size is not None:
        parameters |= {"noise_weight": _noise_weight(noise_weight), "noise": seeded_noise(level, size)}
    return parameters


def _noise_weight(weight: Tensor) -> Tensor:
    return equalized(weight.reshape(1, -1, 1, 1))
