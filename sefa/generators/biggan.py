"""BigGAN: residual blocks whose batch norms are conditioned on the class and on chunks of the latent.

Source: Brock, Donahue & Simonyan, "Large Scale GAN Training for High Fidelity Natural Image Synthesis", ICLR 2019,
figure 15.
"""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sefa.generators.common.scaling import scale_and_shift
from sefa.generators.generator import Generator, Truncation

Activation = Callable[[Tensor], Tensor]


class ConditionalNorm(nn.Module):
    """A batch norm conditioned on a code y: (x - mean) / std · (1 + gain(y)) + bias(y).

    Mean and std are constants, so this equals x·scale(y) + shift(y) with a single affine map of y:
    scale(y) = (1 + gain(y)) / std, and shift(y) = bias(y) - mean·scale(y).
    """

    def __init__(self, channels: int, code_dim: int) -> None:
        super().__init__()
        self.affine = nn.Linear(code_dim, 2 * channels)

    @staticmethod
    def folded_weight(gain: Tensor, bias: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
        """Compute the weight of `affine`, [2C, D].

        Args:
            gain: Weight of gain(y), [C, D].
            bias: Weight of bias(y), [C, D].
            mean: Shape [C].
            variance: Shape [C], epsilon included.
        """
        scale = variance.double().rsqrt()[:, None] * gain  # [C, D]
        return torch.cat([scale, bias - mean[:, None] * scale]).float()

    @staticmethod
    def folded_bias(mean: Tensor, variance: Tensor) -> Tensor:
        """Compute the bias of `affine`, [2C]: scale and shift at y = 0."""
        inverse_std = variance.double().rsqrt()
        return torch.cat([inverse_std, -mean * inverse_std]).float()

    def gain_and_bias(self) -> Tensor:
        """Return the weights of gain(y) and bias(y), [2C, D], unfolded with 1 / std and -mean / std, found at y = 0."""
        scale, shift = self.affine.weight.double().chunk(2)
        inverse_std, center = self.affine.bias.double()[:, None].chunk(2)
        return torch.cat([scale / inverse_std, shift - center / inverse_std * scale]).float()

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """[N, C, H, W] and [N, D] -> [N, C, H, W]."""
        return scale_and_shift(x, *self.affine(y).chunk(2, dim=1))


class Norm(nn.Module):
    """An unconditional batch norm, folded into x·weight + bias."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels, 1, 1))
        self.bias = nn.Parameter(torch.empty(channels, 1, 1))

    @staticmethod
    def fold(gain: Tensor, bias: Tensor, mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
        """Compute `weight` and `bias` of (x - mean) / √variance · gain + bias, all [C]; variance includes epsilon."""
        weight = gain * variance.double().rsqrt()
        shift = bias - mean * weight
        return weight.float()[:, None, None], shift.float()[:, None, None]

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C, H, W]."""
        return x * self.weight + self.bias


class Attention(nn.Module):
    """Self-attention: x + o(Σ_k softmax_k(theta(x)ᵀ·phi(x)_k) g(x)_k), with keys k at half the resolution.

    The factor gamma on the attended values is multiplied into o.
    """

    def __init__(self, channels: int, key_dim: int, value_dim: int) -> None:
        super().__init__()
        self.theta = nn.Conv2d(channels, key_dim, 1, bias=False)
        self.phi = nn.Conv2d(channels, key_dim, 1, bias=False)
        self.g = nn.Conv2d(channels, value_dim, 1, bias=False)
        self.o = nn.Conv2d(value_dim, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C, H, W]."""
        queries = self.theta(x).flatten(2).transpose(1, 2)  # [N, HW, key_dim]
        keys = F.max_pool2d(self.phi(x), 2).flatten(2)  # [N, key_dim, HW/4]
        values = F.max_pool2d(self.g(x), 2).flatten(2).transpose(1, 2)  # [N, HW/4, value_dim]
        attended = torch.softmax(queries @ keys, dim=2) @ values  # [N, HW, value_dim]
        attended = attended.transpose(1, 2).reshape(-1, self.o.in_channels, *x.shape[2:])  # [N, value_dim, H, W]
        summed: Tensor = x + self.o(attended)
        return summed


class Block(nn.Module):
    """A residual block that doubles the size.

    Args:
        in_channels: Input channels.
        out_channels: Output channels.
        code_dim: Length of the condition; 0: the norms are unconditional.
        activation: What follows each norm.
        upsampling: How the size is doubled, "nearest" or "bilinear".
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        code_dim: int,
        activation: Activation = F.relu,
        upsampling: str = "nearest",
    ) -> None:
        super().__init__()
        norm = partial(ConditionalNorm, code_dim=code_dim) if code_dim else Norm
        self.bn1 = norm(in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.bn2 = norm(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.conv_sc = nn.Conv2d(in_channels, out_channels, 1)
        self._activation = activation
        self._upsampling = upsampling

    def forward(self, h: Tensor, *y: Tensor) -> Tensor:
        """[N, C, H, W] and the condition [N, D], if the norms have one -> [N, C', 2H, 2W]."""
        a = self.conv1(self._enlarge(self._activation(self.bn1(h, *y))))
        a = self.conv2(self._activation(self.bn2(a, *y)))
        # A 1x1 convolution commutes with enlarging: before it, it takes a quarter of the work.
        summed: Tensor = a + self._enlarge(self.conv_sc(h))
        return summed

    def _enlarge(self, x: Tensor) -> Tensor:
        return F.interpolate(x, scale_factor=2.0, mode=self._upsampling)

    def gain_and_bias(self) -> Tensor:
        """Return the weights through which the block's norms read their condition, [rows, D]."""
        assert isinstance(self.bn1, ConditionalNorm)
        assert isinstance(self.bn2, ConditionalNorm)
        return torch.cat([self.bn1.gain_and_bias(), self.bn2.gain_and_bias()])


class BigGAN(Generator):
    """The generator of a BigGAN of any size, in one of two variants.

        h = linear(latent) as an image;  h = block_i(h, y_i), after some attention;  image = tanh(conv(relu(norm(h))))

    Hierarchical: z is split into equal chunks. Layer 0's chunk goes to `linear`; layer i + 1's chunk, followed by the
    class embedding, is y_i. Each layer's code is its own chunk and the embedding.

    Not hierarchical: all of z goes to `linear`, and every y_i is the class embedding, so there is one layer. If the
    norms have a row per class instead of an embedding, the embedding is a one-hot vector.

    Without classes, a hierarchical one's codes are its chunks alone.
    """

    family = "biggan"

    def __init__(
        self,
        latent_dim: int,
        embedding_shape: tuple[int, int],
        bottom_width: int,
        widths: Sequence[int],
        attentions: dict[int, tuple[int, int]],
        channels: int,
        hierarchical: bool,
        activation: Activation = F.relu,
    ) -> None:
        """Build without weights.

        Args:
            latent_dim: Length of z, or of one of its chunks.
            embedding_shape: Number of classes, and length of a class embedding; zeros if there are none.
            bottom_width: Height and width of the output of `linear`.
            widths: Channels of that output, then the output channels of each block.
            attentions: For each block followed by attention, the attention's key_dim and value_dim.
            channels: Channels of the image.
            hierarchical: Whether z is split between the layers.
            activation: What follows each norm.
        """
        super().__init__()
        self.num_classes, self.class_dim = embedding_shape
        blocks = len(widths) - 1
        self.hierarchical = hierarchical
        self.num_layers = 1 + blocks if hierarchical else 1
        self.layers_share_latent = not hierarchical
        self.z_dim = latent_dim * self.num_layers
        self.code_dim = latent_dim + self.class_dim
        self.resolution = (bottom_width * 2**blocks,) * 2
        self.channels = channels
        self._bottom = (widths[0], bottom_width, bottom_width)
        condition_dim = self.code_dim if hierarchical else self.class_dim

        self._activation = activation

        self.embedding = nn.Parameter(torch.empty(embedding_shape)) if self.num_classes else None
        self.linear = nn.Linear(latent_dim, widths[0] * bottom_width**2)
        self.layers = nn.ModuleList()
        for i in range(blocks):
            self.layers.append(Block(widths[i], widths[i + 1], condition_dim, activation))
            if i in attentions:
                self.layers.append(Attention(widths[i + 1], *attentions[i]))
        self.norm = Norm(widths[-1])
        self.conv = nn.Conv2d(widths[-1], channels, 3, padding=1)

    def _encode(self, z: Tensor, label: Tensor | None, truncation: Truncation, truncation_layers: int | None) -> Tensor:
        chunks = z.reshape(-1, self.num_layers, self.latent_dim)  # [N, L, latent_dim]
        if self.embedding is None or label is None:
            return chunks
        embedding = F.embedding(label, self.embedding)[:, None]  # [N, 1, embed_dim]
        return torch.cat([chunks, embedding.repeat(1, self.num_layers, 1)], dim=2)  # [N, L, D]

    def decode(self, codes: Tensor) -> Tensor:
        h = self.linear(codes[:, 0, : self.latent_dim]).reshape(-1, *self._bottom)  # [N, C, bottom, bottom]
        index = 0
        for layer in self.layers:
            if isinstance(layer, Block):
                index += 1
                h = layer(h, codes[:, index] if self.hierarchical else codes[:, 0, self.latent_dim :])
            else:
                h = layer(h)
        return torch.tanh(self.conv(self._activation(self.norm(h))))  # [N, C, H, W]

    def affines(self) -> list[Tensor]:
        linear = F.pad(self.linear.weight.detach(), (0, self.class_dim))
        blocks = [layer.gain_and_bias().detach() for layer in self.layers if isinstance(layer, Block)]
        return [linear, *blocks] if self.hierarchical else [linear]
