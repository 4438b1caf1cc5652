"""PGGAN from genforce's SeFa repository, model zoo, and trainer (Hammer).

The layers are layer0, a convolution of z as an image, layer1, ..., two for every level. The levels' 1x1 convolutions to
an image are output0, ...; lod says how far training had grown the generator. Weights are stored without their gains.
"""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from sefa.checkpoints.assumptions import Assumptions, one_of, positive
from sefa.checkpoints.checkpoint import Checkpoint, Format, LoadOptions
from sefa.checkpoints.formats.genforce.hammer_options import options_of
from sefa.checkpoints.parts.assembly import Assembly, Parameters
from sefa.checkpoints.parts.growing import (
    SQRT2,
    Growth,
    conv,
    count_levels,
    equalized,
    highest,
    image_parameters,
    split_latent,
    up_conv,
    weight_and_bias,
)
from sefa.checkpoints.parts.tensorflow_variables import integer
from sefa.checkpoints.sizes import one_hot_codes
from sefa.generators.pggan import PGGAN


def recognises(checkpoint: Checkpoint) -> bool:
    """Recognise numbered outputs, and numbered layers beginning with a convolution of z as an image."""
    tensors = checkpoint.stored
    first = tensors.get("layer0.weight")
    return isinstance(first, Tensor) and first.ndim == 4 and highest(tensors, r"output(\d{1,3})\.\w+") >= 0


def load(checkpoint: Checkpoint, options: LoadOptions) -> PGGAN:
    """Build the generator."""
    tensors, assumptions = checkpoint.tensors, options.assumptions
    levels = count_levels(highest(tensors, r"layer(\d{1,3})\.\w+") // 2, highest(tensors, r"output(\d{1,3})\.\w+"))
    layers = [f"layer{k}" for k in range(2 * levels)]
    outputs = [f"output{level}" for level in range(levels)]
    file = Assembly(tensors)
    file.require(*(key for name in (*layers, *outputs) for key in weight_and_bias(name).values()))
    growth = Growth.of(file, "lod", levels)
    _, inputs, height, width = file.shape("layer0.weight", 4)
    widths = [file.shape(f"{name}.bias", 1)[0] for name in layers]
    num_classes = options.num_classes
    own = options_of(checkpoint, SQRT2)
    if own is not None:  # Hammer's: nothing is left to assume.
        num_classes = num_classes or integer(own, "label_dim", 0)
        output = "tanh" if own.get("final_tanh", False) else "none"
        assumptions = Assumptions({"output": output, "fused": "all" if own.get("fused_scale", False) else "none"})
    fused = _fused(file, widths, assumptions)
    assumptions.note(
        f"a one-hot label of {num_classes} classes after z (as told)" if num_classes else "no label after z"
    )
    slope = assumptions.take("slope", 0.2, positive)
    output = assumptions.take("output", "none", partial(one_of, names=("none", "tanh")))
    assumptions.note(f"leaky ReLU {slope:g}", "slope")
    assumptions.note("tanh at the end" if output == "tanh" else "nothing after the last layer", "output")
    z_dim = split_latent(file, inputs, num_classes)
    class_codes = one_hot_codes(num_classes) if num_classes else None
    with torch.device("meta"):
        generator = PGGAN(
            z_dim,
            (num_classes or 0, num_classes or 0),
            (height, width),
            widths[: 2 * growth.levels],
            growth.to_image(widths[1::2], file.shape("output0.bias", 1)[0]),
            normalize_z=True,
            slope=slope,
            tanh=output == "tanh",
        )
    if class_codes is not None:
        file.layer(generator, partial(dict, class_codes=class_codes))
    weight = ("layer0.weight", (widths[0], inputs, height, width))
    file.layer(generator.dense, _dense, weight=weight, bias=("layer0.bias", widths[0]))
    for k, layer in enumerate(generator.convs, start=1):
        up = k % 2 == 0
        shape = (widths[k - 1], widths[k]) if up and fused else (widths[k], widths[k - 1])
        make = partial(up_conv, fused=fused) if up else conv
        file.layer(layer, make, weight=(f"layer{k}.weight", (*shape, 3, 3)), bias=f"layer{k}.bias")
    for layer, name, share in growth.images(generator.to_image, outputs):
        file.layer(layer, partial(image_parameters, share=share), **weight_and_bias(name))
    return file.fill(generator)


def _fused(file: Assembly, widths: Sequence[int], assumptions: Assumptions) -> bool:
    """Return whether the original fuses doubling and convolution, for which it stores [in, out, 3, 3]."""
    ups = range(2, len(widths), 2)
    telling = [k for k in ups if widths[k - 1] != widths[k]]
    if telling or not ups:
        return any(file.shape(f"layer{k}.weight", 4)[:2] == (widths[k - 1], widths[k]) for k in telling)
    fused = assumptions.take("fused", "none", partial(one_of, names=("none", "all"))) == "all"
    assumptions.note("upsampling fused" if fused else "no upsampling fused", "fused")
    return fused


def _dense(weight: Tensor, bias: Tensor) -> Parameters:
    """Make a linear layer of a convolution [C, D, h, w] of z as a 1x1 image padded by kernel - 1: flip the kernel."""
    height, width = weight.shape[2:]
    rows = equalized(weight).flip(2, 3).permute(0, 2, 3, 1).flatten(0, 2)  # [C·h·w, D]
    return {"weight": rows, "bias": bias.repeat_interleave(height * width)}


FORMAT = Format("genforce PGGAN", recognises, load)
