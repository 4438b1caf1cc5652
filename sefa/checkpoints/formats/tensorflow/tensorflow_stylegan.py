"""StyleGAN as the original TensorFlow code pickles it."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from sefa.checkpoints.assumptions import Assumptions, mapping_rate
from sefa.checkpoints.checkpoint import Checkpoint, Format, LoadOptions, clean
from sefa.checkpoints.parts import stylegan_layers
from sefa.checkpoints.parts.assembly import Source, Weights, check_keys, shape_of, source
from sefa.checkpoints.parts.growing import Growth, channels_of, equalized, highest, up_kernel
from sefa.checkpoints.parts.stylegan_layers import FUSED_FROM, MAPPING_LR, Layer, MappingParts, dense_weight
from sefa.checkpoints.parts.tensorflow_variables import check_kwargs, levels_of
from sefa.errors import CheckpointError
from sefa.generators.stylegan import StyleGAN

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
    fused_sizes = _fused_from(kwargs, options.assumptions)
    rate = _rate(kwargs, options.assumptions)
    options.assumptions.note("the original's defaults where its options are silent: lrelu, filter 1,2,1")
    levels = max(levels_of(tensors), 1 + highest(tensors, r"synthesis/ToRGB_lod(\d{1,3})/\w+"))
    dense = [f"mapping/Dense{k}" for k in range(1 + max(0, highest(tensors, r"mapping/Dense(\d{1,3})/\w+")))]
    layers = ["synthesis/4x4/Const", "synthesis/4x4/Conv"]
    for level in range(1, levels):
        scope = f"synthesis/{4 << level}x{4 << level}"
        layers += [f"{scope}/Conv0_up", f"{scope}/Conv1"]
    images = [f"synthesis/ToRGB_lod{levels - 1 - level}" for level in range(levels)]
    keys = [LOD, *(key for k, name in enumerate(layers) for key in _layer_keys(name, k))]
    keys += [f"{name}/{entry}" for name in (*dense, *images) for entry in ("weight", "bias")]
    ignored = [*keys, WHOLE_LOD]
    check_keys(tensors, keys, (CENTER, LABEL, WHOLE_LOD))
    return stylegan_layers.build(
        tensors,
        mapping=_mapping(tensors, dense, rate),
        center=source(CENTER) if CENTER in tensors else None,
        layers=[_layer(name, k, 4 << k // 2 >= fused_sizes) for k, name in enumerate(layers)],
        widths=channels_of(tensors, (f"{name}/bias" for name in layers)),
        base=BASE,
        images=[
            Weights(
                source(f"{name}/weight", convert=lambda weight: equalized(_conv(weight), 1)), source(f"{name}/bias")
            )
            for name in images
        ],
        channels=channels_of(tensors, [f"{images[0]}/bias"])[0],
        growth=Growth.at(tensors.get(WHOLE_LOD, tensors[LOD]), levels),
        noise=options.noise,
        unused=ignored,
    )


def _layer_keys(name: str, k: int) -> list[str]:
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


def _conv(weight: Tensor) -> Tensor:
    """[k, k, in, out] to [out, in, k, k]."""
    return weight.permute(3, 2, 0, 1)


def _layer(name: str, k: int, fused: bool) -> Layer:
    up = k > 0 and k % 2 == 0
    conv: Source
    if up:
        conv = source(f"{name}/weight", convert=lambda weight: up_kernel(equalized(_conv(weight)), fused))
    elif k:
        conv = source(f"{name}/weight", convert=lambda weight: equalized(_conv(weight)))
    else:
        conv = source(CONST)
    return Layer(
        conv=conv,
        bias=source(f"{name}/bias"),
        noise_weight=source(f"{name}/Noise/weight"),
        noise=source(f"synthesis/noise{k}"),
        style=Weights(
            source(f"{name}/StyleMod/weight", convert=lambda weight: equalized(weight.T, 1)),
            source(f"{name}/StyleMod/bias"),
        ),
        blur=source(f"{name}/bias", convert=lambda bias: _blur(len(bias))) if up else None,
    )


def _blur(channels: int) -> Tensor:
    """The filter that the original uses, of which the file holds nothing: [C, 1, 3, 3]."""
    taps = torch.tensor([1.0, 2.0, 1.0]) / 4
    return torch.outer(taps, taps).repeat(channels, 1, 1, 1)


def _mapping(tensors: Mapping[str, Tensor], names: list[str], rate: float) -> MappingParts:
    shapes = [shape_of(tensors, f"{name}/weight", 2) for name in names]
    return MappingParts(
        shapes=[(inputs, outputs) for inputs, outputs in shapes],
        layers=[
            Weights(
                source(f"{name}/weight", convert=lambda weight: dense_weight(weight.T, rate)),
                source(f"{name}/bias", convert=lambda bias: bias * rate),
            )
            for name in names
        ],
        embedding=(source(LABEL), _pair(shape_of(tensors, LABEL, 2))) if LABEL in tensors else None,
    )


def _pair(shape: tuple[int, ...]) -> tuple[int, int]:
    return shape[0], shape[1]


FORMAT = Format("TensorFlow StyleGAN", recognises, load)
