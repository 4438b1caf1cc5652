"""StyleGAN2: modulated convolutions applied to a learned constant.

Source: Karras, Laine, Aittala, Hellsten, Lehtinen & Aila, "Analyzing and Improving the Image Quality of StyleGAN",
CVPR 2020.
"""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sefa.generators.common.fir import bilinear, filter_channels
from sefa.generators.common.mapping import Mapping, StyleBasedGenerator
from sefa.generators.common.scaling import scale
from sefa.generators.common.to_rgb import ToRGB, limit

DEMODULATION_EPSILON = 1e-8


class UpFilter(nn.Module):
    """The low-pass filter for upsampling by 2, including its gain of 4.

    The first element of the doubled grid is taps/2 - 1 taps before the filter's centre, so both sides are padded alike.

    Attributes:
        column: Taps along the height, [kh]; None if the kernel is not separable.
        row: Taps along the width, [kw]; None if the kernel is not separable.
        kernel: All taps, [kh, kw]; None if the kernel is separable.
    """

    column: Tensor | None
    row: Tensor | None
    kernel: Tensor | None

    def __init__(self, height: int, width: int, separable: bool) -> None:
        """Build without values, for even numbers of taps; `separable` if the kernel is a column times a row."""
        super().__init__()
        self.padding = (height // 2 - 1, width // 2 - 1)
        self.register_buffer("column", torch.empty(height) if separable else None)
        self.register_buffer("row", torch.empty(width) if separable else None)
        self.register_buffer("kernel", None if separable else torch.empty(height, width))

    def forward(self, x: Tensor) -> Tensor:
        """Convolve each channel of a transposed 3x3 convolution's result: [N, C, 2H + 1, 2W + 1] -> [N, C, 2H, 2W]."""
        for kernel, padding in self._passes():
            x = filter_channels(x, kernel.flip(0, 1), padding)  # A convolution flips its kernel.
        return x

    def convolve(self, x: Tensor, weight: Tensor) -> Tensor:
        """Double the size and convolve with a weight [in, out, 3, 3]: [N, in, H, W] -> [N, out, 2H, 2W]."""
        doubled: Tensor = self(F.conv_transpose2d(x, weight, stride=2))
        return doubled

    def upsample(self, x: Tensor) -> Tensor:
        """Stuff zeros between pixels and convolve each channel: [N, C, H, W] -> [N, C, 2H, 2W]."""
        channels = x.shape[1]
        for kernel, padding in self._passes():
            stride = (2 if kernel.shape[0] > 1 else 1, 2 if kernel.shape[1] > 1 else 1)
            weight = kernel.repeat(channels, 1, 1, 1)
            x = F.conv_transpose2d(x, weight, stride=stride, padding=padding, groups=channels)
        return x

    def _passes(self) -> list[tuple[Tensor, tuple[int, int]]]:
        """Return the kernels [kh, kw] to apply one after the other, and their paddings."""
        if self.kernel is not None:
            return [(self.kernel, self.padding)]
        assert self.column is not None
        assert self.row is not None
        return [(self.column[:, None], (self.padding[0], 0)), (self.row[None], (0, self.padding[1]))]


class BilinearUp(nn.Module):
    """Upsampling by 2 as implementations without transposed convolutions do it: bilinear, and before the convolution.

    Within an image it is the filter 1, 3, 3, 1; at the border it repeats pixels where the filter meets zeros.
    """

    def convolve(self, x: Tensor, weight: Tensor) -> Tensor:
        """Double the size and convolve with a weight [in, out, 3, 3]: [N, in, H, W] -> [N, out, 2H, 2W]."""
        return F.conv2d(bilinear(x), weight.transpose(0, 1), padding=1)

    def upsample(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C, 2H, 2W]."""
        return bilinear(x)


class ModulatedConv(nn.Module):
    """x = lrelu(demodulate(conv(s·x)) + noise + bias)·gain, s = affine(w).

    Per-sample weights W·s would need a convolution per sample. Instead the activations are scaled by s, convolved with
    the constant W, and scaled by rsqrt(Σ_i s_i²·Σ_yx W² + epsilon), which gives the same result. The gain commutes with
    lrelu, so it is multiplied into energy, noise and bias.

    Attributes:
        affine: The style's transform, [in, w_dim].
        weight: [out, in, 3, 3], or [in, out, 3, 3] for the transposed convolution that doubles the size.
        energy: Σ_yx W²/gain², [in, out].
        noise: Constant noise times its strength, [1, 1, H, W]; None if the layer has none.
        bias: [out].
        blur: What doubles the size, such as the filter after a transposed convolution; None if the layer does not.
    """

    affine: nn.Linear
    energy: Tensor
    noise: Tensor | None

    def __init__(
        self,
        inputs: int,
        outputs: int,
        size: tuple[int, int],
        w_dim: int,
        gain: float,
        noise: bool,
        clamp: float | None = None,
        blur: UpFilter | BilinearUp | None = None,
    ) -> None:
        """Build without values.

        Args:
            inputs: Channels of the input.
            outputs: Channels of the output.
            size: Height and width of the output.
            w_dim: Length of w.
            gain: Factor after the activation.
            noise: Whether the layer adds noise.
            clamp: Largest magnitude of the output; None: no limit.
            blur: What doubles the size, if the layer does.
        """
        super().__init__()
        self.epsilon = DEMODULATION_EPSILON / gain**2
        self.clamp = clamp
        self.affine = nn.Linear(w_dim, inputs)
        self.weight = nn.Parameter(torch.empty(*((outputs, inputs) if blur is None else (inputs, outputs)), 3, 3))
        self.register_buffer("energy", torch.empty(inputs, outputs))
        self.register_buffer("noise", torch.empty(1, 1, *size) if noise else None)
        self.bias = nn.Parameter(torch.empty(outputs))
        self.blur = blur

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """[N, in, h, w] or [1, in, h, w], and [N, w_dim] -> [N, out, H, W]."""
        s = self.affine(w)  # [N, in]
        demodulation = (s.square() @ self.energy + self.epsilon).rsqrt()  # [N, out]
        x = scale(x, s)
        x = F.conv2d(x, self.weight, padding=1) if self.blur is None else self.blur.convolve(x, self.weight)
        x = scale(x, demodulation)
        if self.noise is not None:
            x = x + self.noise
        return limit(F.leaky_relu(x + self.bias[:, None, None], 0.2), self.clamp)


class Shortcut(nn.Module):
    """up(conv1x1(x)): the residual path; the factor √½ on the sum of both paths is folded into the weight.

    Attributes:
        weight: [out, in, 1, 1].
    """

    def __init__(self, inputs: int, outputs: int, up: UpFilter) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs, 1, 1))
        self.up = up

    def forward(self, x: Tensor) -> Tensor:
        """[N, in, H, W] -> [N, out, 2H, 2W]."""
        return self.up.upsample(F.conv2d(x, self.weight))


class SynthesisBlock(nn.Module):
    """The layers of one resolution: an upsampling convolution (not in the first block), a second convolution, ToRGB.

    Attributes:
        up: The convolution that doubles the size.
        conv: The convolution after it.
        rgb: Turns features into colours: in every block (skip), or only in the last (resnet, orig).
        image_up: Brings the previous block's image to this size, where this block's image is added to it (skip).
        shortcut: The path around both convolutions (resnet).
    """

    def __init__(
        self,
        up: ModulatedConv | None,
        conv: ModulatedConv,
        rgb: ToRGB | None,
        image_up: UpFilter | BilinearUp | None = None,
        shortcut: Shortcut | None = None,
    ) -> None:
        super().__init__()
        self.up = up
        self.conv = conv
        self.rgb = rgb
        self.image_up = image_up
        self.shortcut = shortcut

    def forward(self, x: Tensor, image: Tensor | None, codes: Tensor) -> tuple[Tensor, Tensor | None]:
        """Previous block's features and image, codes [N, 2 or 3, D] of `up`, `conv`, `rgb` -> this block's."""
        y = x if self.up is None else self.up(x, codes[:, 0])
        y = self.conv(y, codes[:, -2])
        if self.shortcut is not None:
            y = self.shortcut(x) + y
        if self.rgb is None:
            return y, image
        rgb = self.rgb(y, codes[:, -1])
        return y, rgb if image is None or self.image_up is None else self.image_up.upsample(image) + rgb


class StyleGAN2(StyleBasedGenerator):
    """A StyleGAN2 of any depth, width, image shape and architecture (skip, resnet, orig).

        x = constant;  x = conv(up(x)) for every resolution;  image = Σ ToRGB(x), or ToRGB(last x)

    L = 2·blocks: the convolutions in order, then the last ToRGB. An earlier ToRGB shares the code of the next block's
    first convolution.
    """

    family = "stylegan2"

    def __init__(
        self,
        mapping: Mapping,
        const: Sequence[int],
        blocks: Sequence[SynthesisBlock],
        w_dim: int,
        center_per_class: bool = False,
    ) -> None:
        """Build from parts.

        Args:
            mapping: The mapping network.
            const: Shape of the learned input, [C, h, w].
            blocks: Smallest first; the last one has a ToRGB.
            w_dim: Length of w.
            center_per_class: Whether each class has its own centre of truncation.
        """
        super().__init__(mapping, w_dim, center_per_class)
        self.const = nn.Parameter(torch.empty(1, *const))
        self.blocks = nn.ModuleList(blocks)
        rgb = blocks[-1].rgb
        assert rgb is not None
        self.num_layers = 2 * len(blocks)
        self.resolution = rgb.size
        self.channels = rgb.weight.shape[0]

    def decode(self, codes: Tensor) -> Tensor:
        x: Tensor = self.const  # [1, C, h, w]; scaling by the first style gives it its batch axis
        image: Tensor | None = None
        for index, block in enumerate(self.blocks):
            x, image = block(x, image, codes[:, max(2 * index - 1, 0) : 2 * index + 2])
        assert image is not None
        return image

    def affines(self) -> list[Tensor]:
        return [affine.weight.detach() for affine in (*self.conv_affines(), self.rgb_affines()[-1])]

    def conv_affines(self) -> list[nn.Linear]:
        """Return the style transforms of the convolutions, in the order of the codes."""
        blocks = cast("list[SynthesisBlock]", list(self.blocks))
        return [conv.affine for block in blocks for conv in (block.up, block.conv) if conv is not None]

    def rgb_affines(self) -> list[nn.Linear]:
        """Return the style transforms of the ToRGB layers, smallest resolution first."""
        return [block.rgb.affine for block in cast("list[SynthesisBlock]", list(self.blocks)) if block.rgb is not None]
