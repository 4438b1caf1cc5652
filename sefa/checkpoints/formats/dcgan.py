"""DCGAN state dicts, as PyTorch's example and its many descendants write them."""

from sefa.checkpoints.checkpoint import Checkpoint, Format, LoadOptions
from sefa.errors import CheckpointError
from sefa.generators import DCGAN
from sefa.generators.dcgan import is_dcgan


def recognises(checkpoint: Checkpoint) -> bool:
    """One nn.Sequential that begins with a convolution."""
    return is_dcgan(checkpoint.stored)


def load(checkpoint: Checkpoint, options: LoadOptions) -> DCGAN:
    """Build the generator; class-conditional if the options say so."""
    for key, tensor in checkpoint.tensors.items():
        if not tensor.is_floating_point() and not key.endswith("num_batches_tracked"):
            raise CheckpointError(f"{key} is {tensor.dtype}, floating point weights were expected")
    return DCGAN.from_state_dict(checkpoint.tensors, options.num_classes or 0)


FORMAT = Format("DCGAN", recognises, load)
