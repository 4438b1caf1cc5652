"""torch-mimicry: SNGAN, SSGAN, InfoMax-GAN, SAGAN, cGAN-PD, and its residual DCGAN and WGAN-GP.

A state dict, model_state_dict, with the optimizer's beside it. The layers are l1, block2, block3, ..., then a norm and
a convolution with the next number. Shapes give every size.

Also crcrpar's pytorch.sngan_projection, whose layers have the same names but for the last convolution, conv7, and the
gains and biases of each class.
"""

import re
from functools import partial

import torch
from torch import Tensor, nn

from sefa.checkpoints.assumptions import one_of
from sefa.checkpoints.checkpoint import Checkpoint, Format, LoadOptions
from sefa.checkpoints.parts.activations import ACTIVATIONS, OUTPUTS
from sefa.checkpoints.parts.assembly import Assembly, Parameters
from sefa.checkpoints.parts.biggan_layers import add_norm, bottom_width, check_variances, conditional_norm, statistics
from sefa.checkpoints.parts.growing import highest
from sefa.checkpoints.parts.spectral_norm import SpectralLayers
from sefa.generators.biggan import Attention, Block, ConditionalNorm, Norm
from sefa.generators.sngan import SNGAN

ATTENTION = "attn_block"
# The norms' gains and biases, a row for each class: [num_classes, 2C], or [num_classes, C] each.
EMBEDDING = "{}.embed.weight"
GAINS, BIASES = "{}.weights.weight", "{}.biases.weight"
EPSILON = 1e-5
UPSAMPLINGS = ("bilinear", "nearest")


def recognises(checkpoint: Checkpoint) -> bool:
    """Recognise the first linear layer and the first block's norm, which the discriminators do not have."""
    keys = {key.removesuffix("_orig") for key in checkpoint.stored}
    return "l1.weight" in keys and bool(keys & {"block2.b1.running_mean", "block2.b1.bn.running_mean"})


def is_projection(checkpoint: Checkpoint) -> bool:
    """Recognise pytorch.sngan_projection by its last layer."""
    return recognises(checkpoint) and any(re.fullmatch(r"conv\d{1,3}\.weight", key) for key in checkpoint.stored)


def load(checkpoint: Checkpoint, options: LoadOptions) -> SNGAN:
    """Build the generator."""
    tensors, assumptions = checkpoint.tensors, options.assumptions
    check_variances(tensors, "running_var")
    file = Assembly(tensors)
    layers = SpectralLayers(file)
    last = 1 + highest(tensors, r"block(\d{1,2})\..*")
    blocks = [f"block{number}" for number in range(2, last)]
    widths = [layers.shape("block2.c1", 4)[1], *(layers.shape(f"{name}.c2", 4)[0] for name in blocks)]
    rows, z_dim = layers.shape("l1", 2)
    width = bottom_width(file, rows, widths[0])
    tables = (table.format("block2.b1") for table in (EMBEDDING, GAINS))
    num_classes = next((file.shape(table, 2)[0] for table in tables if table in tensors), 0)
    last_conv = f"conv{last}" if is_projection(checkpoint) else f"c{last}"
    channels, _, kernel, _ = layers.shape(last_conv, 4)
    if kernel % 2 == 0:
        raise file.misfit(f"{last_conv}'s kernel has {kernel} pixels, an odd number was expected")
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
        conv = nn.Conv2d(widths[-1], channels, kernel, padding=kernel // 2)
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
    layers.add(conv, last_conv)
    return file.fill(generator, (r".*\.num_batches_tracked", r".*\.sn_sigma"))


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
    if isinstance(module, Norm):
        add_norm(file, module, name, EPSILON)
    elif isinstance(module, ConditionalNorm):
        channels = module.affine.out_features // 2
        table = (num_classes, channels)
        if GAINS.format(name) in file.tensors:
            gains, biases = (GAINS.format(name), table), (BIASES.format(name), table)
            file.layer(module, _by_class, gains=gains, biases=biases, **statistics(name, channels))
        else:
            both = (EMBEDDING.format(name), (num_classes, 2 * channels))
            file.layer(module, _halves, embedding=both, **statistics(f"{name}.bn", channels))


def _halves(embedding: Tensor, mean: Tensor, variance: Tensor) -> Parameters:
    gains, biases = embedding.chunk(2, dim=1)
    return _by_class(gains, biases, mean, variance)


def _by_class(gains: Tensor, biases: Tensor, mean: Tensor, variance: Tensor) -> Parameters:
    """Return the parameters of a norm from its gains and biases for each class, [num_classes, C]."""
    return conditional_norm(gains.T - 1, biases.T, mean, variance, EPSILON)


FORMAT = Format("torch-mimicry", recognises, load)
PROJECTION = Format("pytorch.sngan_projection", is_projection, load)
