"""StyleGAN2 from rosinality's stylegan2-pytorch: trained with it, or converted by it from TensorFlow.

A state dict, with the centre of truncation beside it. The convolutions are conv1, convs.0, convs.1, ...: one for the
first resolution, two for each of the others. Each resolution ends in a ToRGB: to_rgb1, to_rgbs.0, ... Weights are
stored without their gains.
"""

import math
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor

from sefa.checkpoints.assumptions import mapping_rate
from sefa.checkpoints.checkpoint import Checkpoint, Format, LoadOptions, clean
from sefa.checkpoints.parts import stylegan2_layers
from sefa.checkpoints.parts.assembly import Assembly, Parameters
from sefa.checkpoints.parts.stylegan2_layers import (
    NOISE_SEED,
    SQRT2,
    Sizes,
    dense,
    mapping_layer,
    seeded_noise,
    up_filter,
)
from sefa.generators import StyleGAN2
from sefa.generators.common.mapping import Mapping
from sefa.generators.common.to_rgb import ToRGB
from sefa.generators.stylegan2 import ModulatedConv, SynthesisBlock

S = TypeVar("S", ModulatedConv, ToRGB)

CONST = "input.input"
CENTER = "latent_avg"
MAPPING_LR = 0.01  # the training script's value; in descendants it is an option
NOISE = (r"noises\.noise_\d+", r"(conv1|convs\.\d+)\.noise\.weight")


def recognises(checkpoint: Checkpoint) -> bool:
    """Recognise the format's names for the learned constant and the first style."""
    return {CONST, "conv1.conv.modulation.weight"} <= checkpoint.stored.keys()


def load(checkpoint: Checkpoint, options: LoadOptions) -> StyleGAN2:
    """Build the generator."""
    tensors = checkpoint.tensors
    center = checkpoint.beside.get(CENTER)
    if isinstance(center, Tensor):
        tensors = tensors | clean({CENTER: center})
    rate = mapping_rate(options.assumptions, MAPPING_LR)
    file = Assembly(tensors)
    sizes = Sizes(
        const=file.shape(CONST, 4)[1:],
        channels=[file.shape(f"{_conv_name(index)}.conv.weight", 5)[1] for index in range(0, 2 * _num_blocks(file), 2)],
        w_dim=file.shape("conv1.conv.modulation.weight", 2)[1],
    )
    stores_noise = any(key.startswith("noises.") for key in tensors)
    noise = "none" if options.noise == "none" else "stored" if stores_noise else "seeded"
    with torch.device("meta"):
        mapping = _mapping(file, sizes.w_dim, rate)
        blocks = [_block(file, index, sizes, noise) for index in range(_num_blocks(file))]
    ignored = NOISE if noise == "none" else ()
    generator = stylegan2_layers.build(file, mapping, sizes, blocks, const=CONST, center=CENTER, ignored=ignored)
    if noise == "seeded":
        generator.noise = f"const, seed {NOISE_SEED}: the file stores none"
    return generator


def _num_blocks(file: Assembly) -> int:
    return 1 + file.count("to_rgbs.{}.conv.weight")


def _conv_name(index: int) -> str:
    return f"convs.{index - 1}" if index else "conv1"


def _mapping(file: Assembly, w_dim: int, rate: float) -> Mapping:
    names = [f"style.{index}" for index in range(1, 1 + file.count("style.{}.weight", start=1))]
    shapes = [file.shape(f"{name}.weight", 2) for name in names]
    mapping = Mapping(shapes[0][1] if shapes else w_dim, [outputs for outputs, _ in shapes])
    for name, layer in zip(names, mapping.layers, strict=True):
        file.layer(layer, partial(mapping_layer, rate=rate), weight=f"{name}.weight", bias=f"{name}.bias")
    return mapping


def _block(file: Assembly, index: int, sizes: Sizes, noise: str) -> SynthesisBlock:
    rgb = f"to_rgbs.{index - 1}" if index else "to_rgb1"
    return SynthesisBlock(
        up=_conv(file, 2 * index - 1, sizes, noise) if index else None,
        conv=_conv(file, 2 * index, sizes, noise),
        rgb=_to_rgb(file, rgb, index, sizes),
        image_up=up_filter(file, f"{rgb}.upsample.kernel", 1.0) if index else None,
    )


def _conv(file: Assembly, index: int, sizes: Sizes, noise: str) -> ModulatedConv:
    name = _conv_name(index)
    inputs, outputs, size, _ = sizes.conv(index)
    blur = up_filter(file, f"{name}.conv.blur.kernel", 1.0) if index % 2 else None
    module = ModulatedConv(*sizes.conv(index), SQRT2, noise != "none", blur=blur)
    file.layer(
        module,
        partial(_conv_parameters, index=index, size=size),
        weight=(f"{name}.conv.weight", (1, outputs, inputs, 3, 3)),
        bias=f"{name}.activate.bias",
        strength=None if noise == "none" else (f"{name}.noise.weight", 1),
        noise=f"noises.noise_{index}" if noise == "stored" else None,
    )
    return _with_style(file, module, name)


def _conv_parameters(
    weight: Tensor,
    bias: Tensor,
    strength: Tensor | None = None,
    noise: Tensor | None = None,
    *,
    index: int,
    size: tuple[int, int],
) -> Parameters:
    if strength is not None and noise is None:
        noise = seeded_noise(index, size)
    weight = weight.squeeze(0) / math.sqrt(9 * weight.shape[2])
    return stylegan2_layers.conv(weight, bias, noise, strength, up=index % 2 == 1)


def _to_rgb(file: Assembly, name: str, block: int, sizes: Sizes) -> ToRGB:
    _, image_channels, *_ = file.shape(f"{name}.conv.weight", 5)
    inputs = sizes.channels[block]
    module = ToRGB(inputs, image_channels, sizes.size(block), sizes.w_dim)
    weight, bias = (f"{name}.conv.weight", (1, image_channels, inputs, 1, 1)), (f"{name}.bias", image_channels)
    file.layer(module, stylegan2_layers.to_rgb, weight=weight, bias=bias)
    return _with_style(file, module, name)


def _with_style(file: Assembly, module: S, name: str) -> S:
    """Add the transform of a layer's style; its bias is stored around 1."""
    gain = 1 / math.sqrt(module.affine.in_features)
    weight, bias = f"{name}.conv.modulation.weight", f"{name}.conv.modulation.bias"
    file.layer(module.affine, partial(dense, gain=gain), weight=weight, bias=bias)
    return module


FORMAT = Format("rosinality StyleGAN2", recognises, load)
