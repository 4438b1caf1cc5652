"""StyleGAN as the original TensorFlow code pickles it.

The variables' scopes: mapping/Dense0, ...; synthesis/4x4/Const and Conv, then for every level Conv0_up and Conv1;
synthesis/ToRGB_lod0, the last level's 1x1 convolution to an image, ToRGB_lod1, ... A dense layer's weight is [in, out],
a convolution's [k, k, in, out]; both are stored without their gains. What the network was built with stands beside the
variables.
"""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from sefa.checkpoints.assumptions import Assumptions, mapping_rate
from sefa.checkpoints.checkpoint import Checkpoint, Format, LoadOptions, clean
from sefa.checkpoints.parts import stylegan_layers
from sefa.checkpoints.parts.assembly import Assembly, Parameters, Stored
from sefa.checkpoints.parts.growing import Growth, count_levels, equalized, highest, image_parameters, up_kernel
from sefa.checkpoints.parts.stylegan_layers import FUSED_FROM, MAPPING_LR, empty_mapping, first_layer
from sefa.checkpoints.parts.tensorflow_variables import check_kwargs, levels_of
from sefa.errors import CheckpointError
from sefa.generators.stylegan import Layer, StyleGAN

CONST = "synthesis/4x4/Const/const"
CENTER = "dlatent_avg"
LABEL = "mapping/LabelConcat/weight"
LOD = "synthesis/lod"
# The whole generator's, which the original assigns to the synthesis network before it draws an image.
WHOLE_LOD = "lod"
BASE = (4, 4)
# The original's defaults, as far as they decide what the variables mean.
KWARGS = {
    "normalize_latents": (True,),
    "use_wscale": (True,),
    "mapping_nonlinearity": ("lrelu",),
    "nonlinearity": ("lrelu",),
    "use_pixel_norm": (False,),
    "use_instance_norm": (True,),
    "blur_filter": ([1, 2, 1], (1, 2, 1)),
    "fused_scale": (True, False, "auto"),
}


def recognises(checkpoint: Checkpoint) -> bool:
    """Styles that modulate features, rather than StyleGAN2's that modulate weights."""
    network = checkpoint.tensorflow
    return network is not None and any("/StyleMod/" in name for name in network.tensors())


def load(checkpoint: Checkpoint, options: LoadOptions) -> StyleGAN:
    """Build the generator."""
    network = checkpoint.tensorflow
    assert network is not None
    tensors = clean(network.tensors())
    kwargs = network.static_kwargs
    check_kwargs(kwargs, KWARGS)
    fused_from = _fused_from(kwargs, options.assumptions)
    rate = _rate(kwargs, options.assumptions)
    options.assumptions.note("the original's defaults where its options are silent: lrelu, filter 1,2,1")
    levels = count_levels(levels_of(tensors) - 1, highest(tensors, r"synthesis/ToRGB_lod(\d{1,3})/\w+"))
    dense = [f"mapping/Dense{k}" for k in range(1 + max(0, highest(tensors, r"mapping/Dense(\d{1,3})/\w+")))]
    layers = ["synthesis/4x4/Const", "synthesis/4x4/Conv"]
    for level in range(1, levels):
        scope = f"synthesis/{4 << level}x{4 << level}"
        layers += [f"{scope}/Conv0_up", f"{scope}/Conv1"]
    images = [f"synthesis/ToRGB_lod{levels - 1 - level}" for level in range(levels)]
    file = Assembly(tensors)
    file.require(*(f"{name}/{entry}" for name in (*dense, *images) for entry in ("weight", "bias")))
    file.require(*(key for k, name in enumerate(layers) for key in _layer_keys(name, k)), LOD)
    growth = Growth.of(file, WHOLE_LOD if WHOLE_LOD in tensors else LOD, levels)
    widths = [file.shape(f"{name}/bias", 1)[0] for name in layers]
    shapes = [file.shape(f"{name}/weight", 2) for name in dense]
    with torch.device("meta"):
        to_image = growth.to_image(widths[1::2], file.shape(f"{images[0]}/bias", 1)[0])
        mapping = empty_mapping(file, shapes, LABEL)
        built = widths[: 2 * growth.levels]
        generator = StyleGAN(mapping, shapes[-1][1], BASE, built, options.noise == "const", to_image)
    for name, shape, layer in zip(dense, shapes, mapping.layers, strict=True):
        file.layer(layer, partial(_mapping_layer, rate=rate), weight=(f"{name}/weight", shape), bias=f"{name}/bias")
    _add_first_layer(file, generator, options.noise == "const")
    for k, layer in enumerate(stylegan_layers.layers_of(generator), start=1):
        _add_layer(file, layer, layers[k], k, fused=4 << k // 2 >= fused_from)
    for name, style in zip(layers, generator.styles, strict=False):
        weight = (f"{name}/StyleMod/weight", tuple(style.get_parameter("weight").T.shape))
        file.layer(style, _style, weight=weight, bias=f"{name}/StyleMod/bias")
    for conv, name, share in growth.images(generator.to_image, images):
        weight = (f"{name}/weight", (1, 1, conv.in_channels, conv.out_channels))
        file.layer(conv, partial(_image, share=share), weight=weight, bias=f"{name}/bias")
    return stylegan_layers.fill(file, generator, CENTER, options.noise)


def _layer_keys(name: str, k: int) -> list[str]:
    """Keys of a layer, of which those of the noise, and of levels that training had not grown to, may have no use."""
    entries = ["bias", "Noise/weight", "StyleMod/weight", "StyleMod/bias", "weight" if k else "const"]
    return [f"synthesis/noise{k}", *(f"{name}/{entry}" for entry in entries)]


def _fused_from(kwargs: Mapping[str, Any], assumptions: Assumptions) -> float:
    """From which size of the output on doubling and convolution are fused."""
    option = kwargs.get("fused_scale")
    if option is None:
        return stylegan_layers.fused_from(assumptions)
    return FUSED_FROM if option == "auto" else 0 if option else math.inf


def _rate(kwargs: Mapping[str, Any], assumptions: Assumptions) -> float:
    """The learning-rate multiplier of the mapping network."""
    rate = kwargs.get("mapping_lrmul")
    if rate is None:
        return mapping_rate(assumptions, MAPPING_LR)
    if type(rate) not in (int, float) or not rate > 0:
        raise CheckpointError(f"its network was built with mapping_lrmul = {rate!r}, a positive number was expected")
    return float(rate)


def _noise_keys(name: str, k: int, channels: int, size: Sequence[int]) -> dict[str, Stored]:
    return {"noise_weight": (f"{name}/Noise/weight", channels), "noise": (f"synthesis/noise{k}", (1, 1, *size))}


def _add_first_layer(file: Assembly, generator: StyleGAN, with_noise: bool) -> None:
    name, (_, channels, *size) = "synthesis/4x4/Const", generator.constant.shape
    noise = _noise_keys(name, 0, channels, size) if with_noise else {}
    const = (CONST, tuple(generator.constant.shape))
    file.layer(generator, first_layer, const=const, bias=(f"{name}/bias", channels), **noise)


def _add_layer(file: Assembly, layer: Layer, name: str, k: int, fused: bool) -> None:
    inputs, outputs = layer.conv.in_channels, layer.conv.out_channels
    file.layer(
        layer,
        _layer if layer.blur is None else partial(_up_layer, fused=fused),
        weight=(f"{name}/weight", (3, 3, inputs, outputs)),
        bias=(f"{name}/bias", outputs),
        **({} if layer.noise is None else _noise_keys(name, k, outputs, layer.noise.shape[2:])),
    )


def _layer(weight: Tensor, bias: Tensor, **noise: Tensor) -> Parameters:
    return stylegan_layers.layer(equalized(weight.permute(3, 2, 0, 1)), bias, **noise)


def _up_layer(weight: Tensor, bias: Tensor, fused: bool, **noise: Tensor) -> Parameters:
    effective = up_kernel(equalized(weight.permute(3, 2, 0, 1)), fused)
    return stylegan_layers.layer(effective, bias, **noise, blur=_blur(len(bias)))


def _blur(channels: int) -> Tensor:
    """The filter that the original uses, of which the file holds nothing: [C, 1, 3, 3]."""
    taps = torch.tensor([1.0, 2.0, 1.0]) / 4
    return torch.outer(taps, taps).repeat(channels, 1, 1, 1)


def _style(weight: Tensor, bias: Tensor) -> Parameters:
    return stylegan_layers.style(equalized(weight.T, 1), bias)


def _mapping_layer(weight: Tensor, bias: Tensor, rate: float) -> Parameters:
    return stylegan_layers.mapping_layer(weight.T, bias, rate)


def _image(weight: Tensor, bias: Tensor, share: float) -> Parameters:
    return image_parameters(weight.permute(3, 2, 0, 1), bias, share)


FORMAT = Format("TensorFlow StyleGAN", recognises, load)
