"""StyleGAN2 of genforce's model zoo, with which SeFa was released."""

import math
import re
from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor

from sefa.checkpoints.assumptions import mapping_rate
from sefa.checkpoints.checkpoint import Checkpoint, Format, LoadOptions
from sefa.checkpoints.parts.assembly import Source, Weights, combine, count, shape_of, source
from sefa.checkpoints.parts.stylegan2_layers import (
    RGB,
    SQRT2,
    Block,
    Conv,
    MappingParts,
    build,
    dense,
    kernel,
    scaled,
)
from sefa.errors import CheckpointError
from sefa.generators import StyleGAN2
from sefa.generators.common.mapping import LabelNorm

CONST = "synthesis.early_layer.const"
UPSAMPLE = "synthesis.upsample.kernel"
MAPPING_LR = 0.01


def recognises(checkpoint: Checkpoint) -> bool:
    """Its own name for the learned constant."""
    return CONST in checkpoint.stored


def load(checkpoint: Checkpoint, options: LoadOptions) -> StyleGAN2:
    """Build the generator."""
    tensors = checkpoint.tensors
    outputs = [key for key in tensors if re.fullmatch(r"synthesis\.output\d+\.weight", key)]
    if any(key.startswith("synthesis.skip_layer") for key in tensors):
        raise CheckpointError("its architecture is resnet, of which genforce released no model: only skip can be read")
    num_blocks = (count(tensors, "synthesis.layer{}.weight") + 1) // 2
    if num_blocks > 1 and len(outputs) == 1:
        raise CheckpointError("its architecture is origin, of which genforce released no model: only skip can be read")
    _, channels, *size = shape_of(tensors, CONST, 4)
    mapping = _mapping(tensors, mapping_rate(options.assumptions, MAPPING_LR))
    if not mapping.widths:
        raise CheckpointError("missing mapping.dense0.weight")
    w_dim = mapping.widths[-1]
    return build(
        tensors,
        mapping,
        (source(CONST), (channels, size[0], size[1])),
        [_block(tensors, index, w_dim) for index in range(num_blocks)],
        w_dim,
        source("truncation.w_avg") if "truncation.w_avg" in tensors else None,
        options.noise,
        ignored=[r"synthesis\.layer\d+\.noise(_strength)?"] if options.noise == "none" else [],
    )


def _mapping(tensors: Mapping[str, Tensor], rate: float) -> MappingParts:
    layers, widths = [], []
    for index in range(count(tensors, "mapping.dense{}.weight")):
        name = f"mapping.dense{index}"
        width, inputs = shape_of(tensors, f"{name}.weight", 2)
        gain = rate * SQRT2
        layers.append(dense(source(f"{name}.weight"), source(f"{name}.bias"), gain / math.sqrt(inputs), gain))
        widths.append(width)
    z_dim = shape_of(tensors, "mapping.dense0.weight", 2)[1]
    embedding = None
    if "mapping.label_weight" in tensors:
        classes, embed_dim = shape_of(tensors, "mapping.label_weight", 2)
        embedding = (source("mapping.label_weight"), (classes, embed_dim))
        z_dim -= embed_dim
    return MappingParts(z_dim, widths, layers, embedding, LabelNorm.JOINT)


def _block(tensors: Mapping[str, Tensor], index: int, w_dim: int) -> Block:
    channels = shape_of(tensors, f"synthesis.layer{2 * index}.weight", 4)[0]
    output = f"synthesis.output{index}"
    image_channels, inputs, *_ = shape_of(tensors, f"{output}.weight", 4)
    rgb = RGB(
        image_channels,
        scaled(source(f"{output}.weight"), 1 / math.sqrt(inputs)),
        source(f"{output}.bias"),
        _affine(output, w_dim),
    )
    return Block(
        channels,
        up=_conv(tensors, 2 * index - 1, w_dim) if index else None,
        conv=_conv(tensors, 2 * index, w_dim),
        rgb=rgb,
        image_kernel=kernel(tensors.get(UPSAMPLE), source(UPSAMPLE), 1.0) if index else None,
    )


def _conv(tensors: Mapping[str, Tensor], index: int, w_dim: int) -> Conv:
    name = f"synthesis.layer{index}"
    inputs = shape_of(tensors, f"{name}.weight", 4)[1]
    weight = scaled(source(f"{name}.weight"), 1 / math.sqrt(9 * inputs))
    filter_ = None
    if index % 2:
        # Stored in TensorFlow's order, for a convolution of the stuffed image.
        weight = combine(weight, convert=partial(torch.flip, dims=(2, 3)))
        filter_ = kernel(tensors.get(f"{name}.filter.kernel"), source(f"{name}.filter.kernel"), 1.0)
    noise = source(f"{name}.noise", f"{name}.noise_strength", convert=_times)
    return Conv(inputs, weight, source(f"{name}.bias"), _affine(name, w_dim), noise, kernel=filter_)


def _affine(name: str, w_dim: int) -> Weights:
    weight: Source = scaled(source(f"{name}.style.weight"), 1 / math.sqrt(w_dim))
    return Weights(weight, source(f"{name}.style.bias", convert=_plus_one))


def _times(noise: Tensor, strength: Tensor) -> Tensor:
    return noise * strength


def _plus_one(bias: Tensor) -> Tensor:
    return bias + 1


FORMAT = Format("genforce StyleGAN2", recognises, load)
