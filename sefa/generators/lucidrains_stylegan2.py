"""The StyleGAN2 of lucidrains' stylegan2-pytorch, which differs from NVlabs' in almost every detail.

It has one style per resolution, upsamples bilinearly before the convolutions instead of using transposed ones, applies
a linear layer to one noise map instead of noise strengths, and gives images from 0 to 1.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sefa.generators.common.fir import bilinear, filter_channels
from sefa.generators.common.mapping import Mapping, StyleBasedGenerator
from sefa.generators.common.scaling import scale
from sefa.generators.common.to_rgb import ToRGB
from sefa.generators.stylegan2 import DEMODULATION_EPSILON


class ModulatedConv(nn.Module):
    """x = lrelu(demodulate(conv(s·x)) + weight·noise + bias), s = affine(w).

    The activations are scaled by s, convolved with the constant W, and scaled by rsqrt(Σ_i s_i²·Σ_yx W² + epsilon).

    Attributes:
        affine: The style's transform, [in, w_dim].
        weight: [out, in, 3, 3].
        energy: Σ_yx W², [in, out].
        noise_weight: [out].
        bias: [out].
    """

    affine: nn.Linear
    energy: Tensor

    def __init__(self, inputs: int, outputs: int, w_dim: int) -> None:
        super().__init__()
        self.affine = nn.Linear(w_dim, inputs)
        self.weight = nn.Parameter(torch.empty(outputs, inputs, 3, 3))
        self.register_buffer("energy", torch.empty(inputs, outputs))
        self.noise_weight = nn.Parameter(torch.empty(outputs))
        self.bias = nn.Parameter(torch.empty(outputs))

    def forward(self, x: Tensor, w: Tensor, noise: Tensor, doubled: bool) -> Tensor:
        """[N, in, h, w], [N, w_dim] and [1, 1, H, W] -> [N, out, H, W]; H = 2h if `doubled`."""
        s = self.affine(w)  # [N, in]
        demodulation = (s.square() @ self.energy + DEMODULATION_EPSILON).rsqrt()  # [N, out]
        x = scale(x, s)
        if doubled:  # After scaling, which takes less work on the smaller image.
            x = bilinear(x)
        x = scale(F.conv2d(x, self.weight, padding=1), demodulation)
        x = x + (self.noise_weight[:, None, None] * noise + self.bias[:, None, None])
        return F.leaky_relu(x, 0.2)


class Block(nn.Module):
    """The layers of one resolution: two convolutions and ToRGB, which share one style.

    Attributes:
        taps: The filter applied after upsampling the previous block's image, [3]; None in the first block.
    """

    taps: Tensor | None

    def __init__(
        self, inputs: int, outputs: int, channels: int, size: tuple[int, int], w_dim: int, doubles: bool
    ) -> None:
        super().__init__()
        self.size = size
        self.conv1 = ModulatedConv(inputs, outputs, w_dim)
        self.conv2 = ModulatedConv(outputs, outputs, w_dim)
        self.rgb = ToRGB(outputs, channels, size, w_dim, bias=False)
        self.register_buffer("taps", torch.empty(3) if doubles else None)

    def forward(self, x: Tensor, image: Tensor | None, w: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Previous block's features and image, w [N, w_dim], noise [1, 1, R, R] -> this block's features and image."""
        noise = noise[:, :, : self.size[0], : self.size[1]]
        x = self.conv1(x, w, noise, doubled=self.taps is not None)
        x = self.conv2(x, w, noise, doubled=False)
        rgb: Tensor = self.rgb(x, w)
        return x, rgb if image is None or self.taps is None else self._up(image, self.taps) + rgb

    @staticmethod
    def _up(image: Tensor, taps: Tensor) -> Tensor:
        image = F.pad(bilinear(image), (1, 1, 1, 1), mode="reflect")
        return filter_channels(filter_channels(image, taps[:, None]), taps[None])


class LucidrainsStyleGAN2(StyleBasedGenerator):
    """lucidrains' StyleGAN2 of any size, capacity and number of colours.

        x = constant, or a transform of w;  x = block(x) for every resolution;  image = Σ ToRGB(x)

    L = number of blocks: w_l is read by both convolutions of block l, whose transforms make up A, and by its ToRGB.

    Attributes:
        initial: The first block's constant input, [1, C, h, w]; None if the input is computed from the mean w.
        to_initial: The transform from the mean w to that input, [C·h·w]; None if the input is constant.
        noise_map: Uniform noise, [1, R, R, 1]; each layer reads as much as it needs from one corner. Without noise, a
            single value.
    """

    family = "lucidrains-stylegan2"
    noise_map: Tensor

    def __init__(
        self,
        mapping: Mapping,
        blocks: Sequence[Block],
        initial: Sequence[int],
        w_dim: int,
        constant: bool,
        noise_size: int,
    ) -> None:
        """Build from parts.

        Args:
            mapping: The mapping network.
            blocks: Smallest first.
            initial: Shape of the first block's input, [C, h, w].
            w_dim: Length of w.
            constant: Whether that input is a constant.
            noise_size: R.
        """
        super().__init__(mapping, w_dim)
        self.blocks = nn.ModuleList(blocks)
        channels, height, width = initial
        self.initial_shape = (channels, height, width)
        self.initial = nn.Parameter(torch.empty(1, *initial)) if constant else None
        self.to_initial = None if constant else nn.Linear(w_dim, channels * height * width)
        self.register_buffer("noise_map", torch.empty(1, noise_size, noise_size, 1))
        self.num_layers = len(blocks)
        self.resolution = blocks[-1].size
        self.channels = blocks[-1].rgb.weight.shape[0]

    def decode(self, codes: Tensor) -> Tensor:
        noise = self.noise_map.permute(0, 3, 2, 1)  # [1, 1, R, R], and transposed in space
        x = self._initial(codes)
        image: Tensor | None = None
        for index, block in enumerate(self.blocks):
            x, image = block(x, image, codes[:, index], noise)
        assert image is not None
        return 2 * image - 1  # from [0, 1]

    def affines(self) -> list[Tensor]:
        blocks = [block for block in self.blocks if isinstance(block, Block)]
        return [torch.cat([block.conv1.affine.weight, block.conv2.affine.weight]).detach() for block in blocks]

    def _initial(self, codes: Tensor) -> Tensor:
        if self.initial is not None:
            return self.initial  # Scaling by the first style gives it its batch axis.
        assert self.to_initial is not None
        x: Tensor = self.to_initial(codes.mean(dim=1))
        return x.reshape(-1, *self.initial_shape)
