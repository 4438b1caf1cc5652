"""StyleGAN2 from BasicSR, a rewriting of rosinality's with other names.

The filters are not stored, and there is no centre of truncation. BasicSR's bilinear variant has the same keys.
"""

import torch

from sefa.checkpoints.assumptions import resample_kernel
from sefa.checkpoints.checkpoint import Checkpoint, Format, LoadOptions
from sefa.checkpoints.formats.rosinality import rosinality_stylegan2
from sefa.checkpoints.formats.rosinality.rosinality_stylegan2 import Names
from sefa.checkpoints.parts.assembly import Assembly
from sefa.generators import StyleGAN2

NAMES = Names(
    const="constant_input.weight",
    mapping="style_mlp",
    convs=("style_conv1", "style_convs"),
    conv="modulated_conv",
    blur="smooth.kernel",
    strength="weight",
    noise="noises.noise",
)


def recognises(checkpoint: Checkpoint) -> bool:
    """Recognise the names of the learned constant and the first style."""
    return rosinality_stylegan2.recognises(checkpoint, NAMES)


def load(checkpoint: Checkpoint, options: LoadOptions) -> StyleGAN2:
    """Build the generator."""
    tensors = checkpoint.tensors
    count = Assembly(tensors).count("to_rgbs.{}.bias")
    upsampling = [f"style_convs.{2 * index}.modulated_conv.smooth.kernel" for index in range(count)]
    upsampling += [f"to_rgbs.{index}.upsample.kernel" for index in range(count)]
    taps = torch.tensor(resample_kernel(options.assumptions))
    kernel = torch.outer(taps, taps) * 4 / taps.sum() ** 2
    return rosinality_stylegan2.build(Assembly(tensors | dict.fromkeys(upsampling, kernel)), NAMES, options)


FORMAT = Format("BasicSR StyleGAN2", recognises, load)
