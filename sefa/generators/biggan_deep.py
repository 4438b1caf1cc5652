"""BigGAN-deep: bottleneck blocks whose batch norms all read the whole latent and the class.

Source: Brock, Donahue & Simonyan, "Large Scale GAN Training for High Fidelity Natural Image Synthesis", ICLR 2019,
figure 16.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sefa.errors import ArgumentError
from sefa.generators.biggan import Activation, Attention, ConditionalNorm, Norm
from sefa.generators.common.progressive import enlarge
from sefa.generators.common.scaling import scale_and_shift
from sefa.generators.generator import Generator, Truncation

# A float32 truncation is taken to be a rounded decimal number with at most six decimals.
DECIMALS = 6


@dataclass(frozen=True)
class DeepBlockSizes:
    """The sizes of one block.

    Attributes:
        in_channels: Input channels.
        hidden_channels: Channels between the 1x1 convolutions.
        out_channels: Output channels, at most `in_channels`.
        doubles: Whether the block doubles height and width.
        projects: Whether the shortcut is a 1x1 convolution, instead of the first `out_channels` of the input.
    """

    in_channels: int
    hidden_channels: int
    out_channels: int
    doubles: bool
    projects: bool = False


@dataclass(frozen=True)
class AttentionSizes:
    """The sizes of a self-attention layer."""

    channels: int
    key_dim: int
    value_dim: int


class SelectedConditionalNorm(nn.Module):
    """A conditional batch norm that keeps several rows of statistics, weighted by the code's last entries.

    (x - mean) / std · (1 + gain(y)) + bias(y), where the code consists of y and the weights s of the rows:
    mean = s·means, std² = s·variances, epsilon included.
    """

    def __init__(self, channels: int, condition_dim: int, rows: int) -> None:
        super().__init__()
        self.condition_dim = condition_dim
        self.affine = nn.Linear(condition_dim, 2 * channels)  # 1 + gain and bias
        self.statistics = nn.Linear(rows, 2 * channels, bias=False)  # variance and mean

    def gain_and_bias(self) -> Tensor:
        """Return the weights of gain(y) and bias(y), [2C, D], with zeros for the row weights s, which are not in y."""
        return F.pad(self.affine.weight, (0, self.statistics.in_features))

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        """[N, C, H, W] and [N, D] -> [N, C, H, W]."""
        gain, bias = self.affine(code[:, : self.condition_dim]).chunk(2, dim=1)  # [N, C] each
        return normalize(x, gain, bias, self.statistics(code[:, self.condition_dim :]))


class SelectedNorm(nn.Module):
    """An unconditional batch norm with several rows of statistics: see `SelectedConditionalNorm`."""

    def __init__(self, channels: int, rows: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels))
        self.bias = nn.Parameter(torch.empty(channels))
        self.statistics = nn.Linear(rows, 2 * channels, bias=False)  # variance and mean

    def forward(self, x: Tensor, selection: Tensor) -> Tensor:
        """[N, C, H, W] and [N, rows] -> [N, C, H, W]."""
        return normalize(x, self.weight, self.bias, self.statistics(selection))


def normalize(x: Tensor, gain: Tensor, bias: Tensor, statistics: Tensor) -> Tensor:
    """Return (x - mean) / √variance · gain + bias; x [N, C, H, W], gain and bias [N, C] or [C], statistics [N, 2C]."""
    variance, mean = statistics.chunk(2, dim=1)  # [N, C] each
    factor = gain * variance.rsqrt()
    return scale_and_shift(x, factor, bias - mean * factor)


class DeepBlock(nn.Module):
    """A residual block of four convolutions, the outer ones 1x1, whose shortcut drops channels or is a fifth.

    Args:
        sizes: The block's sizes.
        condition_dim: Length of the condition: latent and class embedding.
        rows: How many rows of statistics each norm has; 1: the statistics are constants.
        activation: What follows each norm.
    """

    def __init__(self, sizes: DeepBlockSizes, condition_dim: int, rows: int, activation: Activation = F.relu) -> None:
        super().__init__()
        hidden = sizes.hidden_channels

        def norm(channels: int) -> nn.Module:
            if rows == 1:
                return ConditionalNorm(channels, condition_dim)
            return SelectedConditionalNorm(channels, condition_dim, rows)

        self.doubles = sizes.doubles
        self.out_channels = sizes.out_channels
        self.bn1 = norm(sizes.in_channels)
        self.conv1 = nn.Conv2d(sizes.in_channels, hidden, 1)
        self.bn2 = norm(hidden)
        self.conv2 = nn.Conv2d(hidden, hidden, 3, padding=1)
        self.bn3 = norm(hidden)
        self.conv3 = nn.Conv2d(hidden, hidden, 3, padding=1)
        self.bn4 = norm(hidden)
        self.conv4 = nn.Conv2d(hidden, sizes.out_channels, 1)
        self.conv_sc = nn.Conv2d(sizes.in_channels, sizes.out_channels, 1) if sizes.projects else None
        self._activation = activation

    def forward(self, h: Tensor, code: Tensor) -> Tensor:
        """[N, C, H, W] and [N, D] -> [N, C', H, W], or twice that size."""
        a = self.conv1(self._activation(self.bn1(h, code)))
        a = self._activation(self.bn2(a, code))
        a = self.conv2(enlarge(a, 2) if self.doubles else a)
        a = self.conv3(self._activation(self.bn3(a, code)))
        a = self.conv4(self._activation(self.bn4(a, code)))
        shortcut = h[:, : self.out_channels] if self.conv_sc is None else self.conv_sc(h)
        summed: Tensor = a + (enlarge(shortcut, 2) if self.doubles else shortcut)
        return summed

    def gain_and_bias(self) -> Tensor:
        """Return the weights through which the block's norms read the code, [rows, D]."""
        weights = []
        for norm in (self.bn1, self.bn2, self.bn3, self.bn4):
            assert isinstance(norm, ConditionalNorm | SelectedConditionalNorm)
            weights.append(norm.gain_and_bias())
        return torch.cat(weights)


class BigGANDeep(Generator):
    """The generator of a BigGAN-deep of any size.

        h = linear(code) as an image;  h = block(h, code) or attention(h);  image = tanh(conv(relu(norm(h))))

    Layer 0 is `linear`, layer i + 1 the i-th block. All layers have the same code: z and the class embedding.

    DeepMind's own weights keep batch-norm statistics for several truncations. With those, codes end with the weights of
    the rows of statistics, which the truncation determines; z must already be truncated.
    """

    family = "biggan-deep"
    edits_all_layers = True

    def __init__(
        self,
        z_dim: int,
        embedding_shape: tuple[int, int],
        bottom_width: int,
        layers: Sequence[DeepBlockSizes | AttentionSizes],
        channels: int,
        rows: int = 1,
        activation: Activation = F.relu,
    ) -> None:
        """Build without weights.

        Args:
            z_dim: Length of z.
            embedding_shape: Number of classes, and length of a class embedding.
            bottom_width: Height and width of the output of `linear`.
            layers: The layers after `linear`, with at least one block.
            channels: Channels of the image.
            rows: How many rows of statistics each norm has; 1: they do not depend on the truncation.
            activation: What follows each norm.
        """
        super().__init__()
        blocks = [sizes for sizes in layers if isinstance(sizes, DeepBlockSizes)]
        self.z_dim = z_dim
        self.num_classes, embed_dim = embedding_shape
        self.condition_dim = z_dim + embed_dim
        self.rows = rows
        self.code_dim = self.condition_dim + (rows if rows > 1 else 0)
        self.class_dim = self.code_dim - z_dim
        self.num_layers = 1 + len(blocks)
        self.resolution = (bottom_width * 2 ** sum(block.doubles for block in blocks),) * 2
        self.channels = channels
        self.truncation_center = "batch-norm statistics" if rows > 1 else ""
        self._bottom = (blocks[0].in_channels, bottom_width, bottom_width)

        self._activation = activation

        self.embedding = nn.Parameter(torch.empty(embedding_shape))
        self.linear = nn.Linear(self.condition_dim, math.prod(self._bottom))
        self.layers = nn.ModuleList(
            DeepBlock(sizes, self.condition_dim, rows, activation)
            if isinstance(sizes, DeepBlockSizes)
            else Attention(sizes.channels, sizes.key_dim, sizes.value_dim)
            for sizes in layers
        )
        last = blocks[-1].out_channels
        self.norm = Norm(last) if rows == 1 else SelectedNorm(last, rows)
        self.conv = nn.Conv2d(last, channels, 3, padding=1)

    def _encode(self, z: Tensor, label: Tensor | None, truncation: Truncation, truncation_layers: int | None) -> Tensor:
        assert label is not None
        parts = [z, F.embedding(label, self.embedding)]
        if self.rows > 1:
            if truncation_layers is not None:
                raise ArgumentError("truncation chooses the statistics of all layers: it cannot apply to some of them")
            selection = select_statistics(truncation, self.rows)  # [N, rows] or [1, rows]
            # Avoid expand: joining the batch to its shape would be the only node off the GPU.
            parts.append(selection.to(z) + 0 * z[:, :1])
        return torch.cat(parts, dim=1)[:, None].repeat(1, self.num_layers, 1)  # [N, L, D]

    def decode(self, codes: Tensor) -> Tensor:
        h = self.linear(codes[:, 0, : self.condition_dim]).reshape(-1, *self._bottom)  # [N, C, bottom, bottom]
        index = 0
        for layer in self.layers:
            if isinstance(layer, DeepBlock):
                index += 1
                h = layer(h, codes[:, index])
            else:
                h = layer(h)
        selection = codes[:, index, self.condition_dim :]  # [N, rows], from the last block's code
        h = self.norm(h) if self.rows == 1 else self.norm(h, selection)
        return torch.tanh(self.conv(self._activation(h)))  # [N, C, H, W]

    def affines(self) -> list[Tensor]:
        linear = F.pad(self.linear.weight.detach(), (0, self.code_dim - self.condition_dim))
        return [linear, *(layer.gain_and_bias().detach() for layer in self.layers if isinstance(layer, DeepBlock))]


def select_statistics(truncation: Truncation, rows: int) -> Tensor:
    """Compute the weights for summing the rows of statistics, float32 [N, rows], or [1, rows].

    The rows stand for truncations 0 to 1 in equal steps. For a truncation i + f steps up, between rows i and i + 1, the
    released code takes f·row_i + (1 - f)·row_{i+1}: interpolation with the two weights swapped. The result therefore
    jumps at the rows, on one side or the other depending on how t / step rounds in double precision, so the same
    computation is made here.

    Raises:
        ArgumentError: If a number is not above 0 and at most 1. Tensors are clamped instead.
    """
    if not isinstance(truncation, Tensor):
        return torch.tensor([_weights_at(truncation, rows)])
    scale = 10.0**DECIMALS
    t = torch.round(truncation.reshape(-1, 1).double() * scale) / scale  # [N, 1]
    # Divide inside the graph: exporters would round the constant 1 / (rows - 1) to float32.
    step = torch.ones_like(t) / (rows - 1)
    position = (t.clamp(0, 1) / step).clamp(max=rows - 1)
    index = position.floor()
    fraction = position - index
    here = torch.where(fraction == 0, torch.ones_like(fraction), fraction)
    row = torch.arange(rows, device=t.device)
    index = index.long()
    weights = (row == index) * here + (row == index + 1) * (1 - here)  # [N, rows]
    return weights.float()


def _weights_at(truncation: float, rows: int) -> list[float]:
    """Compute the weights for one fixed truncation, outside the graph: exporters would round it to float32."""
    if not 0 < truncation <= 1:
        raise ArgumentError(f"the truncation that chooses statistics must be above 0 and at most 1, got {truncation}")
    position = min(truncation / (1 / (rows - 1)), rows - 1)
    index = int(position)
    here = position - index or 1.0
    return [here if row == index else 1 - here if row == index + 1 else 0.0 for row in range(rows)]
