"""The formats that checkpoints come in, one module each.

To add one, write its module, and list its FORMAT below. The module describes the format in its docstring, and has

    recognises(checkpoint)       says whether the keys, or the object's modules, are those of the format
    load(checkpoint, options)    reads the sizes from an `Assembly` of the tensors, makes the generator on the meta
                                 device, notes its layers, and returns `file.fill(generator, ignored)`
    a function for each layer    takes the layer's tensors, and returns its parameters
    FORMAT                       its name in messages, and the two functions above

CONTRIBUTING.md has the steps around it: recording what the original computes, tests, documents.
"""

from sefa.checkpoints.checkpoint import Format
from sefa.checkpoints.formats import (
    biggan_pytorch,
    dcgan,
    fastgan,
    gan_zoo,
    gan_zoo_dcgan,
    huggingface_biggan,
    lucidrains,
    theano,
    unsupported,
)
from sefa.checkpoints.formats.genforce import (
    genforce_pggan,
    genforce_stylegan,
    genforce_stylegan2,
    hammer_nvidia,
    hammer_stylegan,
)
from sefa.checkpoints.formats.nvidia import (
    nvidia_stylegan2,
    nvidia_stylegan2_state_dict,
    nvidia_stylegan3,
    nvidia_stylegan3_state_dict,
    nvidia_stylegan_xl,
)
from sefa.checkpoints.formats.openmmlab import (
    openmmlab_biggan,
    openmmlab_dcgan,
    openmmlab_lsgan,
    openmmlab_pggan,
    openmmlab_sngan,
    openmmlab_stylegan,
    openmmlab_stylegan2,
    openmmlab_stylegan3,
)
from sefa.checkpoints.formats.residual import mimicry, studiogan
from sefa.checkpoints.formats.rosinality import (
    basicsr_stylegan2,
    rosinality_decoder,
    rosinality_stylegan,
    rosinality_stylegan2,
)
from sefa.checkpoints.formats.tensorflow import tensorflow_pggan, tensorflow_stylegan, tensorflow_stylegan2

# Tried in this order; the first that recognises a network loads it.
FORMATS: tuple[Format, ...] = (
    *unsupported.FORMATS,
    fastgan.FORMAT,
    dcgan.DISCRIMINATOR,
    dcgan.FORMAT,
    biggan_pytorch.FORMAT,
    huggingface_biggan.FORMAT,
    studiogan.FORMAT,
    mimicry.PROJECTION,
    mimicry.FORMAT,
    genforce_stylegan2.FORMAT,
    nvidia_stylegan2.FORMAT,
    nvidia_stylegan3.FORMAT,
    nvidia_stylegan_xl.FORMAT,
    nvidia_stylegan2_state_dict.FORMAT,
    openmmlab_stylegan3.FORMAT,  # before NVlabs' own, whose names of the synthesis network it has
    nvidia_stylegan3_state_dict.FORMAT,
    nvidia_stylegan3_state_dict.XL_FORMAT,
    tensorflow_stylegan2.FORMAT,
    rosinality_stylegan2.FORMAT,
    rosinality_decoder.FORMAT,
    basicsr_stylegan2.FORMAT,
    rosinality_stylegan.FORMAT,
    openmmlab_biggan.FORMAT,
    openmmlab_stylegan.FORMAT,
    openmmlab_stylegan2.FORMAT,
    openmmlab_dcgan.FORMAT,
    openmmlab_lsgan.FORMAT,
    openmmlab_sngan.FORMAT,
    openmmlab_pggan.FORMAT,
    genforce_pggan.FORMAT,
    genforce_stylegan.FORMAT,
    hammer_stylegan.FORMAT,
    hammer_nvidia.STYLEGAN2,
    hammer_nvidia.STYLEGAN3,
    tensorflow_pggan.FORMAT,
    tensorflow_stylegan.FORMAT,
    gan_zoo.FORMAT,
    gan_zoo_dcgan.FORMAT,
    lucidrains.FORMAT,
    theano.FORMAT,
)

__all__ = ["FORMATS"]
