"""StyleGAN2 from genforce's model zoo, with which SeFa was released.

The convolutions are synthesis.layer0, layer1, ...: one for the first resolution, two for each of the others. Each
resolution ends in a ToRGB: synthesis.output0, ... Weights are stored without their gains, and in TensorFlow's order.
"""

import re
from functools import partial
from typing import TypeVar

import torch

from sefa.checkpoints.assumptions import mapping_rate
from sefa.checkpoints.checkpoint import Checkpoint, Format, LoadOptions
from sefa.checkpoints.parts import stylegan2_layers
from sefa.checkpoints.parts.assembly import Assembly
from sefa.checkpoints.parts.stylegan2_layers import (
    SQRT2,
    Sizes,
    mapping_layer,
    tensorflow_conv,
    tensorflow_style,
    up_filter,
)
from sefa.errors import CheckpointError
from sefa.generators import StyleGAN2
from sefa.generators.common.mapping import LabelNorm, Mapping
from sefa.generators.common.to_rgb import ToRGB
from sefa.generators.stylegan2 import ModulatedConv, SynthesisBlock

S = TypeVar("S", ModulatedConv, ToRGB)

CONST = "synthesis.early_layer.const"
CENTER = "truncation.w_avg"
LABEL = "mapping.label_weight"
UPSAMPLE = "synthesis.upsample.kernel"
MAPPING_LR = 0.01
NOISE = (r"synthesis\.layer\d+\.noise(_strength)?",)


def recognises(checkpoint: Checkpoint) -> bool:
    """Recognise the format's name for the learned constant."""
    return CONST in checkpoint.stored and "synthesis.layer1.filter" not in checkpoint.stored  # Hammer's.


def load(checkpoint: Checkpoint, options: LoadOptions) -> StyleGAN2:
    """Build the generator."""
    tensors = checkpoint.tensors
    outputs = [key for key in tensors if re.fullmatch(r"synthesis\.output\d+\.weight", key)]
    if any(key.startswith("synthesis.skip_layer") for key in tensors):
        raise CheckpointError("its architecture is resnet, of which genforce released no model: only skip can be read")
    file = Assembly(tensors)
    num_blocks = (file.count("synthesis.layer{}.weight") + 1) // 2
    if num_blocks > 1 and len(outputs) == 1:
        raise CheckpointError("its architecture is origin, of which genforce released no model: only skip can be read")
    if "mapping.dense0.weight" not in tensors or not num_blocks:
        raise CheckpointError(f"missing {'synthesis.layer0' if num_blocks == 0 else 'mapping.dense0'}.weight")
    rate = mapping_rate(options.assumptions, MAPPING_LR)
    with_noise = options.noise == "const"
    with torch.device("meta"):
        mapping = _mapping(file, rate)
        sizes = Sizes(
            const=file.shape(CONST, 4)[1:],
            channels=[file.shape(f"synthesis.layer{2 * index}.weight", 4)[0] for index in range(num_blocks)],
            w_dim=file.shape(f"mapping.dense{len(mapping.layers) - 1}.weight", 2)[0],
        )
        blocks = [_block(file, index, sizes, with_noise) for index in range(num_blocks)]
    ignored = () if with_noise else NOISE
    return stylegan2_layers.build(file, mapping, sizes, blocks, const=CONST, center=CENTER, ignored=ignored)


def _mapping(file: Assembly, rate: float) -> Mapping:
    names = [f"mapping.dense{index}" for index in range(file.count("mapping.dense{}.weight"))]
    shapes = [file.shape(f"{name}.weight", 2) for name in names]
    classes, embed_dim = file.shape(LABEL, 2) if LABEL in file.tensors else (0, 0)
    mapping = Mapping(shapes[0][1] - embed_dim, [outputs for outputs, _ in shapes], classes, embed_dim, LabelNorm.JOINT)
    if classes:
        file.layer(mapping, embedding=LABEL)
    for name, layer in zip(names, mapping.layers, strict=True):
        file.layer(layer, partial(mapping_layer, rate=rate), weight=f"{name}.weight", bias=f"{name}.bias")
    return mapping


def _block(file: Assembly, index: int, sizes: Sizes, with_noise: bool) -> SynthesisBlock:
    return SynthesisBlock(
        up=_conv(file, 2 * index - 1, sizes, with_noise) if index else None,
        conv=_conv(file, 2 * index, sizes, with_noise),
        rgb=_to_rgb(file, index, sizes),
        image_up=up_filter(file, UPSAMPLE, 1.0) if index else None,
    )


def _conv(file: Assembly, index: int, sizes: Sizes, with_noise: bool) -> ModulatedConv:
    name, up = f"synthesis.layer{index}", index % 2 == 1
    inputs, outputs, _, _ = sizes.conv(index)
    blur = up_filter(file, f"{name}.filter.kernel", 1.0) if up else None
    module = ModulatedConv(*sizes.conv(index), SQRT2, with_noise, blur=blur)
    file.layer(
        module,
        partial(tensorflow_conv, up=up),
        weight=(f"{name}.weight", (outputs, inputs, 3, 3)),
        bias=f"{name}.bias",
        noise=f"{name}.noise" if with_noise else None,
        strength=(f"{name}.noise_strength", 1) if with_noise else None,
    )
    return _with_style(file, module, name)


def _to_rgb(file: Assembly, block: int, sizes: Sizes) -> ToRGB:
    name, inputs = f"synthesis.output{block}", sizes.channels[block]
    image_channels = file.shape(f"{name}.weight", 4)[0]
    module = ToRGB(inputs, image_channels, sizes.size(block), sizes.w_dim)
    weight = (f"{name}.weight", (image_channels, inputs, 1, 1))
    file.layer(module, stylegan2_layers.to_rgb, weight=weight, bias=f"{name}.bias")
    return _with_style(file, module, name)


def _with_style(file: Assembly, module: S, name: str) -> S:
    file.layer(module.affine, tensorflow_style, weight=f"{name}.style.weight", bias=f"{name}.style.bias")
    return module


FORMAT = Format("genforce StyleGAN2", recognises, load)
