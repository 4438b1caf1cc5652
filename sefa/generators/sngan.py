"""SNGAN: a linear layer makes an image of z, and residual blocks or transposed convolutions enlarge it.

Source: Miyato, Kataoka, Koyama & Yoshida, "Spectral Normalization for Generative Adversarial Networks", ICLR 2018,
tables 3 and 4; with classes, Miyato & Koyama, "cGANs with Projection Discriminator", ICLR 2018.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sefa.generators.biggan import Activation, Attention, Block, ConditionalNorm, Norm
from sefa.generators.common.labels import OneHotGenerator


class DeconvBlock(nn.Module):
    """A transposed convolution that doubles the size, and a batch norm.

    Args:
        in_channels: Input channels.
        out_channels: Output channels.
        code_dim: Length of the condition; 0: the norm is unconditional.
        activation: What follows the norm.
    """

    def __init__(self, in_channels: int, out_channels: int, code_dim: int, activation: Activation = F.relu) -> None:
        super().__init__()
        self.deconv = nn.ConvTranspose2d(in_channels, out_channels, 4, stride=2, padding=1)
        self.bn = ConditionalNorm(out_channels, code_dim) if code_dim else Norm(out_channels)
        self._activation = activation

    def forward(self, h: Tensor, *y: Tensor) -> Tensor:
        """[N, C, H, W] and the condition [N, D], if the norm has one -> [N, C', 2H, 2W]."""
        return self._activation(self.bn(self.deconv(h), *y))


class SNGAN(OneHotGenerator):
    """The generator of an SNGAN or a descendant, such as SAGAN, SSGAN, InfoMax-GAN or WGAN-GP's residual networks.

        h = linear(z) as an image;  h = block_i(h, y), after some attention;  image = tanh(conv(relu(norm(h))))

    The one-hot label y chooses the gains and biases of the blocks' norms. L = 1 and the code is z itself, followed by
    the label if there are classes, so an edited image is exactly G(z + alpha·n).
    """

    family = "sngan"

    def __init__(
        self,
        z_dim: int,
        num_classes: int,
        bottom: tuple[int, int, int],
        layers: Sequence[Block | DeconvBlock | Attention],
        norm: Norm | None,
        conv: nn.Conv2d,
        activation: Activation,
        output: Activation = torch.tanh,
        image_range: tuple[float, float] = (-1.0, 1.0),
    ) -> None:
        """Build from layers.

        Args:
            z_dim: Length of z.
            num_classes: Number of classes, which is the length of the blocks' condition; 0 if there are none.
            bottom: Channels, height and width of the output of the first layer.
            layers: The layers after the first, up to the last norm.
            norm: The last norm; None if there is none, nor an activation after it.
            conv: The last layer.
            activation: What follows the last norm.
            output: What comes last.
            image_range: Its values for black and for white.
        """
        super().__init__(z_dim, num_classes, image_range)
        blocks = sum(not isinstance(layer, Attention) for layer in layers)
        self.resolution = (bottom[1] * 2**blocks, bottom[2] * 2**blocks)
        self.channels = conv.out_channels
        self._bottom = bottom
        self._activation = activation
        self._output = output
        self.linear = nn.Linear(z_dim, math.prod(bottom))
        self.layers = nn.ModuleList(layers)
        self.norm = norm
        self.conv = conv

    def decode(self, codes: Tensor) -> Tensor:
        code = codes.squeeze(1)  # [N, z_dim + num_classes]
        h = self.linear(code[:, : self.z_dim]).reshape(-1, *self._bottom)  # [N, C, bottom, bottom]
        condition = [code[:, self.z_dim :]] if self.num_classes else []
        for layer in self.layers:
            h = layer(h) if isinstance(layer, Attention) else layer(h, *condition)
        if self.norm is not None:
            h = self._activation(self.norm(h))
        return self._centred(self._output(self.conv(h)))  # [N, C, H, W]

    def affines(self) -> list[Tensor]:
        return [F.pad(self.linear.weight.detach(), (0, self.class_dim))]  # [C·h·w, D]
