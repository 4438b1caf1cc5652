"""Make the layers of a StyleGAN, whichever format their tensors come from."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import cast

import torch
from torch import Tensor
from torch.nn import functional as F

from sefa.checkpoints.assumptions import Assumptions, one_of
from sefa.checkpoints.parts.assembly import Assembly, Parameters, Stored
from sefa.checkpoints.parts.growing import SQRT2, Growth, equalized, image_parameters, up_kernel
from sefa.generators.common.mapping import LabelNorm
from sefa.generators.common.mapping import Mapping as MappingNetwork
from sefa.generators.stylegan import Layer, StyleGAN, instance_norm

# The mapping network's learning-rate multiplier, unless the file contains it.
MAPPING_LR = 0.01
# The output size from which on the original fuses doubling and convolution.
FUSED_FROM = 128


@dataclass(frozen=True)
class Keys:
    """Where a format keeps the tensors of a StyleGAN.

    Attributes:
        mapping: `weight` and `bias` of each mapping layer.
        layers: `bias`, `noise_weight`, `noise`, `style_weight` and `style_bias` of each layer; `weight`, or `const` in
            the first; and `blur`, if it is stored, in those that double the size.
        images: `weight` and `bias` of each level's 1x1 convolution to an image.
        label: The labels' embedding, [num_classes, embed_dim]; a file without labels has none.
        center: The centre of truncation, which is estimated if the file has none.
        lod: The level of detail.
    """

    mapping: Sequence[Mapping[str, str]]
    layers: Sequence[Mapping[str, str]]
    images: Sequence[Mapping[str, str]]
    label: str
    center: str
    lod: str


def build(file: Assembly, keys: Keys, rate: float, fused_from: float, noise: str) -> StyleGAN:
    """Build a generator from raw weights [out, in, ..].

    Args:
        file: The file.
        keys: Where its tensors are.
        rate: The learning-rate multiplier of the mapping network.
        fused_from: The output size from which on the file's implementation fuses doubling and convolution.
        noise: `const` or `none`; see LoadOptions.

    Raises:
        CheckpointError: If keys are missing, not understood, or of the wrong shape, or sizes do not fit together.
    """
    file.require(*(key for group in (*keys.mapping, *keys.layers, *keys.images) for key in group.values()))
    growth = Growth.of(file, keys.lod, len(keys.images))
    _, _, height, width = file.shape(keys.layers[0]["const"], 4)
    widths = [file.shape(layer["bias"], 1)[0] for layer in keys.layers]
    channels = file.shape(keys.images[0]["bias"], 1)[0]
    has_center = keys.center in file.tensors
    w_dim = file.shape(keys.mapping[-1]["weight"], 2)[0]
    with torch.device("meta"):
        mapping = _mapping(file, keys, rate)
        built, to_image = widths[: 2 * growth.levels], growth.to_image(widths[1::2], channels)
        generator = StyleGAN(mapping, w_dim, (height, width), built, noise == "const", to_image)
    file.layer(generator, partial(_center, w_dim=w_dim), center=keys.center if has_center else None)
    _add_first_layer(file, generator, keys.layers[0], noise == "const")
    for k, layer in enumerate(cast("list[Layer]", list(generator.layers)), start=1):
        _add_layer(file, layer, keys.layers[k], fused=min(height, width) << k // 2 >= fused_from)
    for style, of_layer in zip(generator.styles, keys.layers, strict=False):
        file.layer(style, _style, weight=of_layer["style_weight"], bias=of_layer["style_bias"])
    for conv, image, share in growth.images(generator.to_image, keys.images):
        file.layer(conv, partial(image_parameters, share=share), **image)
    file.fill(generator)
    generator.noise = noise
    generator.truncation_center = "stored"
    if not has_center:
        generator.estimate_center()
    return generator


def fused_from(assumptions: Assumptions) -> float:
    """Return the output size from which on doubling and convolution are fused, which no tensor shows."""
    sizes = {"auto": FUSED_FROM, "all": 0, "none": math.inf}
    fused = assumptions.take("fused", "auto", partial(one_of, names=sizes))
    words = {
        "auto": f"upsampling fused from {FUSED_FROM} pixels on",
        "all": "upsampling fused",
        "none": "no upsampling fused",
    }
    assumptions.note(words[fused], "fused")
    return sizes[fused]


def _center(center: Tensor | None = None, *, w_dim: int) -> Parameters:
    """Return the centre of truncation, or zeros: estimating it needs the mapping network first."""
    return {"center": torch.zeros(w_dim) if center is None else center}


def _mapping(file: Assembly, keys: Keys, rate: float) -> MappingNetwork:
    shapes = [file.shape(layer["weight"], 2) for layer in keys.mapping]
    classes, embed_dim = file.shape(keys.label, 2) if keys.label in file.tensors else (0, 0)
    inputs = shapes[0][1]
    if inputs <= embed_dim:
        raise file.misfit(f"its mapping network takes {inputs} values, of which {embed_dim} are the label's: no z")
    widths = [width for width, _ in shapes]
    mapping = MappingNetwork(inputs - embed_dim, widths, classes, embed_dim, LabelNorm.JOINT)
    if classes:
        file.layer(mapping, embedding=keys.label)
    for layer, stored in zip(mapping.layers, keys.mapping, strict=True):
        file.layer(layer, partial(_mapping_layer, rate=rate), **stored)
    return mapping


def _mapping_layer(weight: Tensor, bias: Tensor, rate: float) -> Parameters:
    """Return the parameters of a mapping layer, which has no gain after its activation."""
    return {"weight": weight * (rate * SQRT2 / math.sqrt(weight.shape[1])), "bias": bias * rate}


def _add_first_layer(file: Assembly, generator: StyleGAN, keys: Mapping[str, str], with_noise: bool) -> None:
    shape = tuple(generator.constant.shape)
    noise = _noise(keys, shape[1], shape[2:]) if with_noise else {}
    file.layer(generator, _first_layer, const=(keys["const"], shape), bias=(keys["bias"], shape[1:2]), **noise)


def _first_layer(
    const: Tensor, bias: Tensor, noise_weight: Tensor | None = None, noise: Tensor | None = None
) -> Parameters:
    """Return the features of the first layer before its style, which do not depend on the input."""
    offset = _as_channels(bias)
    if noise_weight is not None and noise is not None:
        offset = _as_channels(noise_weight) * noise + offset
    return {"constant": instance_norm(F.leaky_relu(const + offset, 0.2))}


def _add_layer(file: Assembly, layer: Layer, keys: Mapping[str, str], fused: bool) -> None:
    inputs, outputs = layer.conv.in_channels, layer.conv.out_channels
    file.layer(
        layer,
        _layer if layer.blur is None else partial(_up_layer, fused=fused),
        weight=(keys["weight"], (outputs, inputs, 3, 3)),
        bias=(keys["bias"], (outputs,)),
        blur=keys.get("blur"),
        **({} if layer.noise is None else _noise(keys, outputs, layer.noise.shape[2:])),
    )


def _noise(keys: Mapping[str, str], channels: int, size: Sequence[int]) -> dict[str, Stored]:
    return {"noise_weight": (keys["noise_weight"], (channels,)), "noise": (keys["noise"], (1, 1, *size))}


def _layer(weight: Tensor, bias: Tensor, noise_weight: Tensor | None = None, noise: Tensor | None = None) -> Parameters:
    parameters = {"conv.weight": equalized(weight), "bias": _as_channels(bias)}
    if noise_weight is None or noise is None:
        return parameters
    return {**parameters, "noise_weight": _as_channels(noise_weight), "noise": noise}


def _up_layer(weight: Tensor, bias: Tensor, fused: bool, blur: Tensor | None = None, **noise: Tensor) -> Parameters:
    """Return the parameters of a layer that doubles the size; its filter is 1, 2, 1 unless the file stores one."""
    if blur is None:
        taps = torch.tensor([1.0, 2.0, 1.0]) / 4
        blur = torch.outer(taps, taps).repeat(len(bias), 1, 1, 1)
    return {**_layer(weight, bias, **noise), "conv.weight": up_kernel(equalized(weight), fused), "blur": blur}


def _style(weight: Tensor, bias: Tensor) -> Parameters:
    """Return the parameters of a style's transform; its first half stores the scale minus 1."""
    scale, shift = bias.chunk(2)
    return {"weight": equalized(weight, 1), "bias": torch.cat([scale + 1, shift])}


def _as_channels(tensor: Tensor) -> Tensor:
    return tensor.reshape(1, -1, 1, 1)
