"""StyleGAN of genforce: the SeFa repository's and its model zoo's.

The layers are synthesis.layer0, which adds to the learned constant, layer1, ..., two for every level; the levels' 1x1
convolutions to an image are synthesis.output0, ...; lod tells how far training had grown it. Weights are stored without
their gains.
"""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from sefa.checkpoints.assumptions import mapping_rate
from sefa.checkpoints.checkpoint import Checkpoint, Format, LoadOptions
from sefa.checkpoints.parts import stylegan_layers
from sefa.checkpoints.parts.assembly import Assembly, Parameters, Stored
from sefa.checkpoints.parts.growing import Growth, count_levels, equalized, highest, image_parameters, up_kernel
from sefa.checkpoints.parts.stylegan_layers import MAPPING_LR, empty_mapping, first_layer, mapping_layer
from sefa.generators.stylegan import Layer, StyleGAN

CONST = "synthesis.layer0.const"
CENTER = "truncation.w_avg"
LABEL = "mapping.label_weight"
LOD = "synthesis.lod"


def recognises(checkpoint: Checkpoint) -> bool:
    """Its own name for the learned constant, or, should that be missing, for the noise's weights."""
    tensors = checkpoint.stored
    return CONST in tensors or highest(tensors, r"synthesis\.layer(\d{1,3})\.apply_noise\.weight") >= 0


def load(checkpoint: Checkpoint, options: LoadOptions) -> StyleGAN:
    """Build the generator."""
    tensors = checkpoint.tensors
    levels = count_levels(
        highest(tensors, r"synthesis\.layer(\d{1,3})\..*") // 2, highest(tensors, r"synthesis\.output(\d{1,3})\..*")
    )
    dense = [f"mapping.dense{k}" for k in range(1 + max(0, highest(tensors, r"mapping\.dense(\d{1,3})\..*")))]
    layers = [f"synthesis.layer{k}" for k in range(2 * levels)]
    outputs = [f"synthesis.output{level}" for level in range(levels)]
    file = Assembly(tensors)
    file.require(*(f"{name}.{entry}" for name in (*dense, *outputs) for entry in ("weight", "bias")))
    file.require(*(key for k, name in enumerate(layers) for key in _layer_keys(name, k)))
    growth = Growth.of(file, LOD, levels)
    _, _, height, width = file.shape(CONST, 4)
    widths = [file.shape(f"{name}.bias", 1)[0] for name in layers]
    shapes = [file.shape(f"{name}.weight", 2)[::-1] for name in dense]
    fused_from = stylegan_layers.fused_from(options.assumptions)
    rate = mapping_rate(options.assumptions, MAPPING_LR)
    with torch.device("meta"):
        to_image = growth.to_image(widths[1::2], file.shape(f"{outputs[0]}.bias", 1)[0])
        mapping = empty_mapping(file, shapes, LABEL)
        built = widths[: 2 * growth.levels]
        generator = StyleGAN(mapping, shapes[-1][1], (height, width), built, options.noise == "const", to_image)
    for name, layer in zip(dense, mapping.layers, strict=True):
        file.layer(layer, partial(mapping_layer, rate=rate), weight=f"{name}.weight", bias=f"{name}.bias")
    _add_first_layer(file, generator, options.noise == "const")
    for k, layer in enumerate(stylegan_layers.layers_of(generator), start=1):
        _add_layer(file, layer, layers[k], fused=min(height, width) << k // 2 >= fused_from)
    for name, style in zip(layers, generator.styles, strict=False):
        file.layer(style, _style, weight=f"{name}.style.weight", bias=f"{name}.style.bias")
    for conv, name, share in growth.images(generator.to_image, outputs):
        file.layer(conv, partial(image_parameters, share=share), weight=f"{name}.weight", bias=f"{name}.bias")
    return stylegan_layers.fill(file, generator, CENTER, options.noise)


def _layer_keys(name: str, k: int) -> list[str]:
    """Keys of a layer, of which those of the noise, and of levels that training had not grown to, may have no use."""
    entries = [
        "bias",
        "apply_noise.weight",
        "apply_noise.noise",
        "style.weight",
        "style.bias",
        "weight" if k else "const",
    ]
    return [f"{name}.{entry}" for entry in [*entries, *(["blur.kernel"] if k and k % 2 == 0 else [])]]


def _noise_keys(name: str, channels: int, size: Sequence[int]) -> dict[str, Stored]:
    return {
        "noise_weight": (f"{name}.apply_noise.weight", channels),
        "noise": (f"{name}.apply_noise.noise", (1, 1, *size)),
    }


def _add_first_layer(file: Assembly, generator: StyleGAN, with_noise: bool) -> None:
    _, channels, *size = generator.constant.shape
    noise = _noise_keys("synthesis.layer0", channels, size) if with_noise else {}
    const = (CONST, tuple(generator.constant.shape))
    file.layer(generator, first_layer, const=const, bias=("synthesis.layer0.bias", channels), **noise)


def _add_layer(file: Assembly, layer: Layer, name: str, fused: bool) -> None:
    inputs, outputs, up = layer.conv.in_channels, layer.conv.out_channels, layer.blur is not None
    file.layer(
        layer,
        partial(_up_layer, fused=fused) if up else _layer,
        weight=(f"{name}.weight", (outputs, inputs, 3, 3)),
        bias=(f"{name}.bias", outputs),
        blur=f"{name}.blur.kernel" if up else None,
        **({} if layer.noise is None else _noise_keys(name, outputs, layer.noise.shape[2:])),
    )


def _layer(weight: Tensor, bias: Tensor, **noise: Tensor) -> Parameters:
    return stylegan_layers.layer(equalized(weight), bias, **noise)


def _up_layer(weight: Tensor, bias: Tensor, fused: bool, **noise_and_blur: Tensor) -> Parameters:
    return stylegan_layers.layer(up_kernel(equalized(weight), fused), bias, **noise_and_blur)


def _style(weight: Tensor, bias: Tensor) -> Parameters:
    return stylegan_layers.style(equalized(weight, 1), bias)


FORMAT = Format("genforce StyleGAN", recognises, load)
