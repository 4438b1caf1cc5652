"""ajbrock's BigGAN-PyTorch: BigGAN and BigGAN-deep, and DeepMind's BigGAN converted to it.

A bare state dict, G_ema.pth. Every size is in its shapes. Weights are divided by an estimate of their spectral norm,
half a step of power iteration from the vector that is stored beside them.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sefa.checkpoints.assumptions import Assumptions, one_of, positive
from sefa.checkpoints.checkpoint import Checkpoint, Format, LoadOptions
from sefa.checkpoints.parts.assembly import Assembly, Parameters, Stored
from sefa.checkpoints.parts.growing import highest
from sefa.checkpoints.sizes import one_hot_codes
from sefa.errors import CheckpointError
from sefa.generators.biggan import Attention, BigGAN, ConditionalNorm, Norm
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
    return _load_deep(file, options.assumptions) if _is_deep(tensors) else _load(file)


@dataclass(frozen=True)
class _File:
    """A state dict, and what all its layers have in common.

    Attributes:
        assembly: The state dict.
        spectral: Whether the weights are to be divided by their spectral norm.
        norm_epsilon: Of all batch norms but the last.
        spectral_epsilon: Of the estimate of the spectral norm.
        statistics: Key of a batch norm's stored mean or variance, given the norm's name and `mean` or `var`.
        num_blocks: How many blocks there are.
        widths: Channels of the image that `linear` makes, and of every block's.
        bottom_width: Size of the image that `linear` makes.
        attentions: The attention after a block, by the block's index.
    """

    assembly: Assembly
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
        file = Assembly(tensors)
        num_blocks = 1 + highest(tensors, r"blocks\.(\d{1,4})\..*")
        last_conv = "conv4" if _is_deep(tensors) else "conv2"
        widths = [file.shape(FIRST_CONV, 4)[1]]
        widths += [file.shape(f"{BLOCK.format(i)}.{last_conv}.weight", 4)[0] for i in range(num_blocks)]
        rows = file.shape("linear.weight", 2)[0]
        bottom_width = math.isqrt(rows // widths[0])
        if not bottom_width or widths[0] * bottom_width**2 != rows:
            raise file.misfit(f"linear.weight has {rows} rows, which are no square image of {widths[0]} channels")
        attentions = {}
        for i in range(num_blocks):
            name = ATTENTION.format(i)
            if any(key.startswith(f"{name}.") for key in tensors):
                key_dim, value_dim = (file.shape(f"{name}.{layer}.weight", 4)[0] for layer in ("theta", "g"))
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
            assembly=file,
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
        return self.assembly.shape("output_layer.2.weight", 4)[0]

    def fill(self, generator: G) -> G:
        """Add all layers but the embedding and `linear`, and fill the generator."""
        index = -1
        for layer in generator.layers:
            if isinstance(layer, Attention):
                self._add_attention(layer, ATTENTION.format(index))
                continue
            index += 1
            for part, module in layer.named_children():
                name = f"{BLOCK.format(index)}.{part}"
                if isinstance(module, ConditionalNorm):
                    self._add_conditional_norm(module, name, generator.embedding.shape[1])
                else:
                    self.add_dense(module, name)
        statistics = self._statistics("output_layer.0", generator.conv.in_channels)
        gain, bias = (("output_layer.0." + entry, (generator.conv.in_channels,)) for entry in ("gain", "bias"))
        self.assembly.layer(generator.norm, _norm, gain=gain, bias=bias, **statistics)
        self.add_dense(generator.conv, "output_layer.2")
        # The training's estimates of spectral norms, and its counters of batches.
        return self.assembly.fill(generator, (r".*\.sv0", r".*\.bn\.accumulation_counter"))

    def add_dense(self, module: nn.Module, name: str, embed_dim: int = 0) -> None:
        """Add a linear layer or a convolution; see `_dense` for `embed_dim`."""
        self.assembly.layer(
            module,
            partial(_dense, epsilon=self.spectral_epsilon, embed_dim=embed_dim),
            weight=f"{name}.weight",
            u=self._vector(name, len(module.get_parameter("weight"))),
            bias=None if module.bias is None else f"{name}.bias",
        )

    def _add_conditional_norm(self, norm: ConditionalNorm, name: str, embed_dim: int) -> None:
        channels, code_dim = norm.affine.out_features // 2, norm.affine.in_features
        by_class = "shared.weight" not in self.assembly.tensors
        shape = (code_dim, channels) if by_class else (channels, code_dim)
        self.assembly.layer(
            norm,
            partial(
                _conditional_norm,
                by_class=by_class,
                embed_dim=embed_dim,
                norm_epsilon=self.norm_epsilon,
                epsilon=self.spectral_epsilon,
            ),
            gain=(f"{name}.gain.weight", shape),
            gain_u=None if by_class else self._vector(f"{name}.gain", channels),
            bias=(f"{name}.bias.weight", shape),
            bias_u=None if by_class else self._vector(f"{name}.bias", channels),
            **self._statistics(name, channels),
        )

    def _add_attention(self, attention: Attention, name: str) -> None:
        for part in ("theta", "phi", "g"):
            self.add_dense(getattr(attention, part), f"{name}.{part}")
        self.assembly.layer(
            attention.o,
            partial(_attended, epsilon=self.spectral_epsilon),
            weight=f"{name}.o.weight",
            u=self._vector(f"{name}.o", attention.o.out_channels),
            gamma=(f"{name}.gamma", 1),
        )

    def _vector(self, name: str, outputs: int) -> Stored | None:
        """The left vector of a weight's spectral norm, if it is to be divided by it."""
        return (f"{name}.u0", (1, outputs)) if self.spectral else None

    def _statistics(self, name: str, channels: int) -> dict[str, Stored]:
        return {
            "mean": (self.statistics.format(name, "mean"), (channels,)),
            "variance": (self.statistics.format(name, "var"), (channels,)),
        }


def _is_deep(tensors: Mapping[str, Tensor]) -> bool:
    return "blocks.0.0.conv4.weight" in tensors


def _load(file: _File) -> BigGAN:
    assembly = file.assembly
    latent_dim = assembly.shape("linear.weight", 2)[1]
    gain = assembly.shape("blocks.0.0.bn1.gain.weight", 2)
    if "shared.weight" in assembly.tensors:
        num_classes, embed_dim = assembly.shape("shared.weight", 2)
        condition_dim = gain[1]
    else:
        num_classes = embed_dim = condition_dim = gain[0]
    if condition_dim not in (embed_dim, embed_dim + latent_dim):
        raise assembly.misfit(
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
    if "shared.weight" in assembly.tensors:
        assembly.layer(generator, embedding="shared.weight")
    else:
        assembly.layer(generator, partial(dict, embedding=one_hot_codes(num_classes)))
    file.add_dense(generator.linear, "linear")
    return file.fill(generator)


def _load_deep(file: _File, assumptions: Assumptions) -> BigGANDeep:
    assembly = file.assembly
    num_classes, embed_dim = assembly.shape("shared.weight", 2)
    condition_dim = assembly.shape("linear.weight", 2)[1]
    if condition_dim <= embed_dim:
        raise assembly.misfit(f"linear reads {condition_dim} numbers, {embed_dim} of the class and a latent expected")
    depth = _stage_depth(file, assumptions)
    layers: list[DeepBlockSizes | AttentionSizes] = []
    for i in range(file.num_blocks):
        hidden = assembly.shape(f"{BLOCK.format(i)}.conv1.weight", 4)[0]
        last_of_stage = (i + 1) % depth == 0
        layers.append(DeepBlockSizes(file.widths[i], hidden, file.widths[i + 1], last_of_stage))
        if i in file.attentions:
            layers.append(file.attentions[i])
    with torch.device("meta"):
        generator = BigGANDeep(
            z_dim=condition_dim - embed_dim,
            embedding_shape=(num_classes, embed_dim),
            bottom_width=file.bottom_width,
            layers=layers,
            channels=file.channels,
        )
    assembly.layer(generator, embedding="shared.weight")
    file.add_dense(generator.linear, "linear", embed_dim=embed_dim)
    return file.fill(generator)


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


def _dense(
    weight: Tensor, bias: Tensor | None = None, u: Tensor | None = None, *, epsilon: float, embed_dim: int = 0
) -> Parameters:
    """A linear layer or a convolution.

    Args:
        weight: [out, in, ..].
        bias: [out].
        u: Left vector of its spectral norm, [1, out], if it is to be divided by it.
        epsilon: Of the estimate of the spectral norm.
        embed_dim: How many of its inputs are the class's embedding, with which the file's codes begin and ours end.
    """
    weight = _normalized(weight, u, epsilon)
    if embed_dim:
        weight = weight.roll(-embed_dim, dims=1)
    return {"weight": weight} if bias is None else {"weight": weight, "bias": bias}


def _attended(weight: Tensor, gamma: Tensor, u: Tensor | None = None, *, epsilon: float) -> Parameters:
    return {"weight": _normalized(weight, u, epsilon) * gamma.reshape(())}


def _conditional_norm(
    gain: Tensor,
    bias: Tensor,
    mean: Tensor,
    variance: Tensor,
    gain_u: Tensor | None = None,
    bias_u: Tensor | None = None,
    *,
    by_class: bool,
    embed_dim: int,
    norm_epsilon: float,
    epsilon: float,
) -> Parameters:
    """A batch norm with a linear gain and bias of the code, or, if `by_class`, with a row for each class."""
    gain, bias = _normalized(gain, gain_u, epsilon), _normalized(bias, bias_u, epsilon)
    if by_class:
        gain, bias = gain.T, bias.T
    # The file's codes begin with the embedding, ours end with it.
    gain, bias = (weight.roll(-embed_dim, dims=1) for weight in (gain, bias))
    variance = variance + norm_epsilon
    return {
        "affine.weight": ConditionalNorm.folded_weight(gain, bias, mean, variance),
        "affine.bias": ConditionalNorm.folded_bias(mean, variance),
    }


def _norm(gain: Tensor, bias: Tensor, mean: Tensor, variance: Tensor) -> Parameters:
    weight, shift = Norm.fold(gain, bias, mean, variance + EPSILON)
    return {"weight": weight, "bias": shift}


def _normalized(weight: Tensor, u: Tensor | None, epsilon: float) -> Tensor:
    return weight if u is None else spectrally_normalized(weight, u, epsilon)


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
