"""DCGAN from OpenMMLab's mmgeneration and mmagic: noise2feat, upsampling.0, upsampling.1, ..., and output_layer.

Each is a transposed convolution, but for the last followed by a batch norm and a ReLU.
"""

from sefa.checkpoints.checkpoint import Checkpoint, Format, LoadOptions
from sefa.checkpoints.formats import dcgan
from sefa.checkpoints.formats.openmmlab.openmmlab_files import COUNTER, configuration, in_rgb
from sefa.checkpoints.parts.growing import highest
from sefa.generators import DCGAN

FIRST, LAST = "noise2feat", "output_layer"
SPACING = 3  # a convolution, a batch norm and an activation


def recognises(checkpoint: Checkpoint) -> bool:
    """Recognise the names of the first and the last convolution."""
    return {f"{FIRST}.conv.weight", f"{FIRST}.bn.weight", f"{LAST}.conv.weight"} <= checkpoint.stored.keys()


def load(checkpoint: Checkpoint, options: LoadOptions) -> DCGAN:
    """Build the generator, as the one sequence of layers that it is."""
    image, config = rf"{LAST}\.conv\.(weight|bias)", configuration(checkpoint)
    stored = in_rgb(checkpoint.tensors, image, config, options.assumptions, transposed=True)
    depth = 1 + highest(stored, r"upsampling\.(\d{1,2})\..*")
    names = [FIRST, *(f"upsampling.{i}" for i in range(depth)), LAST]
    numbers = {f"{name}.conv": SPACING * i for i, name in enumerate(names)}
    numbers |= {f"{name}.bn": SPACING * i + 1 for i, name in enumerate(names)}
    tensors = {}
    for key, tensor in stored.items():
        layer, _, entry = key.rpartition(".")
        if key != COUNTER:
            tensors[f"main.{numbers[layer]}.{entry}" if layer in numbers else key] = tensor
    return dcgan.load(Checkpoint(checkpoint.path, tensors), options)


FORMAT = Format("OpenMMLab DCGAN", recognises, load)
