"""The layers of PyTorch-StudioGAN's generators: linear0, the list blocks, the norm bn4, and a convolution.

In the list, attention counts as a block. A conditional norm's gain and bias are linear layers; until 2021, those that
read the class alone were tables, embed0 and embed1.
"""

from collections.abc import Mapping
from functools import partial
from typing import TypeVar

from torch import Tensor, nn

from sefa.checkpoints.assumptions import Assumptions, positive
from sefa.checkpoints.parts.activations import activation
from sefa.checkpoints.parts.assembly import Assembly, Parameters
from sefa.checkpoints.parts.biggan_layers import add_norm, bottom_width, check_variances, conditional_norm, statistics
from sefa.checkpoints.parts.growing import highest
from sefa.checkpoints.parts.spectral_norm import SpectralLayers, normalized
from sefa.generators.biggan import Attention, BigGAN, Block, ConditionalNorm, Norm
from sefa.generators.biggan_deep import AttentionSizes, BigGANDeep, DeepBlock
from sefa.generators.sngan import SNGAN, DeconvBlock

G = TypeVar("G", BigGAN, BigGANDeep, SNGAN)

LAYER = "blocks.{}.0"
FIRST = LAYER.format(0)
EMBEDDING = "shared.weight"
EPSILON = 1e-4  # of all batch norms
# Our names for a block's layers, and the file's.
PARTS = {
    Block: {"conv1": "conv2d1", "conv2": "conv2d2", "conv_sc": "conv2d0", "bn1": "bn1", "bn2": "bn2"},
    DeconvBlock: {"deconv": "deconv0", "bn": "bn0"},
    DeepBlock: {"conv_sc": "conv2d0"}
    | {f"conv{i}": f"conv2d{i}" for i in range(1, 5)}
    | {f"bn{i}": f"bn{i}" for i in range(1, 5)},
}


class StudioGANLayers:
    """The layers of a state dict, and their sizes.

    Attributes:
        assumptions: Facts from the owner.
        file: The tensors.
        weights: The tensors, where weights may have spectral norms.
        blocks: The names of the blocks that are not attention.
        attentions: The sizes of attention layers, by the index of the block before them.
        is_deconv: Whether blocks are transposed convolutions, as in DCGAN.
        is_deep: Whether blocks are those of a BigGAN-deep.
        widths: Channels of the features that `linear0` makes, then of each block's output.
        latent_dim: How many numbers `linear0` reads.
        bottom: Height and width of the image that it makes.
        condition_dim: How many numbers the blocks' norms read; 0: they are unconditional.
        has_tables: Whether the norms have a row of gains and biases for each class.
        embedding_shape: Number of classes, and length of a class embedding; zeros if there is none.
        channels: Channels of the image.
        activation: What follows each norm.
    """

    def __init__(self, tensors: Mapping[str, Tensor], assumptions: Assumptions) -> None:
        check_variances(tensors, "running_var")
        self.assumptions = assumptions
        self.file = file = Assembly(tensors)
        self.weights = weights = SpectralLayers(file)
        self.blocks: list[str] = []
        self.attentions: dict[int, AttentionSizes] = {}
        for i in range(1 + highest(tensors, r"blocks\.(\d{1,2})\..*")):
            name = LAYER.format(i)
            if f"{name}.sigma" in tensors:
                key_dim, channels, *_ = weights.shape(f"{name}.conv1x1_theta", 4)
                value_dim = weights.shape(f"{name}.conv1x1_g", 4)[0]
                self.attentions[len(self.blocks) - 1] = AttentionSizes(channels, key_dim, value_dim)
            else:
                self.blocks.append(name)
        if not self.blocks:
            raise file.misfit("it has no blocks but attention")
        self.is_deconv = weights.has(f"{FIRST}.deconv0")
        self.is_deep = weights.has(f"{FIRST}.conv2d4")
        if self.is_deconv:  # weights [in, out, k, k]
            kernels = [weights.shape(f"{name}.deconv0", 4) for name in self.blocks]
            self.widths = [kernels[0][0], *(kernel[1] for kernel in kernels)]
        else:
            last = "conv2d4" if self.is_deep else "conv2d2"
            self.widths = [weights.shape(f"{FIRST}.conv2d1", 4)[1]]
            self.widths += [weights.shape(f"{name}.{last}", 4)[0] for name in self.blocks]
        rows, self.latent_dim = weights.shape("linear0", 2)
        self.bottom = bottom_width(file, rows, self.widths[0])
        gain, table = (f"{FIRST}.{'bn0' if self.is_deconv else 'bn1'}.{name}" for name in ("gain", "embed0"))
        self.has_tables = weights.has(table)
        self.condition_dim = weights.shape(gain, 2)[1] if weights.has(gain) else 0
        if self.has_tables:
            self.condition_dim = weights.shape(table, 2)[0]
        shape = file.shape(EMBEDDING, 2) if EMBEDDING in tensors else (0, 0)
        self.embedding_shape = (shape[0], shape[1])
        self._last = "conv4" if self.is_deconv else "conv2d5"
        self.channels = weights.shape(self._last, 4)[0]
        self.activation: nn.Module = assumptions.take("activation", activation("relu"), activation)
        self._epsilon = assumptions.take("bn_eps", EPSILON, positive)
        assumptions.note(f"{type(self.activation).__name__} between", "activation")
        assumptions.note(f"batch norms' eps {self._epsilon:g}", "bn_eps")

    def fill(self, generator: G) -> G:
        """Add all layers but the first, and fill the generator."""
        if not isinstance(generator, SNGAN) and generator.embedding is not None:
            self.file.layer(generator, embedding=EMBEDDING)
        for i, layer in enumerate(generator.layers):
            name = LAYER.format(i)
            if isinstance(layer, Attention):
                self.weights.add_attention(layer, f"{name}.conv1x1_{{}}", "attn", f"{name}.sigma")
                continue
            for ours, theirs in PARTS[type(layer)].items():
                part = getattr(layer, ours)
                if isinstance(part, Norm):
                    add_norm(self.file, part, f"{name}.{theirs}", self._epsilon)
                elif isinstance(part, ConditionalNorm):
                    self._add_conditional_norm(part, f"{name}.{theirs}")
                elif part is not None:
                    self.weights.add(part, f"{name}.{theirs}")
        if isinstance(generator.norm, Norm):
            add_norm(self.file, generator.norm, "bn4", self._epsilon)
        self.weights.add(generator.conv, self._last)
        return self.file.fill(generator, (r".*\.num_batches_tracked",))

    def _add_conditional_norm(self, norm: ConditionalNorm, name: str) -> None:
        channels, codes = norm.affine.out_features // 2, norm.affine.in_features
        if self.has_tables:
            names, shape = ("embed0", "embed1"), (codes, channels)
            make = partial(_norm_by_class, epsilon=self._epsilon)
        else:
            names, shape = ("gain", "bias"), (channels, codes)
            make = partial(_conditional_norm, embed_dim=self.embedding_shape[1], epsilon=self._epsilon)
        gain, bias = (
            self.weights.weight(f"{name}.{theirs}", shape, ours)
            for theirs, ours in zip(names, ("gain", "bias"), strict=True)
        )
        self.file.layer(norm, make, **gain, **bias, **statistics(f"{name}.bn", channels))


def _conditional_norm(mean: Tensor, variance: Tensor, embed_dim: int, epsilon: float, **weights: Tensor) -> Parameters:
    """Return the parameters of a batch norm with gain and bias linear in the code; our codes end with the embedding."""
    gain, bias = (normalized(weights, name).roll(-embed_dim, dims=1) for name in ("gain", "bias"))
    return conditional_norm(gain, bias, mean, variance, epsilon)


def _norm_by_class(mean: Tensor, variance: Tensor, epsilon: float, **tables: Tensor) -> Parameters:
    """Return the parameters of a batch norm with a row of gains and a row of biases for each class."""
    gain, bias = (normalized(tables, name).T for name in ("gain", "bias"))
    return conditional_norm(gain, bias, mean, variance, epsilon)
