"""PyTorch-StudioGAN: BigGAN, BigGAN-deep in two variants, SNGAN and its descendants, and DCGAN.

A state dict, with the optimizer's beside it; the averaged generator is in a file of its own, model=G_ema-*.pth. Shapes
give every size.
"""

from functools import partial

import torch
from torch import Tensor, nn

from sefa.checkpoints.assumptions import one_of
from sefa.checkpoints.checkpoint import Checkpoint, Format, LoadOptions
from sefa.checkpoints.formats.residual.studiogan_layers import EMBEDDING, FIRST, StudioGANLayers
from sefa.checkpoints.parts.assembly import VARIANT, Parameters
from sefa.checkpoints.parts.biggan_layers import stage_depth
from sefa.checkpoints.parts.spectral_norm import dense
from sefa.errors import CheckpointError
from sefa.generators.biggan import Attention, BigGAN, Block, Norm
from sefa.generators.biggan_deep import AttentionSizes, BigGANDeep, DeepBlockSizes
from sefa.generators.sngan import SNGAN, DeconvBlock

INFO = ("info_mix_linear.", "info_proj_linear.")


def recognises(checkpoint: Checkpoint) -> bool:
    """Recognise the first linear layer, which the discriminators do not have, and the first block."""
    keys = {key.removesuffix("_orig") for key in checkpoint.stored}
    return "linear0.weight" in keys and bool(keys & {f"{FIRST}.conv2d1.weight", f"{FIRST}.deconv0.weight"})


def load(checkpoint: Checkpoint, options: LoadOptions) -> BigGAN | BigGANDeep | SNGAN:
    """Build the generator."""
    if any(key.startswith(INFO) for key in checkpoint.tensors):
        raise CheckpointError(f"its generator also reads InfoGAN's codes, of kinds that no file holds; {VARIANT}")
    layers = StudioGANLayers(checkpoint.tensors, options.assumptions)
    if layers.is_deep:
        return _biggan_deep(layers)
    return _biggan(layers) if _is_biggan(layers) else _sngan(layers)


def _is_biggan(layers: StudioGANLayers) -> bool:
    """Return whether the blocks' norms read chunks of z, rather than the one-hot class or nothing."""
    has_embedding = layers.embedding_shape[0] > 0
    if has_embedding or layers.is_deconv or layers.has_tables or layers.condition_dim != layers.latent_dim:
        return has_embedding
    # As many classes as numbers in z, or a BigGAN without classes.
    read = layers.assumptions.take("norms_read", "latent", partial(one_of, names=("latent", "label")))
    layers.assumptions.note(f"the norms read the {read}", "norms_read")
    return read == "latent"


def _biggan(layers: StudioGANLayers) -> BigGAN:
    """Build a BigGAN, whose z is split between linear0 and the blocks."""
    embed_dim = layers.embedding_shape[1]
    if layers.condition_dim != embed_dim + layers.latent_dim:
        raise layers.file.misfit(
            f"{FIRST}'s norms read {layers.condition_dim} numbers, {embed_dim} of the class and a chunk of "
            f"{layers.latent_dim} of the latent were expected"
        )
    with torch.device("meta"):
        generator = BigGAN(
            latent_dim=layers.latent_dim,
            embedding_shape=layers.embedding_shape,
            bottom_width=layers.bottom,
            widths=layers.widths,
            attentions={i: (sizes.key_dim, sizes.value_dim) for i, sizes in layers.attentions.items()},
            channels=layers.channels,
            hierarchical=True,
            activation=layers.activation,
        )
    layers.weights.add(generator.linear, "linear0")
    return layers.fill(generator)


def _biggan_deep(layers: StudioGANLayers) -> BigGANDeep:
    """Build a BigGAN-deep, all of whose layers read the class and all of z."""
    num_classes, embed_dim = layers.file.shape(EMBEDDING, 2)
    z_dim = layers.latent_dim - embed_dim
    if z_dim <= 0:
        raise layers.file.misfit(f"linear0 reads {layers.latent_dim} numbers, {embed_dim} of them of the class")
    depth = stage_depth(layers.widths, layers.attentions, layers.assumptions)
    sizes: list[DeepBlockSizes | AttentionSizes] = []
    for i, name in enumerate(layers.blocks):
        hidden = layers.weights.shape(f"{name}.conv2d1", 4)[0]
        projects = layers.weights.has(f"{name}.conv2d0")
        sizes.append(
            DeepBlockSizes(layers.widths[i], hidden, layers.widths[i + 1], (i + 1) % depth == 0, projects=projects)
        )
        if i in layers.attentions:
            sizes.append(layers.attentions[i])
    with torch.device("meta"):
        generator = BigGANDeep(
            z_dim, (num_classes, embed_dim), layers.bottom, sizes, layers.channels, activation=layers.activation
        )
    layers.weights.add(generator.linear, "linear0", partial(_behind_z, embed_dim=embed_dim))
    return layers.fill(generator)


def _sngan(layers: StudioGANLayers) -> SNGAN:
    """Build an SNGAN or a DCGAN, whose norms read the one-hot class, if there are classes."""
    kind = DeconvBlock if layers.is_deconv else Block
    with torch.device("meta"):
        modules: list[Block | DeconvBlock | Attention] = []
        for i in range(len(layers.blocks)):
            modules.append(kind(layers.widths[i], layers.widths[i + 1], layers.condition_dim, layers.activation))
            if i in layers.attentions:
                sizes = layers.attentions[i]
                modules.append(Attention(sizes.channels, sizes.key_dim, sizes.value_dim))
        generator = SNGAN(
            layers.latent_dim,
            layers.condition_dim,
            (layers.widths[0], layers.bottom, layers.bottom),
            modules,
            None if layers.is_deconv else Norm(layers.widths[-1]),
            nn.Conv2d(layers.widths[-1], layers.channels, 3, padding=1),
            layers.activation,
        )
    layers.weights.add(generator.linear, "linear0")
    return layers.fill(generator)


def _behind_z(embed_dim: int, **tensors: Tensor) -> Parameters:
    """Return a linear layer's parameters with the columns of the class embedding, the file's first, put last."""
    parameters = dense(**tensors)
    return {**parameters, "weight": parameters["weight"].roll(-embed_dim, dims=1)}


FORMAT = Format("PyTorch-StudioGAN", recognises, load)
