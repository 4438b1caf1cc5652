"""StyleGAN from Hammer, genforce's trainer (bytedance/Hammer).

The layers are synthesis.layer0, which adds to the learned constant, layer1, ..., two for every level; the levels' 1x1
convolutions to an image are synthesis.output0, ... Weights are stored without their gains.
"""

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from sefa.checkpoints.assumptions import mapping_rate
from sefa.checkpoints.checkpoint import Checkpoint, Format, LoadOptions
from sefa.checkpoints.formats.genforce.genforce_stylegan import keys_of
from sefa.checkpoints.formats.genforce.hammer_options import Facts, facts, options_of
from sefa.checkpoints.parts import stylegan_layers
from sefa.checkpoints.parts.assembly import Assembly
from sefa.checkpoints.parts.growing import SQRT2
from sefa.checkpoints.parts.stylegan_layers import FUSED_FROM, MAPPING_LR
from sefa.errors import CheckpointError
from sefa.generators.stylegan import StyleGAN

FACTS: Facts = {"mapping_lr": ("mapping_lr_mul", MAPPING_LR)}
CONST = "synthesis.layer0.const"


def recognises(checkpoint: Checkpoint) -> bool:
    """Recognise the constant, and a filter that is a tensor: in genforce's older code it is a module."""
    return CONST in checkpoint.stored and "synthesis.layer2.filter" in checkpoint.stored


def load(checkpoint: Checkpoint, options: LoadOptions) -> StyleGAN:
    """Build the generator."""
    tensors = _reshaped(checkpoint.tensors)
    keys = keys_of(tensors, _layer_keys, label="mapping.embedding", center="w_avg")
    assumptions = facts(checkpoint, options, FACTS, SQRT2)
    own = options_of(checkpoint, SQRT2)
    fused_from = stylegan_layers.fused_from(assumptions) if own is None else _fused_from(own)
    return stylegan_layers.build(
        Assembly(tensors), keys, mapping_rate(assumptions, MAPPING_LR), fused_from, options.noise
    )


def _layer_keys(k: int) -> dict[str, str]:
    name = f"synthesis.layer{k}"
    keys = {
        "bias": f"{name}.bias",
        "noise_weight": f"{name}.noise_strength",
        "noise": f"{name}.noise",
        "style_weight": f"{name}.style.weight",
        "style_bias": f"{name}.style.bias",
    }
    if k == 0:
        return {"const": CONST, **keys}
    return {"weight": f"{name}.weight", **keys, **({"blur": f"{name}.filter"} if k % 2 == 0 else {})}


def _reshaped(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors as genforce's older code stores them: noise weights [C], and a filter for each channel."""
    reshaped = dict(tensors)
    for key, tensor in tensors.items():
        bias = tensors.get(key.replace(".filter", ".bias"))
        if key.endswith(".noise_strength") and tensor.ndim == 4:
            reshaped[key] = tensor.reshape(-1)  # [1, C, 1, 1]
        elif key.endswith(".filter") and tensor.shape[:2] == (1, 1) and bias is not None:
            reshaped[key] = tensor.repeat(bias.numel(), 1, 1, 1)
    return reshaped


def _fused_from(options: Mapping[str, Any]) -> float:
    """Return the output size from which on doubling and convolution are fused.

    Raises:
        CheckpointError: If the options do not say.
    """
    fused, size = options.get("fused_scale", "auto"), options.get("fused_scale_res", FUSED_FROM)
    if not isinstance(size, int) or fused not in ("auto", True, False):
        raise CheckpointError(f"it was built with fused_scale = {fused!r} from {size!r} pixels on, which is not known")
    return size if fused == "auto" else 0 if fused else math.inf


FORMAT = Format("Hammer StyleGAN", recognises, load)
