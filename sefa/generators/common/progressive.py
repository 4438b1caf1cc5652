"""Parts of progressively grown generators: doubling the size, and the image of the level that training had reached.

Source: Karras, Aila, Laine & Lehtinen, "Progressive Growing of GANs for Improved Quality, Stability, and Variation",
ICLR 2018.
"""

from torch import Tensor, nn
from torch.nn import functional as F


def up_conv(inputs: int, outputs: int, bias: bool = True) -> nn.ConvTranspose2d:
    """Make one convolution of nearest-neighbour doubling and a 3x3 convolution, with 4/9 of the multiplications.

    Its kernel is computed by `sefa.checkpoints.parts.growing.up_kernel`.
    """
    return nn.ConvTranspose2d(inputs, outputs, kernel_size=4, stride=2, padding=1, bias=bias)


class ToImage(nn.Module):
    """The image of the level that training had reached, at the size of the fully grown generator.

    While a level fades in, its image is blended with that of the level before:

        image = (1 - fade)·conv(x) + fade·up(conv_before(before))

    The two factors are multiplied into the convolutions. If the level is not the last, its image is then enlarged by
    nearest neighbours.

    Args:
        width: Channels of the level's features.
        width_before: Channels of the previous level's features; None if its image is not blended in.
        channels: Channels of the image.
        scale: How many times larger the image is than the level.
    """

    def __init__(self, width: int, width_before: int | None, channels: int, scale: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, channels, 1)
        self.conv_before = None if width_before is None else nn.Conv2d(width_before, channels, 1)
        self.scale = scale

    def forward(self, x: Tensor, before: Tensor) -> Tensor:
        """[N, width, h, w] and [N, width_before, h/2, w/2] -> [N, channels, scale·h, scale·w]."""
        image: Tensor = self.conv(x)
        if self.conv_before is not None:
            image = image + enlarge(self.conv_before(before), 2)
        return enlarge(image, self.scale) if self.scale > 1 else image


def enlarge(x: Tensor, scale: int) -> Tensor:
    """Enlarge by nearest neighbours: every pixel becomes scale x scale."""
    return F.interpolate(x, scale_factor=float(scale), mode="nearest")
