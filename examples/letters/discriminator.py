"""The discriminator of letters: a residual network that compares an image with its label.

Sources: Karras et al., "Analyzing and Improving the Image Quality of StyleGAN", CVPR 2020 (residual blocks, minibatch
deviation); Miyato & Koyama, "cGANs with Projection Discriminator", ICLR 2018 (the label).
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CHANNELS = (16, 32, 64, 96, 128)  # of 64x64, 32x32, ..., 4x4
GROUP = 4  # images whose deviation is measured together; they are of one class
SQRT2 = math.sqrt(2)


class Discriminator(nn.Module):
    """logit = v·h + ⟨h, embedding of the label⟩/√dim, h = features(image).

    Args:
        num_classes: Number of classes.
        channels: Channels of the features, largest size first.
        dtype: Type of the features of the convolutions.
    """

    def __init__(
        self, num_classes: int, channels: Sequence[int] = CHANNELS, dtype: torch.dtype = torch.float32
    ) -> None:
        super().__init__()
        self.dtype = dtype
        self.first = Conv(1, channels[0], 1)
        self.blocks = nn.ModuleList(Block(a, b) for a, b in pairwise(channels))
        self.last = Conv(channels[-1] + 1, channels[-1], 3)
        self.hidden = Conv(channels[-1], channels[-1], 4, padding=0)
        self.score = nn.Parameter(torch.randn(channels[-1]))
        self.embedding = nn.Parameter(torch.randn(num_classes, channels[-1]))

    def forward(self, image: Tensor, label: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """[N, 1, H, W] and [N] -> logits [N], float32. The images of a class stand together, `GROUP` or a multiple."""
        x = image.to(dtype or self.dtype, memory_format=torch.channels_last)
        x = F.leaky_relu_(self.first(x), 0.2)
        for block in self.blocks:
            x = block(x)
        x = torch.cat([x, _deviation(x)], dim=1)
        x = F.leaky_relu_(self.last(x), 0.2)
        h = F.leaky_relu_(self.hidden(x).flatten(1).float(), 0.2)  # [N, C]
        return (h * (self.score + F.embedding(label, self.embedding))).sum(dim=1) / math.sqrt(h.shape[1])


def limit(image: Tensor) -> Tensor:
    """Clamp to -1 to 1; the gradient passes wherever it does not lead further out.

    Glyphs are white and black almost everywhere, exactly. Images of the generator, which are clamped when they are
    shown, need only be at least as white or black; else the discriminator tells them by their paper's faint pattern.
    """
    return cast("Tensor", _Limit.apply(image))  # type: ignore[no-untyped-call]


class _Limit(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, x: Tensor) -> Tensor:
        context.save_for_backward(x)
        return x.clamp(-1, 1)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        x: Tensor = context.saved_tensors[0]
        return gradient * ((x.abs() <= 1) | (gradient * x > 0))  # A step goes against the gradient.


class Block(nn.Module):
    """(down(lrelu(conv(x))) + conv1x1(average(x)))/√2; halves the size."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = Conv(inputs, inputs, 3)
        self.down = Conv(inputs, outputs, 4, stride=2)
        self.skip = Conv(inputs, outputs, 1, gain=math.sqrt(0.5))

    def forward(self, x: Tensor) -> Tensor:
        y = F.leaky_relu_(self.conv(x), 0.2)
        y = F.leaky_relu_(self.down(y), 0.2)
        return torch.add(self.skip(F.avg_pool2d(x, 2)), y, alpha=math.sqrt(0.5))


class Conv(nn.Module):
    """A convolution with equalised learning rate; its gain includes the √2 of the lrelu after it."""

    def __init__(
        self, inputs: int, outputs: int, size: int, stride: int = 1, padding: int | None = None, gain: float = SQRT2
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, size, size))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.weight_gain, self.bias_gain = gain / (size * math.sqrt(inputs)), gain
        self.stride, self.padding = stride, (size - 1) // 2 if padding is None else padding

    def forward(self, x: Tensor) -> Tensor:
        weight, bias = (self.weight * self.weight_gain).to(x.dtype), (self.bias * self.bias_gain).to(x.dtype)
        return F.conv2d(x, weight, bias, self.stride, self.padding)


def _deviation(x: Tensor) -> Tensor:
    """Return the deviation of the features over each group, averaged to one number: [N, C, H, W] -> [N, 1, H, W]."""
    count, _, height, width = x.shape
    groups = x.float().reshape(-1, GROUP, *x.shape[1:])
    deviation = (groups.var(dim=1, correction=0) + 1e-8).sqrt().mean(dim=(1, 2, 3))  # [N/GROUP]
    return deviation.to(x.dtype).repeat_interleave(GROUP)[:, None, None, None].expand(count, 1, height, width)
