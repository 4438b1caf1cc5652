"""ajbrock's BigGAN-PyTorch: BigGAN and BigGAN-deep, and DeepMind's BigGAN converted to it.

A bare state dict, G_ema.pth, whose shapes give every size. Weights are divided by an estimate of their spectral norm:
half a step of power iteration from the vector stored beside them.
"""

from collections.abc import Container, Mapping
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor, nn

from sefa.checkpoints.assumptions import Assumptions, positive
from sefa.checkpoints.checkpoint import Checkpoint, Format, LoadOptions
from sefa.checkpoints.parts.assembly import Assembly, Parameters, Stored
from sefa.checkpoints.parts.biggan_layers import bottom_width, check_variances, conditional_norm, norm, stage_depth
from sefa.checkpoints.parts.growing import highest
from sefa.checkpoints.parts.spectral_norm import spectrally_normalized
from sefa.checkpoints.sizes import one_hot_codes
from sefa.errors import CheckpointError
from sefa.generators.biggan import Attention, BigGAN, ConditionalNorm
from sefa.generators.biggan_deep import AttentionSizes, BigGANDeep, DeepBlockSizes

G = TypeVar("G", BigGAN, BigGANDeep)

BLOCK = "blocks.{}.0"
ATTENTION = "blocks.{}.1"
FIRST_CONV = "blocks.0.0.conv1.weight"
EPSILON = 1e-5  # of batch norms; the last one always has this value
SPECTRAL_EPSILON = 1e-12
CONVERTED_EPSILON = 1e-4  # of both, in DeepMind's weights


def recognises(checkpoint: Checkpoint) -> bool:
    """Recognise blocks in lists of layers, including those of a discriminator, which `load` refuses."""
    tensors = checkpoint.stored
    return FIRST_CONV in tensors and ("linear.weight" in tensors or "output_layer.0.gain" in tensors)


def load(checkpoint: Checkpoint, options: LoadOptions) -> BigGAN | BigGANDeep:
    """Build the generator."""
    tensors = checkpoint.tensors
    if not any(key.startswith("output_layer.") for key in tensors):
        raise CheckpointError("this is a discriminator, the generator's G_ema.pth is needed")
    reader = Reader(tensors, options.assumptions)
    options.assumptions.note("ReLU")
    return reader.biggan_deep() if _is_deep(tensors) else reader.biggan()


def _is_deep(tensors: Container[str]) -> bool:
    return "blocks.0.0.conv4.weight" in tensors


class Reader:
    """The layers of a state dict.

    Args:
        tensors: The state dict, with this format's names.
        assumptions: Facts from the owner, and a record of what was assumed.
        spectral_epsilon: The usual epsilon of the spectral norms, unless it is this format's.

    Raises:
        CheckpointError: If its keys are not a generator's, or of a kind that is not supported.
    """

    def __init__(
        self, tensors: Mapping[str, Tensor], assumptions: Assumptions, spectral_epsilon: float | None = None
    ) -> None:
        if any(key.endswith(".bn.running_mean") for key in tensors):
            raise CheckpointError(
                "its batch norms are the cross-replica ones, whose inference in the original adds the gain "
                "instead of multiplying by it; train or convert without cross_replica"
            )
        check_variances(tensors, "stored_var")
        self.assumptions = assumptions
        self.file = file = Assembly(tensors)
        self.num_blocks = 1 + highest(tensors, r"blocks\.(\d{1,2})\..*")
        last_conv = "conv4" if _is_deep(tensors) else "conv2"
        # Channels of the features that `linear` makes, then of each block's output.
        self.widths = [file.shape(FIRST_CONV, 4)[1]]
        self.widths += [file.shape(f"{BLOCK.format(i)}.{last_conv}.weight", 4)[0] for i in range(self.num_blocks)]
        rows = file.shape("linear.weight", 2)[0]
        self.bottom_width = bottom_width(file, rows, self.widths[0])
        self.channels = file.shape("output_layer.2.weight", 4)[0]
        self.attentions = {
            i: AttentionSizes(
                self.widths[i + 1],
                key_dim=file.shape(f"{ATTENTION.format(i)}.theta.weight", 4)[0],
                value_dim=file.shape(f"{ATTENTION.format(i)}.g.weight", 4)[0],
            )
            for i in range(self.num_blocks)
            if any(key.startswith(f"{ATTENTION.format(i)}.") for key in tensors)
        }
        # Whether weights are to be divided by their spectral norm.
        self.spectral = any(key.endswith(".u0") for key in tensors)
        converted = self.spectral and not any(key.endswith(".sv0") for key in tensors)
        usual = CONVERTED_EPSILON if converted else SPECTRAL_EPSILON
        self.norm_epsilon = assumptions.take("bn_eps", CONVERTED_EPSILON if converted else EPSILON, positive)
        self.spectral_epsilon = assumptions.take("sn_eps", spectral_epsilon or usual, positive)
        assumptions.note(f"batch norms' eps {self.norm_epsilon:g}", "bn_eps")
        if self.spectral:
            assumptions.note(f"spectral norms' eps {self.spectral_epsilon:g}", "sn_eps")
        # Below `bn` in files trained with the code's own batch norm instead of torch's.
        self.statistics = "{}.bn.stored_{}" if "blocks.0.0.bn1.bn.stored_mean" in tensors else "{}.stored_{}"
        self.shares_embedding = "shared.weight" in tensors  # Otherwise norms have one row per class.

    def biggan(self) -> BigGAN:
        """Build a BigGAN."""
        latent_dim = self.file.shape("linear.weight", 2)[1]
        gain = self.file.shape("blocks.0.0.bn1.gain.weight", 2)
        num_classes, embed_dim = self.file.shape("shared.weight", 2) if self.shares_embedding else (gain[0], gain[0])
        condition_dim = gain[1] if self.shares_embedding else embed_dim
        if condition_dim not in (embed_dim, embed_dim + latent_dim):
            raise self.file.misfit(
                f"blocks.0.0.bn1 reads {condition_dim} numbers, {embed_dim} of the class were expected, "
                f"or as many and a chunk of {latent_dim} of the latent"
            )
        with torch.device("meta"):
            generator = BigGAN(
                latent_dim=latent_dim,
                embedding_shape=(num_classes, embed_dim),
                bottom_width=self.bottom_width,
                widths=self.widths,
                attentions={i: (sizes.key_dim, sizes.value_dim) for i, sizes in self.attentions.items()},
                channels=self.channels,
                hierarchical=condition_dim > embed_dim,
            )
        if not self.shares_embedding:
            self.file.layer(generator, partial(dict, embedding=one_hot_codes(num_classes)))
        self._add_dense(generator.linear, "linear")
        return self._fill(generator)

    def biggan_deep(self, told_depth: int | None = None) -> BigGANDeep:
        """Build a BigGAN-deep; `told_depth` is what the file says of the blocks in a stage."""
        num_classes, embed_dim = self.file.shape("shared.weight", 2)
        condition_dim = self.file.shape("linear.weight", 2)[1]
        if condition_dim <= embed_dim:
            raise self.file.misfit(
                f"linear reads {condition_dim} numbers, {embed_dim} of the class and a latent expected"
            )
        depth = stage_depth(self.widths, self.attentions, self.assumptions, told_depth)
        layers: list[DeepBlockSizes | AttentionSizes] = []
        for i in range(self.num_blocks):
            hidden = self.file.shape(f"{BLOCK.format(i)}.conv1.weight", 4)[0]
            layers.append(DeepBlockSizes(self.widths[i], hidden, self.widths[i + 1], doubles=(i + 1) % depth == 0))
            if i in self.attentions:
                layers.append(self.attentions[i])
        z_dim = condition_dim - embed_dim
        with torch.device("meta"):
            generator = BigGANDeep(z_dim, (num_classes, embed_dim), self.bottom_width, layers, self.channels)
        self._add_dense(generator.linear, "linear", embed_dim)
        return self._fill(generator)

    def _fill(self, generator: G) -> G:
        """Add the layers that BigGAN and BigGAN-deep share, and fill the generator."""
        if self.shares_embedding:
            self.file.layer(generator, embedding="shared.weight")
        index = -1
        for layer in generator.layers:
            if isinstance(layer, Attention):
                self._add_attention(layer, ATTENTION.format(index))
                continue
            index += 1
            for part, module in layer.named_children():
                name = f"{BLOCK.format(index)}.{part}"
                if isinstance(module, ConditionalNorm):
                    self._add_conditional_norm(module, name, generator.class_dim)
                else:
                    self._add_dense(module, name)
        shape = (self.widths[-1],)
        gain, bias = ("output_layer.0.gain", shape), ("output_layer.0.bias", shape)
        make = partial(norm, epsilon=EPSILON)
        self.file.layer(generator.norm, make, gain=gain, bias=bias, **self._statistics("output_layer.0", shape))
        self._add_dense(generator.conv, "output_layer.2")
        # Ignored: the training's estimates of spectral norms, and its counters of batches.
        return self.file.fill(generator, (r".*\.sv0", r".*\.bn\.accumulation_counter"))

    def _add_dense(self, module: nn.Module, name: str, embed_dim: int = 0) -> None:
        """Add a linear layer or a convolution; see `_dense` for `embed_dim`."""
        self.file.layer(
            module,
            partial(_dense, epsilon=self.spectral_epsilon, embed_dim=embed_dim),
            weight=f"{name}.weight",
            u=self._vector(name, len(module.get_parameter("weight"))),
            bias=None if module.bias is None else f"{name}.bias",
        )

    def _add_conditional_norm(self, norm: ConditionalNorm, name: str, embed_dim: int) -> None:
        channels, code_dim = norm.affine.out_features // 2, norm.affine.in_features
        if self.shares_embedding:
            make = partial(_conditional_norm, embed_dim=embed_dim, epsilon=self.spectral_epsilon)
            vectors = {f"{which}_u": self._vector(f"{name}.{which}", channels) for which in ("gain", "bias")}
            shape = (channels, code_dim)
        else:
            make, vectors, shape = partial(_norm_by_class), {}, (code_dim, channels)
        self.file.layer(
            norm,
            partial(make, norm_epsilon=self.norm_epsilon),
            gain=(f"{name}.gain.weight", shape),
            bias=(f"{name}.bias.weight", shape),
            **vectors,
            **self._statistics(name, (channels,)),
        )

    def _add_attention(self, attention: Attention, name: str) -> None:
        for part in ("theta", "phi", "g"):
            self._add_dense(getattr(attention, part), f"{name}.{part}")
        self.file.layer(
            attention.o,
            partial(_attended, epsilon=self.spectral_epsilon),
            weight=f"{name}.o.weight",
            u=self._vector(f"{name}.o", attention.o.out_channels),
            gamma=(f"{name}.gamma", 1),
        )

    def _vector(self, name: str, outputs: int) -> Stored | None:
        """Return where the left vector of a weight's spectral norm is; None if the file has no such vectors."""
        return (f"{name}.u0", (1, outputs)) if self.spectral else None

    def _statistics(self, name: str, shape: tuple[int, ...]) -> dict[str, Stored]:
        mean, variance = (self.statistics.format(name, which) for which in ("mean", "var"))
        return {"mean": (mean, shape), "variance": (variance, shape)}


def _dense(
    weight: Tensor, bias: Tensor | None = None, u: Tensor | None = None, *, epsilon: float, embed_dim: int = 0
) -> Parameters:
    """Return the parameters of a linear layer or a convolution.

    Args:
        weight: [out, in, ..].
        bias: [out].
        u: Left vector of the weight's spectral norm, [1, out], if the weight is to be divided by that norm.
        epsilon: Epsilon of the estimate of the spectral norm.
        embed_dim: How many inputs are the class embedding, which begins the file's codes and ends ours.
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
    embed_dim: int,
    epsilon: float,
    norm_epsilon: float,
) -> Parameters:
    """Return the parameters of a batch norm with gain and bias linear in the code; our codes end with the embedding."""
    gain = _normalized(gain, gain_u, epsilon).roll(-embed_dim, dims=1)
    bias = _normalized(bias, bias_u, epsilon).roll(-embed_dim, dims=1)
    return conditional_norm(gain, bias, mean, variance, norm_epsilon)


def _norm_by_class(gain: Tensor, bias: Tensor, mean: Tensor, variance: Tensor, norm_epsilon: float) -> Parameters:
    """Return the parameters of a batch norm with a row of gains and a row of biases for each class."""
    return conditional_norm(gain.T, bias.T, mean, variance, norm_epsilon)


def _normalized(weight: Tensor, u: Tensor | None, epsilon: float) -> Tensor:
    return weight if u is None else spectrally_normalized(weight, u, epsilon)


FORMAT = Format("BigGAN-PyTorch", recognises, load)
