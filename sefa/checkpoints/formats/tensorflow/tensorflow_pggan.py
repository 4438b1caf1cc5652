"""PGGAN as the original TensorFlow code pickles it.

The variables' scopes: 4x4/Dense, 4x4/Conv, then for every level its two convolutions; ToRGB_lod0, the last level's
1x1 convolution to an image, ToRGB_lod1, ... A dense layer's weight is [in, out], a convolution's [k, k, in, out], or
[k, k, out, in] where it is fused with doubling; all are stored without their gains.
"""

from functools import partial

import torch
from torch import Tensor

from sefa.checkpoints.checkpoint import Checkpoint, Format, LoadOptions, clean
from sefa.checkpoints.parts.assembly import Assembly, Parameters
from sefa.checkpoints.parts.growing import (
    SQRT2,
    Growth,
    count_levels,
    equalized,
    highest,
    image_parameters,
    split_latent,
    up_kernel,
)
from sefa.checkpoints.parts.tensorflow_variables import check_kwargs, integer, levels_of
from sefa.checkpoints.sizes import one_hot_codes
from sefa.generators.pggan import PGGAN

DENSE = "4x4/Dense"
BASE = (4, 4)
# The original's defaults, as far as they decide what the variables mean.
KWARGS = {
    "normalize_latents": (True,),
    "use_wscale": (True,),
    "use_pixelnorm": (True,),
    "pixelnorm_epsilon": (1e-8,),
    "use_leakyrelu": (True,),
    "tanh_at_end": (None,),
}


def recognises(checkpoint: Checkpoint) -> bool:
    """A dense layer of z makes the 4x4 level."""
    network = checkpoint.tensorflow
    return network is not None and any(name.startswith(f"{DENSE}/") for name in network.tensors())


def load(checkpoint: Checkpoint, options: LoadOptions) -> PGGAN:
    """Build the generator."""
    network = checkpoint.tensorflow
    assert network is not None
    tensors = clean(network.tensors())
    kwargs = network.static_kwargs
    check_kwargs(kwargs, KWARGS)
    file = Assembly(tensors)
    levels = count_levels(levels_of(tensors) - 1, highest(tensors, r"ToRGB_lod(\d{1,3})/\w+"))
    layers = [DENSE, "4x4/Conv"]
    for level in range(1, levels):
        size = 4 << level
        fused = any(name.startswith(f"{size}x{size}/Conv0_up/") for name in tensors)
        layers += [f"{size}x{size}/{'Conv0_up' if fused else 'Conv0'}", f"{size}x{size}/Conv1"]
    images = [f"ToRGB_lod{levels - 1 - level}" for level in range(levels)]
    file.require(*(f"{name}/{entry}" for name in (*layers, *images) for entry in ("weight", "bias")))
    growth = Growth.of(file, "lod", levels)
    inputs = file.shape(f"{DENSE}/weight", 2)[0]
    label_size = integer(kwargs, "label_size", 0)
    if label_size >= inputs:
        raise file.misfit(f"its network was built with label_size = {label_size}, but {DENSE} takes {inputs} values")
    num_classes = label_size or options.num_classes or 0
    if "label_size" not in kwargs:
        options.assumptions.note(
            f"a one-hot label of {num_classes} classes behind z (as told)" if num_classes else "no label behind z"
        )
    options.assumptions.note("the original's defaults where its options are silent: leaky ReLU 0.2, no tanh")
    widths = [file.shape(f"{name}/bias", 1)[0] for name in layers]
    z_dim = split_latent(file, inputs, num_classes)
    class_codes = one_hot_codes(num_classes) if num_classes else None
    with torch.device("meta"):
        to_image = growth.to_image(widths[1::2], file.shape("ToRGB_lod0/bias", 1)[0])
        generator = PGGAN(z_dim, (num_classes, num_classes), BASE, widths[: 2 * growth.levels], to_image)
    if class_codes is not None:
        file.layer(generator, partial(dict, class_codes=class_codes))
    file.layer(
        generator.dense, _dense, weight=(f"{DENSE}/weight", (inputs, 16 * widths[0])), bias=(f"{DENSE}/bias", widths[0])
    )
    for k, conv in enumerate(generator.convs, start=1):
        name, shape = layers[k], (widths[k - 1], widths[k])
        make = _fused_up_conv if name.endswith("/Conv0_up") else _up_conv if name.endswith("/Conv0") else _conv
        shape = shape[::-1] if name.endswith("/Conv0_up") else shape
        file.layer(conv, make, weight=(f"{name}/weight", (3, 3, *shape)), bias=f"{name}/bias")
    for conv, name, share in growth.images(generator.to_image, images):
        weight = (f"{name}/weight", (1, 1, conv.in_channels, conv.out_channels))
        file.layer(conv, partial(_image, share=share), weight=weight, bias=f"{name}/bias")
    return file.fill(generator)


def _dense(weight: Tensor, bias: Tensor) -> Parameters:
    """[D, C·16], with the fan-in of the 4x4 convolution that it stands for."""
    return {"weight": equalized(weight.T, SQRT2 / 4), "bias": bias.repeat_interleave(16)}


def _conv(weight: Tensor, bias: Tensor) -> Parameters:
    return {"weight": equalized(weight.permute(3, 2, 0, 1)), "bias": bias}


def _up_conv(weight: Tensor, bias: Tensor) -> Parameters:
    return {"weight": up_kernel(equalized(weight.permute(3, 2, 0, 1)), fused=False), "bias": bias}


def _fused_up_conv(weight: Tensor, bias: Tensor) -> Parameters:
    return {"weight": up_kernel(equalized(weight.permute(2, 3, 0, 1)), fused=True), "bias": bias}


def _image(weight: Tensor, bias: Tensor, share: float) -> Parameters:
    return image_parameters(weight.permute(3, 2, 0, 1), bias, share)


FORMAT = Format("TensorFlow PGGAN", recognises, load)
