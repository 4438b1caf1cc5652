"""ajbrock's BigGAN-PyTorch: BigGAN and BigGAN-deep, and DeepMind's BigGAN converted to it.

A bare state dict, G_ema.pth. Every size is in its shapes. Weights are divided by an estimate of their spectral norm,
half a step of power iteration from the vector that is stored beside them.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor
from torch.nn import functional as F

from sefa.checkpoints.assumptions import Assumptions, one_of, positive
from sefa.checkpoints.checkpoint import Checkpoint, Format, LoadOptions
from sefa.checkpoints.parts.assembly import Plan, Source, assemble, combine, shape_of, source
from sefa.checkpoints.sizes import one_hot_codes
from sefa.errors import CheckpointError
from sefa.generators.biggan import BigGAN, ConditionalNorm, Norm
from sefa.generators.biggan_deep import AttentionSizes, BigGANDeep, DeepBlockSizes

G = TypeVar("G", BigGAN, BigGANDeep)

BLOCK = "blocks.{}.0"
ATTENTION = "blocks.{}.1"
FIRST_CONV = "blocks.0.0.conv1.weight"
EPSILON = 1e-5  # of batch norms, and of the last one always
SPECTRAL_EPSILON = 1e-12
CONVERTED_EPSILON = 1e-4  # of both, in DeepMind's weights
# Channels that the stages give, in multiples of the last, by which the original's BigGAN-deep sizes are known.
ARCHITECTURES = {
    (1, 1, 1, 1),
    (8, 8, 4, 2, 1),
    (16, 16, 8, 4, 2, 1),
    (16, 16, 8, 8, 4, 2, 1),
    (16, 16, 8, 8, 4, 2, 1, 1),
}
USUAL_DEPTH = 2  # blocks in a stage of BigGAN-deep


def recognises(checkpoint: Checkpoint) -> bool:
    """Blocks in lists of layers, between a linear and an output layer; a discriminator, which `load` names, too."""
    tensors = checkpoint.stored
    return FIRST_CONV in tensors and ("linear.weight" in tensors or "output_layer.0.gain" in tensors)


def load(checkpoint: Checkpoint, options: LoadOptions) -> BigGAN | BigGANDeep:
    """Build the generator."""
    tensors = checkpoint.tensors
    if not any(key.startswith("output_layer.") for key in tensors):
        raise CheckpointError("this is a discriminator, the generator's G_ema.pth is needed")
    file = _File.of(tensors, options.assumptions)
    options.assumptions.note("ReLU")
    return _load_deep(file, options.assumptions) if "blocks.0.0.conv4.weight" in tensors else _load(file)


@dataclass(frozen=True)
class _File:
    """A state dict, and what all its layers have in common.

    Attributes:
        tensors: The state dict.
        spectral: Whether the weights are to be divided by their spectral norm.
        norm_epsilon: Of all batch norms but the last.
        spectral_epsilon: Of the estimate of the spectral norm.
        statistics: Key of a batch norm's stored mean or variance, given the norm's name and `mean` or `var`.
        num_blocks: How many blocks there are.
        widths: Channels of the image that `linear` makes, and of every block's.
        bottom_width: Size of the image that `linear` makes.
        attentions: The attention after a block, by the block's index.
    """

    tensors: Mapping[str, Tensor]
    spectral: bool
    norm_epsilon: float
    spectral_epsilon: float
    statistics: str
    num_blocks: int
    widths: tuple[int, ...]
    bottom_width: int
    attentions: dict[int, AttentionSizes]

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor], assumptions: Assumptions) -> "_File":
        """Look at the keys and shapes.

        Raises:
            CheckpointError: If they are not a generator's, or of a kind that is not supported.
        """
        if any(key.endswith(".bn.running_mean") for key in tensors):
            raise CheckpointError(
                "its batch norms are the cross-replica ones, whose inference in the original adds the gain "
                "instead of multiplying by it; train or convert without cross_replica"
            )
        for key, tensor in tensors.items():
            if key.endswith("stored_var") and tensor.min() < 0:
                raise CheckpointError(f"{key} has negative variances, which no training gives")
        deep = "blocks.0.0.conv4.weight" in tensors
        num_blocks = 1 + max(int(match[1]) for key in tensors if (match := re.match(r"blocks\.(\d+)\.", key)))
        last_conv = "conv4" if deep else "conv2"
        widths = [shape_of(tensors, FIRST_CONV, 4)[1]]
        widths += [shape_of(tensors, f"{BLOCK.format(i)}.{last_conv}.weight", 4)[0] for i in range(num_blocks)]
        rows = shape_of(tensors, "linear.weight", 2)[0]
        bottom_width = math.isqrt(rows // widths[0])
        if not bottom_width or widths[0] * bottom_width**2 != rows:
            raise CheckpointError(f"linear.weight has {rows} rows, which are no square image of {widths[0]} channels")
        attentions = {}
        for i in range(num_blocks):
            name = ATTENTION.format(i)
            if any(key.startswith(f"{name}.") for key in tensors):
                key_dim, value_dim = (shape_of(tensors, f"{name}.{layer}.weight", 4)[0] for layer in ("theta", "g"))
                attentions[i] = AttentionSizes(widths[i + 1], key_dim, value_dim)
        spectral = any(key.endswith(".u0") for key in tensors)
        converted = spectral and not any(key.endswith(".sv0") for key in tensors)
        norm_epsilon = assumptions.take("bn_eps", CONVERTED_EPSILON if converted else EPSILON, positive)
        usual = CONVERTED_EPSILON if converted else SPECTRAL_EPSILON
        spectral_epsilon = assumptions.take("sn_eps", usual, positive)
        assumptions.note(f"batch norms' eps {norm_epsilon:g}", "bn_eps")
        if spectral:
            assumptions.note(f"spectral norms' eps {spectral_epsilon:g}", "sn_eps")
        return cls(
            tensors=tensors,
            spectral=spectral,
            norm_epsilon=norm_epsilon,
            spectral_epsilon=spectral_epsilon,
            # Under `bn` in files that were trained with the code's own batch norm in place of torch's.
            statistics="{}.bn.stored_{}" if "blocks.0.0.bn1.bn.stored_mean" in tensors else "{}.stored_{}",
            num_blocks=num_blocks,
            widths=tuple(widths),
            bottom_width=bottom_width,
            attentions=attentions,
        )

    @property
    def channels(self) -> int:
        """Channels of the image."""
        return shape_of(self.tensors, "output_layer.2.weight", 4)[0]

    def assemble(self, generator: G, plan: Plan) -> G:
        """Fill the generator; see `sefa.checkpoints.parts.assembly.assemble`."""
        # The training's estimates of spectral norms, and its counters of batches.
        return assemble(generator, plan, self.tensors, (r".*\.sv0", r".*\.bn\.accumulation_counter"))

    def weight(self, name: str) -> Source:
        """A layer's effective weight."""
        if not self.spectral:
            return source(f"{name}.weight")
        convert = partial(spectrally_normalized, epsilon=self.spectral_epsilon)
        return source(f"{name}.weight", f"{name}.u0", convert=convert)

    def conv(self, ours: str, name: str) -> dict[str, Source]:
        """The plan of a convolution with a bias."""
        return {f"{ours}.weight": self.weight(name), f"{ours}.bias": source(f"{name}.bias")}

    def conditional_norm(self, ours: str, name: str, embed_dim: int) -> dict[str, Source]:
        """The plan of a `ConditionalNorm`; the file's codes begin with the embedding, ours end with it."""
        if "shared.weight" in self.tensors:
            gain, bias = self.weight(f"{name}.gain"), self.weight(f"{name}.bias")
        else:  # A row for each class.
            gain, bias = (source(f"{name}.{which}.weight", convert=torch.t) for which in ("gain", "bias"))
        mean, variance = self._statistics(name, self.norm_epsilon)

        def fold(gain: Tensor, bias: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
            gain, bias = (weight.roll(-embed_dim, dims=1) for weight in (gain, bias))
            return ConditionalNorm.folded_weight(gain, bias, mean, variance)

        return {
            f"{ours}.affine.weight": combine(gain, bias, mean, variance, convert=fold),
            f"{ours}.affine.bias": combine(mean, variance, convert=ConditionalNorm.folded_bias),
        }

    def attention(self, ours: str, name: str) -> dict[str, Source]:
        """The plan of an `Attention`."""
        plan = {f"{ours}.{layer}.weight": self.weight(f"{name}.{layer}") for layer in ("theta", "phi", "g")}
        plan[f"{ours}.o.weight"] = combine(self.weight(f"{name}.o"), source(f"{name}.gamma"), convert=torch.mul)
        return plan

    def ends(self) -> dict[str, Source]:
        """The plan of what comes before and after the blocks, but for the weight of `linear`."""
        name = "output_layer.0"
        parts = (source(f"{name}.gain"), source(f"{name}.bias"), *self._statistics(name, EPSILON))
        return {
            "linear.bias": source("linear.bias"),
            "norm.weight": combine(*parts, convert=lambda *parts: Norm.fold(*parts)[0]),
            "norm.bias": combine(*parts, convert=lambda *parts: Norm.fold(*parts)[1]),
            **self.conv("conv", "output_layer.2"),
        }

    def _statistics(self, name: str, epsilon: float) -> tuple[Source, Source]:
        """Mean and variance of a norm, epsilon included."""
        return (
            source(self.statistics.format(name, "mean")),
            source(self.statistics.format(name, "var"), convert=lambda variance: variance + epsilon),
        )


def _load(file: _File) -> BigGAN:
    tensors = file.tensors
    latent_dim = shape_of(tensors, "linear.weight", 2)[1]
    gain = shape_of(tensors, "blocks.0.0.bn1.gain.weight", 2)
    if "shared.weight" in tensors:
        num_classes, embed_dim = shape_of(tensors, "shared.weight", 2)
        condition_dim = gain[1]
        embedding = source("shared.weight")
    else:
        num_classes = embed_dim = condition_dim = gain[0]
        embedding = source("blocks.0.0.bn1.gain.weight", convert=lambda rows: one_hot_codes(len(rows)))
    if condition_dim not in (embed_dim, embed_dim + latent_dim):
        raise CheckpointError(
            f"blocks.0.0.bn1 reads {condition_dim} numbers, {embed_dim} of the class were expected, "
            f"or as many and a chunk of {latent_dim} of the latent"
        )
    with torch.device("meta"):
        generator = BigGAN(
            latent_dim=latent_dim,
            embedding_shape=(num_classes, embed_dim),
            bottom_width=file.bottom_width,
            widths=file.widths,
            attentions={i: (sizes.key_dim, sizes.value_dim) for i, sizes in file.attentions.items()},
            channels=file.channels,
            hierarchical=condition_dim > embed_dim,
        )
    plan = {"embedding": embedding, "linear.weight": file.weight("linear"), **file.ends()}
    layer = 0
    for i in range(file.num_blocks):
        ours, name = f"layers.{layer}", BLOCK.format(i)
        layer += 1
        for conv in ("conv1", "conv2", "conv_sc"):
            plan |= file.conv(f"{ours}.{conv}", f"{name}.{conv}")
        for norm in ("bn1", "bn2"):
            plan |= file.conditional_norm(f"{ours}.{norm}", f"{name}.{norm}", embed_dim)
        if i in file.attentions:
            plan |= file.attention(f"layers.{layer}", ATTENTION.format(i))
            layer += 1
    return file.assemble(generator, plan)


def _load_deep(file: _File, assumptions: Assumptions) -> BigGANDeep:
    tensors = file.tensors
    num_classes, embed_dim = shape_of(tensors, "shared.weight", 2)
    condition_dim = shape_of(tensors, "linear.weight", 2)[1]
    if condition_dim <= embed_dim:
        raise CheckpointError(f"linear reads {condition_dim} numbers, {embed_dim} of the class and a latent expected")
    depth = _stage_depth(file, assumptions)
    layers: list[DeepBlockSizes | AttentionSizes] = []
    plan = {
        "embedding": source("shared.weight"),
        "linear.weight": combine(file.weight("linear"), convert=lambda weight: weight.roll(-embed_dim, dims=1)),
        **file.ends(),
    }
    for i in range(file.num_blocks):
        ours, name = f"layers.{len(layers)}", BLOCK.format(i)
        for conv in ("conv1", "conv2", "conv3", "conv4"):
            plan |= file.conv(f"{ours}.{conv}", f"{name}.{conv}")
        for norm in ("bn1", "bn2", "bn3", "bn4"):
            plan |= file.conditional_norm(f"{ours}.{norm}", f"{name}.{norm}", embed_dim)
        hidden = shape_of(tensors, f"{name}.conv1.weight", 4)[0]
        last_of_stage = (i + 1) % depth == 0
        layers.append(DeepBlockSizes(file.widths[i], hidden, file.widths[i + 1], last_of_stage))
        if i in file.attentions:
            plan |= file.attention(f"layers.{len(layers)}", ATTENTION.format(i))
            layers.append(file.attentions[i])
    with torch.device("meta"):
        generator = BigGANDeep(
            z_dim=condition_dim - embed_dim,
            embedding_shape=(num_classes, embed_dim),
            bottom_width=file.bottom_width,
            layers=layers,
            channels=file.channels,
        )
    return file.assemble(generator, plan)


def _stage_depth(file: _File, assumptions: Assumptions) -> int:
    """How many blocks make a stage, the last of which doubles the size and may drop channels.

    No tensor's shape tells it, but where channels drop or attention stands, a stage ends.
    """
    widths = file.widths
    growing = [i for i in range(file.num_blocks) if widths[i + 1] > widths[i]]
    if growing:
        raise CheckpointError(f"block {growing[0]} gives {widths[growing[0] + 1]} channels of {widths[growing[0]]}")
    dropping = [i + 1 for i in range(file.num_blocks) if widths[i + 1] < widths[i]]
    common = math.gcd(file.num_blocks, *dropping, *(i + 1 for i in file.attentions))
    depths = [depth for depth in range(1, common + 1) if common % depth == 0]
    known = [depth for depth in depths if tuple(width / widths[-1] for width in widths[::depth]) in ARCHITECTURES]
    usual = known[0] if known else USUAL_DEPTH if USUAL_DEPTH in depths else common
    depth = assumptions.take("depth", usual, lambda text: int(one_of(text, list(map(str, depths)))))
    assumptions.note(f"{depth} blocks in a stage", "depth")
    return depth


def spectrally_normalized(weight: Tensor, u: Tensor, epsilon: float) -> Tensor:
    """A weight divided by the estimate of its largest singular value that a stored left vector [1, out] gives."""
    W = weight.flatten(1).double()  # [out, in·kh·kw]
    v = F.normalize(u.double() @ W, dim=1, eps=epsilon)  # [1, in·kh·kw]
    Wv = v @ W.T  # [1, out]
    sigma = (F.normalize(Wv, dim=1, eps=epsilon) * Wv).sum()
    if sigma <= 0:
        raise CheckpointError(f"a weight of shape {list(weight.shape)} has no spectral norm: its values are all zero")
    return (weight / sigma).float()


FORMAT = Format("BigGAN-PyTorch", recognises, load)
