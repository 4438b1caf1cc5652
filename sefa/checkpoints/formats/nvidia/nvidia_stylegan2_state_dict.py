"""StyleGAN2 as the state dict of NVlabs' PyTorch code: `torch.save(G_ema.state_dict(), ...)`.

The keys are those of the pickle's modules. The architecture shows in them: skip has a ToRGB in every block, resnet a
`skip` convolution in all but the first, orig neither. What they do not show are the mapping network's learning rate and
the limit of the layers' outputs.
"""

from collections.abc import Mapping

from torch import Tensor

from sefa.checkpoints.assumptions import Assumptions
from sefa.checkpoints.checkpoint import Checkpoint, Format, LoadOptions
from sefa.checkpoints.formats.nvidia import nvidia_stylegan2
from sefa.checkpoints.formats.nvidia.nvidia_modules import as_modules, describe, each_module
from sefa.generators import StyleGAN2

FIRST = "synthesis.b4.conv1"


def recognises(checkpoint: Checkpoint) -> bool:
    """Recognise the styles and weights of the first convolution."""
    return f"{FIRST}.affine.weight" in checkpoint.stored and f"{FIRST}.weight" in checkpoint.stored


def load(checkpoint: Checkpoint, options: LoadOptions) -> StyleGAN2:
    """Build the generator."""
    return read(checkpoint.tensors, options.assumptions, options)


def read(tensors: Mapping[str, Tensor], assumptions: Assumptions, options: LoadOptions) -> StyleGAN2:
    """Build the generator of a clean state dict, with these facts about it."""
    network = as_modules(tensors)
    for name, module in each_module(network):
        if name in ("conv0", "conv1"):
            module.attributes["use_noise"] = "noise_strength" in module.parameters
    describe(network, assumptions, f"{FIRST}.affine")
    return nvidia_stylegan2.read(network, options)


FORMAT = Format("NVIDIA StyleGAN2, a state dict", recognises, load)
