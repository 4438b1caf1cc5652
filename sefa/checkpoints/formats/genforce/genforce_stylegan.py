"""StyleGAN from genforce's SeFa repository and model zoo.

The layers are synthesis.layer0, which adds to the learned constant, layer1, ..., two for every level. The levels' 1x1
convolutions to an image are synthesis.output0, ...; lod says how far training had grown the generator. Weights are
stored without their gains.
"""

from collections.abc import Callable, Mapping

from torch import Tensor

from sefa.checkpoints.assumptions import mapping_rate
from sefa.checkpoints.checkpoint import Checkpoint, Format, LoadOptions
from sefa.checkpoints.parts import stylegan_layers
from sefa.checkpoints.parts.assembly import Assembly
from sefa.checkpoints.parts.growing import count_levels, highest, weight_and_bias
from sefa.checkpoints.parts.stylegan_layers import MAPPING_LR, Keys
from sefa.generators.stylegan import StyleGAN

CONST = "synthesis.layer0.const"


def recognises(checkpoint: Checkpoint) -> bool:
    """Recognise the format's name for the learned constant or, if that is missing, for the noise's weights."""
    tensors = checkpoint.stored
    is_hammers = "synthesis.layer2.filter" in tensors
    return (CONST in tensors and not is_hammers) or highest(
        tensors, r"synthesis\.layer(\d{1,3})\.apply_noise\.weight"
    ) >= 0


def load(checkpoint: Checkpoint, options: LoadOptions) -> StyleGAN:
    """Build the generator."""
    tensors, assumptions = checkpoint.tensors, options.assumptions
    keys = keys_of(tensors, _layer_keys, label="mapping.label_weight", center="truncation.w_avg")
    fused_from, rate = stylegan_layers.fused_from(assumptions), mapping_rate(assumptions, MAPPING_LR)
    return stylegan_layers.build(Assembly(tensors), keys, rate, fused_from, options.noise)


def keys_of(tensors: Mapping[str, Tensor], layer: Callable[[int], dict[str, str]], *, label: str, center: str) -> Keys:
    """Return the names of all tensors, of which `layer` gives those of a layer; Hammer's names are like these."""
    levels = count_levels(
        highest(tensors, r"synthesis\.layer(\d{1,3})\..*") // 2, highest(tensors, r"synthesis\.output(\d{1,3})\..*")
    )
    dense = 1 + max(0, highest(tensors, r"mapping\.dense(\d{1,3})\..*"))
    return Keys(
        mapping=[weight_and_bias(f"mapping.dense{k}") for k in range(dense)],
        layers=[layer(k) for k in range(2 * levels)],
        images=[weight_and_bias(f"synthesis.output{level}") for level in range(levels)],
        label=label,
        center=center,
        lod="synthesis.lod",
    )


def _layer_keys(k: int) -> dict[str, str]:
    name = f"synthesis.layer{k}"
    keys = {
        "bias": f"{name}.bias",
        "noise_weight": f"{name}.apply_noise.weight",
        "noise": f"{name}.apply_noise.noise",
        "style_weight": f"{name}.style.weight",
        "style_bias": f"{name}.style.bias",
    }
    if k == 0:
        return {"const": CONST, **keys}
    blur = {"blur": f"{name}.blur.kernel"} if k % 2 == 0 else {}
    return {"weight": f"{name}.weight", **keys, **blur}


FORMAT = Format("genforce StyleGAN", recognises, load)
