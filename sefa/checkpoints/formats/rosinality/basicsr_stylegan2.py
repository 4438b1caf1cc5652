"""StyleGAN2 from BasicSR, a rewriting of rosinality's with other names.

The filters are not stored, and there is no centre of truncation. BasicSR's bilinear variant has the same keys: only
the file's owner can say which it is.
"""

from functools import partial

import torch

from sefa.checkpoints.assumptions import one_of, resample_kernel
from sefa.checkpoints.checkpoint import Checkpoint, Format, LoadOptions
from sefa.checkpoints.formats.rosinality import rosinality_stylegan2
from sefa.checkpoints.formats.rosinality.rosinality_stylegan2 import Names
from sefa.checkpoints.parts.assembly import Assembly
from sefa.generators import StyleGAN2

UPSAMPLING = ("filter", "bilinear")
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
    tensors, assumptions = checkpoint.tensors, options.assumptions
    upsampling = assumptions.take("upsample", UPSAMPLING[0], partial(one_of, names=UPSAMPLING))
    bilinear = upsampling == "bilinear"
    assumptions.note("bilinear upsampling" if bilinear else "upsampling by a filter, not bilinear", "upsample")
    if not bilinear:
        count = Assembly(tensors).count("to_rgbs.{}.bias")
        filters = [f"style_convs.{2 * index}.modulated_conv.smooth.kernel" for index in range(count)]
        filters += [f"to_rgbs.{index}.upsample.kernel" for index in range(count)]
        taps = torch.tensor(resample_kernel(assumptions))
        tensors = tensors | dict.fromkeys(filters, torch.outer(taps, taps) * 4 / taps.sum() ** 2)
    return rosinality_stylegan2.build(Assembly(tensors), NAMES, options, bilinear=bilinear)


FORMAT = Format("BasicSR StyleGAN2", recognises, load)
