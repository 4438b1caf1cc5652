"""StyleGAN from rosinality's style-based-gan-pytorch.

The mapping network is style.1, style.3, ...; a level, generator.progression.N, has two layers: conv1, noise1 and
adain1, conv2, noise2 and adain2. In the first level conv1 is the learned constant; in the others it is a sequence that
doubles the size and blurs: from 128 pixels on, in one transposed convolution. A file has all nine levels, whichever of
them were trained: the levels above have no image of their own yet, and to_rgb's bias there is still zero.
"""

from itertools import count, takewhile

from sefa.checkpoints.assumptions import Assumptions
from sefa.checkpoints.checkpoint import Checkpoint, Format, LoadOptions
from sefa.checkpoints.parts import torch_stylegan_layers
from sefa.checkpoints.parts.assembly import Assembly
from sefa.checkpoints.parts.growing import count_levels
from sefa.checkpoints.parts.torch_stylegan_layers import Keys
from sefa.generators.stylegan import StyleGAN

LEVEL = "generator.progression.{}"
IMAGE = "generator.to_rgb.{}.conv"
CONST = f"{LEVEL.format(0)}.conv1.input"
FUSED = f"{LEVEL}.conv1.0.weight"
# The discriminator's blurs, and this, are kernels for the gradient.
FLIPPED = r"generator\.progression\.\d+\.conv1\.\d\.weight_flip"


def recognises(checkpoint: Checkpoint) -> bool:
    """Recognise the names of the learned constant and the first style."""
    return {CONST, f"{LEVEL.format(0)}.adain1.style.linear.weight_orig"} <= checkpoint.stored.keys()


def load(checkpoint: Checkpoint, options: LoadOptions) -> StyleGAN:
    """Build the generator, as far as it was trained."""
    file = Assembly(checkpoint.tensors)
    total = count_levels(file.count(f"{IMAGE}.weight_orig") - 1)
    levels = _levels(file, total, options.assumptions)
    dense = takewhile(lambda index: f"style.{index}.linear.weight_orig" in file.tensors, count(1, 2))
    keys = Keys(
        mapping=[_weight_and_bias(f"style.{index}.linear") for index in dense],
        layers=[_layer(file, index) for index in range(2 * levels)],
        fused=frozenset(2 * level for level in range(1, levels) if FUSED.format(level) in file.tensors),
        image=_weight_and_bias(IMAGE.format(levels - 1)),
    )
    above = "|".join(map(str, range(levels, total)))
    others = "|".join(str(level) for level in range(total) if level != levels - 1)
    ignored = [FLIPPED, rf"generator\.progression\.({above})\..*", rf"generator\.to_rgb\.({others})\..*"]
    return torch_stylegan_layers.build(file, keys, options.noise, ignored)


def _levels(file: Assembly, total: int, assumptions: Assumptions) -> int:
    """Return how many levels are read: all that were trained, unless the owner names the image's size."""
    height, width = file.shape(CONST, 4)[2:]
    biases = [file.tensors.get(f"{IMAGE.format(level)}.bias") for level in range(total)]
    trained = [level for level, bias in enumerate(biases) if bias is not None and bool(bias.any())]
    usual = 1 + max(trained, default=total - 1)

    def level_of(text: str) -> int:
        sizes = [min(height, width) << level for level in range(total)]
        if text not in map(str, sizes):
            raise ValueError(f"one of {', '.join(map(str, sizes))} was expected")
        return 1 + [str(size) for size in sizes].index(text)

    levels = assumptions.take("resolution", usual, level_of)
    assumptions.note(f"trained up to {min(height, width) << levels - 1} pixels", "resolution")
    return levels


def _layer(file: Assembly, index: int) -> dict[str, str]:
    level, second = divmod(index, 2)
    name, number = LEVEL.format(level), second + 1
    conv = f"{name}.conv{number}"
    keys = {
        "noise_weight": f"{name}.noise{number}.weight_orig",
        "style_weight": f"{name}.adain{number}.style.linear.weight_orig",
        "style_bias": f"{name}.adain{number}.style.linear.bias",
    }
    if index == 0:
        return {"const": CONST, **keys}
    if second:
        return {**_weight_and_bias(f"{conv}.conv"), **keys}
    if FUSED.format(level) in file.tensors:
        return {"weight": f"{conv}.0.weight", "bias": f"{conv}.0.bias", "blur": f"{conv}.1.weight", **keys}
    return {**_weight_and_bias(f"{conv}.1.conv"), "blur": f"{conv}.2.weight", **keys}


def _weight_and_bias(name: str) -> dict[str, str]:
    return {"weight": f"{name}.weight_orig", "bias": f"{name}.bias"}


FORMAT = Format("rosinality StyleGAN", recognises, load)
