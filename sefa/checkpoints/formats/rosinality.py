"""StyleGAN2 of rosinality's stylegan2-pytorch: trained with it, or converted by it from TensorFlow."""

import math
from collections.abc import Mapping

from torch import Tensor

from sefa.checkpoints.assumptions import mapping_rate
from sefa.checkpoints.checkpoint import Checkpoint, Format, LoadOptions, clean
from sefa.checkpoints.parts.assembly import Weights, count, shape_of, source
from sefa.checkpoints.parts.stylegan2_layers import (
    NOISE_SEED,
    RGB,
    SQRT2,
    Block,
    Conv,
    Kernel,
    MappingParts,
    build,
    dense,
    kernel,
    scaled,
    seeded_noise,
)
from sefa.generators import StyleGAN2

CONST = "input.input"
CENTER = "latent_avg"
MAPPING_LR = 0.01  # the training script's value; descendants have it as an option


def recognises(checkpoint: Checkpoint) -> bool:
    """Its own names for the learned constant and the first style."""
    return {CONST, "conv1.conv.modulation.weight"} <= checkpoint.stored.keys()


def load(checkpoint: Checkpoint, options: LoadOptions) -> StyleGAN2:
    """Build the generator."""
    tensors = checkpoint.tensors
    center = checkpoint.beside.get(CENTER)
    if isinstance(center, Tensor):
        tensors = tensors | clean({CENTER: center})
    _, channels, height, width = shape_of(tensors, CONST, 4)
    num_blocks = 1 + count(tensors, "to_rgbs.{}.conv.weight")
    layers, widths = [], []
    rate = mapping_rate(options.assumptions, MAPPING_LR)
    for index in range(1, 1 + count(tensors, "style.{}.weight", start=1)):
        width_, inputs = shape_of(tensors, f"style.{index}.weight", 2)
        gain = rate * SQRT2
        weight, bias = source(f"style.{index}.weight"), source(f"style.{index}.bias")
        layers.append(dense(weight, bias, gain / math.sqrt(inputs), gain))
        widths.append(width_)
    w_dim = shape_of(tensors, "conv1.conv.modulation.weight", 2)[1]
    z_dim = shape_of(tensors, "style.1.weight", 2)[1] if widths else w_dim
    stores_noise = any(key.startswith("noises.") for key in tensors)
    generator = build(
        tensors,
        MappingParts(z_dim, widths, layers),
        (source(CONST), (channels, height, width)),
        [_block(tensors, index, (height << index, width << index), stores_noise) for index in range(num_blocks)],
        w_dim,
        source(CENTER, convert=lambda stored: stored.reshape(w_dim)) if CENTER in tensors else None,
        options.noise,
        ignored=[r"noises\.noise_\d+", r"(conv1|convs\.\d+)\.noise\.weight"] if options.noise == "none" else [],
    )
    if generator.noise == "const" and not stores_noise:
        generator.noise = f"const, seed {NOISE_SEED}: the file stores none"
    return generator


def _block(tensors: Mapping[str, Tensor], index: int, size: tuple[int, int], stores_noise: bool) -> Block:
    conv = _conv(tensors, 2 * index, size, stores_noise)
    up = _conv(tensors, 2 * index - 1, size, stores_noise) if index else None
    name = f"to_rgbs.{index - 1}" if index else "to_rgb1"
    _, image_channels, inputs, *_ = shape_of(tensors, f"{name}.conv.weight", 5)
    rgb = RGB(
        image_channels,
        scaled(source(f"{name}.conv.weight"), 1 / math.sqrt(inputs)),
        source(f"{name}.bias", convert=lambda bias: bias.reshape(-1)),
        _affine(tensors, name),
    )
    channels = shape_of(tensors, f"{_name(2 * index)}.conv.weight", 5)[1]
    return Block(channels, up, conv, rgb, _kernel(tensors, f"{name}.upsample.kernel") if index else None)


def _name(index: int) -> str:
    return f"convs.{index - 1}" if index else "conv1"


def _conv(tensors: Mapping[str, Tensor], index: int, size: tuple[int, int], stores_noise: bool) -> Conv:
    name = _name(index)
    _, _, inputs, *_ = shape_of(tensors, f"{name}.conv.weight", 5)
    weight = source(f"{name}.conv.weight", convert=lambda raw: raw.squeeze(0) / math.sqrt(9 * inputs))
    if stores_noise:
        noise = source(
            f"noises.noise_{index}", f"{name}.noise.weight", convert=lambda noise, strength: noise * strength
        )
    else:
        noise = source(f"{name}.noise.weight", convert=lambda strength: seeded_noise(index, size) * strength)
    bias = source(f"{name}.activate.bias")
    filter_ = _kernel(tensors, f"{name}.conv.blur.kernel") if index % 2 else None
    return Conv(inputs, weight, bias, _affine(tensors, name), noise, kernel=filter_)


def _affine(tensors: Mapping[str, Tensor], name: str) -> Weights:
    w_dim = shape_of(tensors, f"{name}.conv.modulation.weight", 2)[1]
    weight = scaled(source(f"{name}.conv.modulation.weight"), 1 / math.sqrt(w_dim))
    return Weights(weight, source(f"{name}.conv.modulation.bias"))


def _kernel(tensors: Mapping[str, Tensor], key: str) -> Kernel:
    return kernel(tensors.get(key), source(key), 1.0)


FORMAT = Format("rosinality StyleGAN2", recognises, load)
