"""torch-mimicry: SNGAN, SSGAN, InfoMax-GAN, SAGAN, cGAN-PD, and its residual DCGAN and WGAN-GP.

A state dict, model_state_dict, with the optimizer's beside it. The layers are l1, block2, block3, ..., then a norm and
a convolution with the next number. Shapes give every size.
"""

from functools import partial

import torch
from torch import Tensor, nn

from sefa.checkpoints.assumptions import one_of
from sefa.checkpoints.checkpoint import Checkpoint, Format, LoadOptions
from sefa.checkpoints.parts.activations import ACTIVATIONS, OUTPUTS
from sefa.checkpoints.parts.assembly import Assembly, Parameters
from sefa.checkpoints.parts.biggan_layers import (
    add_norm,
    bottom_width,
    check_variances,
    conditional_norm,
    statistics,
)
from sefa.checkpoints.parts.growing import highest
from sefa.checkpoints.parts.spectral_norm import SpectralLayers
from sefa.generators.biggan import Attention, Block, ConditionalNorm, Norm
from sefa.generators.sngan import SNGAN

ATTENTION = "attn_block"
EMBEDDING = "{}.embed.weight"  # of a conditional norm: a row of gains and biases for each class
EPSILON = 1e-5
UPSAMPLINGS = ("bilinear", "nearest")


def recognises(checkpoint: Checkpoint) -> bool:
    """Recognise the first linear layer and the first block's norm, which the discriminators do not have."""
    keys = {key.removesuffix("_orig") for key in checkpoint.stored}
    return "l1.weight" in keys and bool(keys & {"block2.b1.running_mean", "block2.b1.bn.running_mean"})


def load(checkpoint: Checkpoint, options: LoadOptions) -> SNGAN:
    """Build the generator."""
    tensors, assumptions = checkpoint.tensors, options.assumptions
    check_variances(tensors, "running_var")
    file = Assembly(tensors)
    layers = SpectralLayers(file)
    last = 1 + highest(tensors, r"block(\d{1,3})\..*")
    blocks = [f"block{number}" for number in range(2, last)]
    widths = [layers.shape("block2.c1", 4)[1], *(layers.shape(f"{name}.c2", 4)[0] for name in blocks)]
    rows, z_dim = layers.shape("l1", 2)
    width = bottom_width(file, rows, widths[0])
    is_conditional = EMBEDDING.format("block2.b1") in tensors
    num_classes = file.shape(EMBEDDING.format("block2.b1"), 2)[0] if is_conditional else 0
    attended = _attended(layers, blocks, widths, options) if f"{ATTENTION}.gamma" in tensors else ""
    upsampling = assumptions.take("upsample", "bilinear", partial(one_of, names=UPSAMPLINGS))
    output = assumptions.take("output", "tanh", partial(one_of, names=OUTPUTS))
    assumptions.note(f"{upsampling} upsampling", "upsample")
    assumptions.note(f"{output} at the end", "output")
    with torch.device("meta"):
        modules: list[Block | Attention] = []
        for i, name in enumerate(blocks):
            modules.append(Block(widths[i], widths[i + 1], num_classes, upsampling=upsampling))
            if name == attended:
                sizes = [layers.shape(f"{ATTENTION}.{part}", 4)[0] for part in ("theta", "g")]
                modules.append(Attention(widths[i + 1], *sizes))
        conv = nn.Conv2d(widths[-1], layers.shape(f"c{last}", 4)[0], 3, padding=1)
        generator = SNGAN(
            z_dim,
            num_classes,
            (widths[0], width, width),
            modules,
            Norm(widths[-1]),
            conv,
            nn.ReLU(),
            ACTIVATIONS[output](),
            OUTPUTS[output],
        )
    layers.add(generator.linear, "l1")
    for name, block in zip(blocks, (module for module in modules if isinstance(module, Block)), strict=True):
        for part, ours in (("c1", block.conv1), ("c2", block.conv2), ("c_sc", block.conv_sc)):
            layers.add(ours, f"{name}.{part}")
        for part, norm in (("b1", block.bn1), ("b2", block.bn2)):
            _add_norm(file, norm, f"{name}.{part}", num_classes)
    for attention in (module for module in modules if isinstance(module, Attention)):
        layers.add_attention(attention, f"{ATTENTION}.{{}}", "o", f"{ATTENTION}.gamma")
    _add_norm(file, generator.norm, f"b{last}", 0)
    layers.add(conv, f"c{last}")
    return file.fill(generator, (r".*\.num_batches_tracked",))


def _attended(layers: SpectralLayers, blocks: list[str], widths: list[int], options: LoadOptions) -> str:
    """Return the block that attention follows: in the originals, the one in the middle."""
    channels = layers.shape(f"{ATTENTION}.theta", 4)[1]
    possible = [name for name, width in zip(blocks, widths[1:], strict=True) if width == channels]
    if not possible:
        raise layers.file.misfit(f"{ATTENTION} reads {channels} channels, and no block gives as many")
    middle = blocks[(len(blocks) - 1) // 2]
    usual = middle if middle in possible else possible[0]
    name = options.assumptions.take("attention", usual, partial(one_of, names=possible))
    if len(possible) > 1:
        options.assumptions.note(f"attention after {name}", "attention")
    return name


def _add_norm(file: Assembly, module: nn.Module | None, name: str, num_classes: int) -> None:
    if isinstance(module, ConditionalNorm):
        channels = module.affine.out_features // 2
        embedding = (EMBEDDING.format(name), (num_classes, 2 * channels))
        file.layer(module, _by_class, embedding=embedding, **statistics(f"{name}.bn", channels))
    elif isinstance(module, Norm):
        add_norm(file, module, name, EPSILON)


def _by_class(embedding: Tensor, mean: Tensor, variance: Tensor) -> Parameters:
    """Return the parameters of a norm from its gains and biases for each class, [num_classes, 2C]."""
    gain, bias = embedding.T.chunk(2)  # [C, num_classes] each
    return conditional_norm(gain - 1, bias, mean, variance, EPSILON)


FORMAT = Format("torch-mimicry", recognises, load)
