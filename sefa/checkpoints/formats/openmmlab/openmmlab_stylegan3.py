"""StyleGAN3 from OpenMMLab's mmgeneration and mmagic: NVlabs' state dict, but for the mapping network's name."""

import re

from sefa.checkpoints.checkpoint import Checkpoint, Format, LoadOptions
from sefa.checkpoints.formats.nvidia import nvidia_stylegan3_state_dict
from sefa.checkpoints.formats.openmmlab.openmmlab_files import COUNTER, configuration, in_rgb
from sefa.checkpoints.parts.growing import highest
from sefa.generators.stylegan3 import StyleGAN3

MAPPING = "style_mapping."


def recognises(checkpoint: Checkpoint) -> bool:
    """Recognise the sinusoids, and the mapping network's name."""
    keys = checkpoint.stored.keys()
    return "synthesis.input.freqs" in keys and f"{MAPPING}fc0.weight" in keys


def load(checkpoint: Checkpoint, options: LoadOptions) -> StyleGAN3:
    """Build the generator."""
    tensors = {
        re.sub(rf"^{re.escape(MAPPING)}", "mapping.", key): tensor
        for key, tensor in checkpoint.tensors.items()
        if key != COUNTER
    }
    last = highest(tensors, r"synthesis\.L(\d{1,3})_\w+\.bias")
    image = rf"synthesis\.L{last}_\w+\.(weight|bias)"
    tensors = in_rgb(tensors, image, configuration(checkpoint), options.assumptions)
    return nvidia_stylegan3_state_dict.read(tensors, options.assumptions)


FORMAT = Format("OpenMMLab StyleGAN3", recognises, load)
