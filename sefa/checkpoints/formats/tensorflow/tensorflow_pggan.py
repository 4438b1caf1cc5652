"""PGGAN as the original TensorFlow code pickles it.

The variables' scopes are 4x4/Dense and 4x4/Conv, then two convolutions for every level; and the levels' 1x1
convolutions to an image, ToRGB_lod0 for the last level, ToRGB_lod1, ... Weights are stored without their gains. In
Conv0_up, a convolution fused with doubling, inputs and outputs are exchanged.
"""

from functools import partial

import torch
from torch import Tensor

from sefa.checkpoints.checkpoint import Checkpoint, Format, LoadOptions, clean
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
from sefa.checkpoints.parts.tensorflow_variables import check_kwargs, in_torchs_layout, integer, levels_of
from sefa.checkpoints.sizes import one_hot_codes
from sefa.generators.pggan import PGGAN

DENSE = "4x4/Dense"
BASE = (4, 4)
# The supported values of the options that decide what the variables mean.
KWARGS = {
    "normalize_latents": (True,),
    "use_wscale": (True,),
    "use_pixelnorm": (True,),
    "pixelnorm_epsilon": (1e-8,),
    "use_leakyrelu": (True,),
    "tanh_at_end": (None,),
}


def recognises(checkpoint: Checkpoint) -> bool:
    """Recognise a dense layer of z that makes the 4x4 level."""
    network = checkpoint.tensorflow
    return network is not None and any(name.startswith(f"{DENSE}/") for name in network.tensors())


def load(checkpoint: Checkpoint, options: LoadOptions) -> PGGAN:
    """Build the generator."""
    network = checkpoint.tensorflow
    assert network is not None
    tensors = in_torchs_layout(clean(network.tensors()))
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
    file.require(*(key for name in (*layers, *images) for key in weight_and_bias(name, "/").values()))
    growth = Growth.of(file, "lod", levels)
    inputs = file.shape(f"{DENSE}/weight", 2)[1]
    label_size = integer(kwargs, "label_size", 0)
    if label_size >= inputs:
        raise file.misfit(f"its network was built with label_size = {label_size}, but {DENSE} takes {inputs} values")
    num_classes = label_size or options.num_classes or 0
    if "label_size" not in kwargs:
        options.assumptions.note(
            f"a one-hot label of {num_classes} classes after z (as told)" if num_classes else "no label after z"
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
    weight = (f"{DENSE}/weight", (16 * widths[0], inputs))
    file.layer(generator.dense, _dense, weight=weight, bias=(f"{DENSE}/bias", (widths[0],)))
    for k, layer in enumerate(generator.convs, start=1):
        fused = layers[k].endswith("/Conv0_up")
        shape = (widths[k - 1], widths[k]) if fused else (widths[k], widths[k - 1])
        make = conv if k % 2 else partial(up_conv, fused=fused)
        file.layer(layer, make, weight=(f"{layers[k]}/weight", (*shape, 3, 3)), bias=f"{layers[k]}/bias")
    for layer, name, share in growth.images(generator.to_image, images):
        file.layer(layer, partial(image_parameters, share=share), **weight_and_bias(name, "/"))
    return file.fill(generator)


def _dense(weight: Tensor, bias: Tensor) -> Parameters:
    """Return the first layer's parameters from [C·16, D], with the fan-in of the 4x4 convolution that it stands for."""
    return {"weight": equalized(weight, SQRT2 / 4), "bias": bias.repeat_interleave(16)}


FORMAT = Format("TensorFlow PGGAN", recognises, load)
