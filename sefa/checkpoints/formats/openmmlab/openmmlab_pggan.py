"""PGGAN from OpenMMLab's mmgeneration and mmagic.

The layers are noise2feat, then conv_blocks.0, conv_blocks.1, ..., two for every level but the first; torgb_layers are
the levels' 1x1 convolutions to an image. The generator is built at its full size, and numbers beside it say how far
training has come. Weights are stored without their gains.
"""

import math
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from sefa.checkpoints.assumptions import Assumptions, one_of
from sefa.checkpoints.checkpoint import Checkpoint, Format, LoadOptions
from sefa.checkpoints.formats.openmmlab.openmmlab_files import (
    COUNTER,
    configuration,
    generator_options,
    growth_of,
    in_rgb,
)
from sefa.checkpoints.parts.assembly import Assembly, Parameters
from sefa.checkpoints.parts.growing import (
    SQRT2,
    conv,
    count_levels,
    equalized,
    highest,
    image_parameters,
    split_latent,
    up_kernel,
)
from sefa.checkpoints.sizes import one_hot_codes
from sefa.generators.pggan import PGGAN

DENSE = "noise2feat.linear.weight_orig"
BIAS = "noise2feat.bias"
BASE = (4, 4)
EPSILONS = (0.0, 1e-6)  # PixelNorm divides by the root mean square plus this.
IMAGE = r"torgb_layers\.\d+\.conv\.(weight_orig|bias)"


def recognises(checkpoint: Checkpoint) -> bool:
    """Recognise the names of the first layer and the first image."""
    return {DENSE, "torgb_layers.0.conv.bias"} <= checkpoint.stored.keys()


def load(checkpoint: Checkpoint, options: LoadOptions) -> PGGAN:
    """Build the generator at the level that training had reached."""
    assumptions, config = options.assumptions, configuration(checkpoint)
    file = Assembly(in_rgb(checkpoint.tensors, IMAGE, config, assumptions))
    levels = count_levels(
        highest(file.tensors, r"torgb_layers\.(\d{1,3})\..*"),
        math.ceil(highest(file.tensors, r"conv_blocks\.(\d{1,3})\..*") / 2),
    )
    convs = [f"conv_blocks.{k}.conv" for k in range(2 * levels - 1)]
    images = [f"torgb_layers.{level}.conv" for level in range(levels)]
    file.require(DENSE, BIAS, *(key for name in (*convs, *images) for key in _keys(name).values()))
    growth = growth_of(checkpoint, file, levels)
    inputs = file.shape(DENSE, 2)[1]
    num_classes = options.num_classes or 0
    assumptions.note(
        f"a one-hot label of {num_classes} classes after z (as told)" if num_classes else "no label after z"
    )
    z_dim = split_latent(file, inputs, num_classes)
    widths = [file.shape(BIAS, 4)[1], *(file.shape(f"{name}.bias", 1)[0] for name in convs)]
    with torch.device("meta"):
        to_image = growth.to_image(widths[1::2], file.shape(f"{images[0]}.bias", 1)[0])
        generator = PGGAN(
            z_dim, (num_classes, num_classes), BASE, widths[: 2 * growth.levels], to_image, epsilons=EPSILONS
        )
    if num_classes:
        file.layer(generator, partial(dict, class_codes=one_hot_codes(num_classes)))
    file.layer(generator.dense, _dense, weight=(DENSE, (16 * widths[0], inputs)), bias=(BIAS, widths[0]))
    fused = _is_fused(file, convs, widths, assumptions, generator_options(config).get("fused_upconv") is False)
    for k, layer in enumerate(generator.convs):
        up = k % 2 == 1
        shape = (widths[k], widths[k + 1]) if up and fused else (widths[k + 1], widths[k])
        make = partial(_up_conv, fused=fused) if up else conv
        file.layer(layer, make, weight=(f"{convs[k]}.weight_orig", (*shape, 3, 3)), bias=f"{convs[k]}.bias")
    for layer, name, share in growth.images(generator.to_image, images):
        file.layer(layer, partial(image_parameters, share=share), **_keys(name))
    return file.fill(generator, (COUNTER,))


def _keys(name: str) -> dict[str, str]:
    return {"weight": f"{name}.weight_orig", "bias": f"{name}.bias"}


def _is_fused(
    file: Assembly, convs: Sequence[str], widths: Sequence[int], assumptions: Assumptions, told_not: bool
) -> bool:
    """Return whether doubling is fused with convolution, for which [in, out, 3, 3] is stored.

    Where all weights are square, no shape shows it; `told_not` says that the configuration denies it.
    """
    ups = range(1, len(convs), 2)
    telling = [k for k in ups if widths[k] != widths[k + 1]]
    if telling or not ups:
        return any(file.shape(f"{convs[k]}.weight_orig", 4)[:2] == (widths[k], widths[k + 1]) for k in telling)
    usual = "none" if told_not else "all"
    fused = assumptions.take("fused", usual, partial(one_of, names=("none", "all"))) == "all"
    assumptions.note("upsampling fused" if fused else "no upsampling fused", "fused")
    return fused


def _dense(weight: Tensor, bias: Tensor) -> Parameters:
    return {"weight": equalized(weight, SQRT2 / 4), "bias": bias.reshape(-1).repeat_interleave(BASE[0] * BASE[1])}


def _up_conv(weight: Tensor, bias: Tensor, fused: bool) -> Parameters:
    """Return the parameters of doubling and a convolution.

    The fan-in by which the original divides is that of the stored weight's second axis, which is the outputs if fused.
    """
    weight = equalized(weight)
    return {"weight": up_kernel(weight.transpose(0, 1) if fused else weight, fused), "bias": bias}


FORMAT = Format("OpenMMLab PGGAN", recognises, load)
