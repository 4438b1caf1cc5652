"""StyleGAN2 from OpenMMLab's mmgeneration and mmagic, a rewriting of rosinality's with other names.

The noise of each layer is stored; a centre of truncation, only by mmagic, if its configuration asks for it. Layers that
were trained in half precision limit what they give, which only the configuration says.
"""

import re
from typing import cast

from sefa.checkpoints.checkpoint import Checkpoint, Format, LoadOptions
from sefa.checkpoints.formats.openmmlab.openmmlab_files import COUNTER, configuration, generator_options, in_rgb
from sefa.checkpoints.formats.rosinality import rosinality_stylegan2
from sefa.checkpoints.formats.rosinality.rosinality_stylegan2 import Names
from sefa.checkpoints.parts.assembly import Assembly
from sefa.generators import StyleGAN2
from sefa.generators.stylegan2 import SynthesisBlock

AVERAGE = "w_avg"  # the centre of truncation, which mmagic can keep
CLAMP = 256.0  # of layers in half precision
NAMES = Names(
    const="constant_input.input",
    mapping="style_mapping",
    modulation="style_modulation",
    strength="noise_injector.weight",
    noise="injected_noise_",
)
IMAGE = r"to_rgb(1|s\.\d+)\.(conv\.weight|bias)"


def recognises(checkpoint: Checkpoint) -> bool:
    """Recognise the names of the learned constant and the first style."""
    return {NAMES.const, "conv1.conv.style_modulation.bias"} <= checkpoint.stored.keys()


def load(checkpoint: Checkpoint, options: LoadOptions) -> StyleGAN2:
    """Build the generator."""
    config = configuration(checkpoint)
    # Linear layers keep their bias outside, and equalised weights are called weight_orig.
    tensors = {re.sub(r"(\.linear)?\.weight_orig$", ".weight", key): one for key, one in checkpoint.tensors.items()}
    tensors.pop(COUNTER, None)
    if AVERAGE in tensors:
        tensors[rosinality_stylegan2.CENTER] = tensors.pop(AVERAGE)
    tensors = in_rgb(tensors, IMAGE, config, options.assumptions)
    options_of_config = generator_options(config)
    rate = options_of_config.get("lr_mlp")
    usual = float(rate) if isinstance(rate, float | int) and rate > 0 else rosinality_stylegan2.MAPPING_LR
    generator = rosinality_stylegan2.build(Assembly(tensors), NAMES, options, usual)
    if options_of_config.get("fp16_enabled") is True:
        _limit(generator, len(generator.blocks))
    elif isinstance(scales := options_of_config.get("num_fp16_scales"), int) and scales > 0:
        _limit(generator, scales)
    return generator


def _limit(generator: StyleGAN2, count: int) -> None:
    """Limit the layers of the last resolutions, which were trained in half precision, as the original does."""
    first, *others = cast("list[SynthesisBlock]", list(generator.blocks))
    for block in others[-count:]:
        for layer in (block.up, block.conv, block.rgb):
            assert layer is not None
            layer.clamp = CLAMP
    if count > len(others) and first.rgb is not None:  # The first convolution is never in half precision.
        first.rgb.clamp = CLAMP


FORMAT = Format("OpenMMLab StyleGAN2", recognises, load)
