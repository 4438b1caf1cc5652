"""StyleGAN from OpenMMLab's mmgeneration and mmagic.

A level, convs.N, has two layers: conv1, noise_injector1 and adain1, conv2, noise_injector2 and adain2; in the first
level conv1 is the learned constant. It differs from NVlabs' in what no tensor shows: every weight but the mapping
network's has the gain √2/√fan_in, that of the noise is one number for all channels, norm's epsilon is larger, the
scale's bias is stored around 1, and a layer that doubles the size has its bias and an activation before it blurs.
"""

import math
from functools import partial
from typing import cast

import torch
from torch import Tensor
from torch.nn import functional as F

from sefa.checkpoints.assumptions import mapping_rate
from sefa.checkpoints.checkpoint import Checkpoint, Format, LoadOptions
from sefa.checkpoints.formats.openmmlab.openmmlab_files import (
    COUNTER,
    configuration,
    generator_options,
    growth_of,
    in_rgb,
)
from sefa.checkpoints.parts.assembly import Assembly, Parameters, Stored
from sefa.checkpoints.parts.growing import conv, count_levels, equalized, highest, up_kernel
from sefa.checkpoints.parts.stylegan2_layers import check_mapping, dense
from sefa.generators.common.mapping import Mapping
from sefa.generators.stylegan import Layer, StyleGAN, instance_norm

CONST = "convs.0.conv1.input"
EPSILON = 1e-5  # of torch's InstanceNorm2d
MAPPING_LR = 0.01
IMAGE = r"to_rgbs\.\d+\.conv\.(weight_orig|bias)"
NOISE = (r"injected_noise_\d+", r"convs\.\d+\.noise_injector[12]\.weight")


def recognises(checkpoint: Checkpoint) -> bool:
    """Recognise the names of the learned constant and the first style."""
    return {CONST, "convs.0.adain1.affine.weight_orig"} <= checkpoint.stored.keys()


def load(checkpoint: Checkpoint, options: LoadOptions) -> StyleGAN:
    """Build the generator at the level that training had reached."""
    config = configuration(checkpoint)
    told = generator_options(config).get("lr_mlp")
    usual = float(told) if isinstance(told, float | int) and told > 0 else MAPPING_LR
    file = Assembly(in_rgb(checkpoint.tensors, IMAGE, config, options.assumptions))
    levels = count_levels(*(highest(file.tensors, rf"{name}\.(\d{{1,3}})\..*") for name in ("convs", "to_rgbs")))
    layers, images = [_layer_keys(k) for k in range(2 * levels)], [f"to_rgbs.{level}.conv" for level in range(levels)]
    file.require(
        *(key for keys in layers for key in keys.values()), *(key for one in images for key in _of(one).values())
    )
    growth = growth_of(checkpoint, file, levels)
    _, _, height, width = file.shape(CONST, 4)
    widths = [file.shape(keys["style_weight"], 2)[0] // 2 or 1 for keys in layers]
    w_dim = file.shape(layers[0]["style_weight"], 2)[1]
    with_noise = options.noise == "const"
    with torch.device("meta"):
        mapping = _mapping(file, w_dim, mapping_rate(options.assumptions, usual))
        generator = StyleGAN(
            mapping,
            w_dim,
            (height, width),
            widths[: 2 * growth.levels],
            with_noise,
            growth.to_image(widths[1::2], file.shape(f"{images[0]}.bias", 1)[0]),
            EPSILON,
            blurs_bias=True,
            blurs_activated=True,
        )
    check_mapping(file, mapping, w_dim)
    const, noise = (CONST, (1, widths[0], height, width)), _noise(layers[0], (height, width))
    file.layer(generator, partial(_first_layer, w_dim=w_dim), const=const, **(noise if with_noise else {}))
    for k, layer in enumerate(cast("list[Layer]", list(generator.layers)), start=1):
        noise = _noise(layers[k], (height << k // 2, width << k // 2))
        file.layer(
            layer,
            _layer,
            weight=(layers[k]["weight"], (layer.conv.out_channels, layer.conv.in_channels, 3, 3)),
            bias=(layers[k]["bias"], (layer.conv.out_channels,)),
            blur=(layers[k]["blur"], (3, 3)) if "blur" in layers[k] else None,
            **(noise if with_noise else {}),
        )
    for style, keys in zip(generator.styles, layers, strict=False):
        file.layer(style, conv, weight=keys["style_weight"], bias=keys["style_bias"])
    for to_image, name, share in growth.images(generator.to_image, images):
        file.layer(to_image, partial(_image, share=share), **_of(name))
    file.fill(generator, (COUNTER, *NOISE))
    generator.noise = options.noise
    generator.estimate_center()
    return generator


def _layer_keys(k: int) -> dict[str, str]:
    level, number = f"convs.{k // 2}", 1 + k % 2
    keys = {f"style_{key}": one for key, one in _of(f"{level}.adain{number}.affine").items()}
    keys |= {"noise_weight": f"{level}.noise_injector{number}.weight", "noise": f"injected_noise_{k}"}
    if k == 0:
        return {"const": CONST, **keys}
    if number == 2:
        return {**_of(f"{level}.conv2.conv"), **keys}
    return {**_of(f"{level}.conv1.0.conv"), "blur": f"{level}.conv1.1.kernel", **keys}


def _of(name: str) -> dict[str, str]:
    return {"weight": f"{name}.weight_orig", "bias": f"{name}.bias"}


def _noise(keys: dict[str, str], size: tuple[int, int]) -> dict[str, Stored]:
    return {"noise_weight": (keys["noise_weight"], 1), "noise": (keys["noise"], (1, 1, *size))}


def _mapping(file: Assembly, w_dim: int, rate: float) -> Mapping:
    names = [f"style_mapping.{1 + k}" for k in range(file.count("style_mapping.{}.linear.weight_orig", start=1))]
    shapes = [file.shape(f"{name}.linear.weight_orig", 2) for name in names]
    mapping = Mapping(shapes[0][1] if shapes else w_dim, [outputs for outputs, _ in shapes])
    for layer, name, (_, inputs) in zip(mapping.layers, names, shapes, strict=True):
        make = partial(dense, gain=rate / math.sqrt(inputs), bias_gain=rate)
        file.layer(layer, make, weight=f"{name}.linear.weight_orig", bias=f"{name}.bias")
    return mapping


def _first_layer(
    const: Tensor, noise_weight: Tensor | None = None, noise: Tensor | None = None, *, w_dim: int
) -> Parameters:
    """Return the features of the first layer before its style; the centre of truncation is still to be estimated."""
    if noise_weight is not None and noise is not None:
        const = const + noise_weight * noise
    return {"constant": instance_norm(F.leaky_relu(const, 0.2), EPSILON), "center": torch.zeros(w_dim)}


def _layer(weight: Tensor, bias: Tensor, blur: Tensor | None = None, **noise: Tensor) -> Parameters:
    parameters = {"conv.weight": equalized(weight), "bias": bias.reshape(1, -1, 1, 1)}
    if blur is not None:
        kernel = up_kernel(equalized(weight), fused=False)
        parameters = {"conv.weight": kernel, "conv.bias": bias, "blur": blur.flip(0, 1).repeat(len(bias), 1, 1, 1)}
    if noise:
        noise["noise_weight"] = noise["noise_weight"].reshape(1, 1, 1, 1).repeat(1, len(bias), 1, 1)
    return {**parameters, **noise}


def _image(weight: Tensor, bias: Tensor, share: float) -> Parameters:
    return {name: tensor * share for name, tensor in conv(weight, bias).items()}


FORMAT = Format("OpenMMLab StyleGAN", recognises, load)
