"""StyleGAN as the original TensorFlow code pickles it.

The variables' scopes are mapping/Dense0, ...; synthesis/4x4/Const and Conv, then Conv0_up and Conv1 for every level;
and the levels' 1x1 convolutions to an image, synthesis/ToRGB_lod0 for the last level, ToRGB_lod1, ... Weights are
stored without their gains. The options that the network was built with are stored beside the variables.
"""

import math
from collections.abc import Mapping
from typing import Any

from sefa.checkpoints.assumptions import Assumptions, mapping_rate
from sefa.checkpoints.checkpoint import Checkpoint, Format, LoadOptions, clean
from sefa.checkpoints.parts import stylegan_layers
from sefa.checkpoints.parts.assembly import Assembly
from sefa.checkpoints.parts.growing import count_levels, highest, weight_and_bias
from sefa.checkpoints.parts.stylegan_layers import FUSED_FROM, MAPPING_LR, Keys
from sefa.checkpoints.parts.tensorflow_variables import check_kwargs, in_torchs_layout, levels_of
from sefa.errors import CheckpointError
from sefa.generators.stylegan import StyleGAN

CONST = "synthesis/4x4/Const/const"
LOD = "synthesis/lod"
# The whole generator's level of detail, which the original assigns to the synthesis network before rendering.
WHOLE_LOD = "lod"
# The supported values of the options that decide what the variables mean.
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
    """Recognise styles that modulate features; StyleGAN2's modulate weights."""
    network = checkpoint.tensorflow
    return network is not None and any("/StyleMod/" in name for name in network.tensors())


def load(checkpoint: Checkpoint, options: LoadOptions) -> StyleGAN:
    """Build the generator."""
    network = checkpoint.tensorflow
    assert network is not None
    tensors, kwargs, assumptions = clean(network.tensors()), network.static_kwargs, options.assumptions
    check_kwargs(kwargs, KWARGS)
    fused_from = _fused_from(kwargs, assumptions)
    rate = _rate(kwargs, assumptions)
    assumptions.note("the original's defaults where its options are silent: lrelu, filter 1,2,1")
    levels = count_levels(levels_of(tensors) - 1, highest(tensors, r"synthesis/ToRGB_lod(\d{1,3})/\w+"))
    dense = 1 + max(0, highest(tensors, r"mapping/Dense(\d{1,3})/\w+"))
    keys = Keys(
        mapping=[weight_and_bias(f"mapping/Dense{k}", "/") for k in range(dense)],
        layers=[_layer_keys(k) for k in range(2 * levels)],
        images=[weight_and_bias(f"synthesis/ToRGB_lod{level}", "/") for level in reversed(range(levels))],
        label="mapping/LabelConcat/weight",
        center="dlatent_avg",
        lod=WHOLE_LOD if WHOLE_LOD in tensors else LOD,
    )
    file = Assembly(in_torchs_layout(tensors))
    file.require(LOD)
    return stylegan_layers.build(file, keys, rate, fused_from, options.noise)


def _layer_keys(k: int) -> dict[str, str]:
    size = 4 << k // 2
    scope = (
        f"synthesis/{size}x{size}/{'Conv1' if k % 2 else 'Conv0_up'}"
        if k > 1
        else f"synthesis/4x4/{'Conv' if k else 'Const'}"
    )
    return {
        "weight" if k else "const": f"{scope}/weight" if k else CONST,
        "bias": f"{scope}/bias",
        "noise_weight": f"{scope}/Noise/weight",
        "noise": f"synthesis/noise{k}",
        "style_weight": f"{scope}/StyleMod/weight",
        "style_bias": f"{scope}/StyleMod/bias",
    }


def _fused_from(kwargs: Mapping[str, Any], assumptions: Assumptions) -> float:
    """Return the output size from which on doubling and convolution are fused."""
    option = kwargs.get("fused_scale")
    if option is None:
        return stylegan_layers.fused_from(assumptions)
    return FUSED_FROM if option == "auto" else 0 if option else math.inf


def _rate(kwargs: Mapping[str, Any], assumptions: Assumptions) -> float:
    """Return the mapping network's learning-rate multiplier: as stored, or as assumed."""
    rate = kwargs.get("mapping_lrmul")
    if rate is None:
        return mapping_rate(assumptions, MAPPING_LR)
    if type(rate) not in (int, float) or not rate > 0:
        raise CheckpointError(f"its network was built with mapping_lrmul = {rate!r}, a positive number was expected")
    return float(rate)


FORMAT = Format("TensorFlow StyleGAN", recognises, load)
