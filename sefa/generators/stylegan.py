"""StyleGAN, the first version.

Source: Karras, Laine & Aila, "A Style-Based Generator Architecture for Generative Adversarial Networks", CVPR 2019.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sefa.generators.common.mapping import Mapping, StyleBasedGenerator
from sefa.generators.common.progressive import ToImage, up_conv
from sefa.generators.common.scaling import scale_and_shift

EPSILON = 1e-8


class StyleGAN(StyleBasedGenerator):
    """Levels of two layers each; all but the first level begin by doubling the size.

        x = const, or conv(x), or blur(up_conv(x))
        x = norm(lrelu(x + noise + bias))·(scale(w) + 1) + shift(w)

    where norm brings each channel of each image to zero mean and unit variance. Noise is constant, so in the first
    layer only the style depends on the input.

    Args:
        mapping: The mapping network.
        w_dim: Length of w.
        base: Height and width of the first level.
        widths: Output channels of each layer, two layers per level.
        noise: Whether there is noise.
        to_image: Turns features into the image.
        epsilon: Added to the variance by norm.
        blurs_bias: Whether the layers that double the size add their bias before they blur.
        blurs_activated: Whether these also have an activation before they blur, besides the one after it.
    """

    family = "stylegan"

    def __init__(
        self,
        mapping: Mapping,
        w_dim: int,
        base: tuple[int, int],
        widths: Sequence[int],
        noise: bool,
        to_image: ToImage,
        epsilon: float = EPSILON,
        blurs_bias: bool = False,
        blurs_activated: bool = False,
    ) -> None:
        super().__init__(mapping, w_dim)
        self.num_layers = len(widths)
        # The first layer's norm(lrelu(const + noise + bias)), [1, C, h, w].
        self.constant = nn.Parameter(torch.empty(1, widths[0], *base))
        self.layers = nn.ModuleList(
            Layer(
                widths[k - 1],
                widths[k],
                (base[0] << k // 2, base[1] << k // 2),
                up=k % 2 == 0,
                noise=noise,
                epsilon=epsilon,
                blurs_bias=blurs_bias,
                blurs_activated=blurs_activated,
            )
            for k in range(1, len(widths))
        )
        # [N, D] -> [N, 2C]: scale + 1, then shift.
        self.styles = nn.ModuleList(nn.Linear(self.code_dim, 2 * width) for width in widths)
        self.to_image = to_image
        factor = 2 ** (len(widths) // 2 - 1) * to_image.scale
        self.resolution = (base[0] * factor, base[1] * factor)
        self.channels = to_image.conv.out_channels

    def decode(self, codes: Tensor) -> Tensor:
        x = before = stylize(self.constant, self.styles[0](codes[:, 0]))  # [N, C, 4, 4]
        for k, layer in enumerate(self.layers, start=1):
            if k % 2 == 0:
                before = x
            x = stylize(layer(x), self.styles[k](codes[:, k]))
        image: Tensor = self.to_image(x, before)
        return image

    def affines(self) -> list[Tensor]:
        return [style.get_parameter("weight").detach() for style in self.styles]


class Layer(nn.Module):
    """x = norm(lrelu(conv(x) + weight·noise + bias)).

    The noise has one channel; each channel of x has its own weight for it.

    Args:
        inputs: Channels of the input.
        outputs: Channels of the output.
        size: Height and width of the output.
        up: Whether the layer doubles the size and then blurs.
        noise: Whether there is noise.
        epsilon: Added to the variance by norm.
        blurs_bias: Whether a layer that doubles the size adds its bias before it blurs, which the zeros around the
            image make another thing.
        blurs_activated: Whether such a layer also has an activation before it blurs.
    """

    noise: Tensor

    def __init__(
        self,
        inputs: int,
        outputs: int,
        size: tuple[int, int],
        up: bool,
        noise: bool,
        epsilon: float = EPSILON,
        blurs_bias: bool = False,
        blurs_activated: bool = False,
    ) -> None:
        super().__init__()
        early = up and blurs_bias
        self.epsilon = epsilon
        self.blurs_activated = blurs_activated
        self.conv = up_conv(inputs, outputs, bias=early) if up else nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.blur = nn.Parameter(torch.empty(outputs, 1, 3, 3)) if up else None
        self.bias = None if early else nn.Parameter(torch.empty(1, outputs, 1, 1))
        self.noise_weight = nn.Parameter(torch.empty(1, outputs, 1, 1)) if noise else None
        self.register_buffer("noise", torch.empty(1, 1, *size) if noise else None)

    def forward(self, x: Tensor) -> Tensor:
        """[N, inputs, h, w] -> [N, outputs, H, W]."""
        x = self.conv(x)
        if self.blur is not None:
            if self.blurs_activated:
                x = F.leaky_relu(x, 0.2)
            x = F.conv2d(x, self.blur, padding=1, groups=self.blur.shape[0])
        if self.noise_weight is not None:
            x = x + self.noise_weight * self.noise
        if self.bias is not None:
            x = x + self.bias
        return instance_norm(F.leaky_relu(x, 0.2), self.epsilon)


def instance_norm(x: Tensor, epsilon: float = EPSILON) -> Tensor:
    """Bring each channel of each image to zero mean and unit variance."""
    return F.instance_norm(x, eps=epsilon)


def stylize(x: Tensor, style: Tensor) -> Tensor:
    """Return x·scale + shift, for x [N, C, H, W] and a style [N, 2C] that holds both."""
    return scale_and_shift(x, *style.chunk(2, dim=1))
