"""PGGAN, the progressively grown generator.

Source: Karras, Aila, Laine & Lehtinen, "Progressive Growing of GANs for Improved Quality, Stability, and Variation",
ICLR 2018.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sefa.generators.common.mapping import pixel_norm
from sefa.generators.common.progressive import ToImage, up_conv
from sefa.generators.generator import Generator, Truncation


class PGGAN(Generator):
    """Levels of two convolutions each; all but the first level begin by doubling the size.

        x = norm(code);  x = norm(lrelu(layer(x))) for all layers;  image = to_image(x)

    where norm scales the channels to unit mean square. The code is z followed by the class code. z is normalised inside
    `decode`, after the edit, so an edited image is exactly G(z + alpha·n).

    Implementations differ in how a label joins z: with `normalize_z`, z is normalised on its own before z and the class
    code are normalised together.

    Args:
        z_dim: Length of z.
        class_codes: Number of classes and length of a class code; zeros for an unconditional generator.
        base: Height and width of the first level.
        widths: Output channels of each layer, two layers per level.
        to_image: Turns features into the image.
        normalize_z: Whether z is first normalised on its own.
        slope: Negative slope of the leaky ReLU.
        tanh: Whether the image passes through a tanh.
        epsilons: Added to the mean square by norm, and to its root.
    """

    family = "pggan"
    normalizes_codes = True
    num_layers = 1

    def __init__(
        self,
        z_dim: int,
        class_codes: tuple[int, int],
        base: tuple[int, int],
        widths: Sequence[int],
        to_image: ToImage,
        normalize_z: bool = False,
        slope: float = 0.2,
        tanh: bool = False,
        epsilons: tuple[float, float] = (1e-8, 0.0),
    ) -> None:
        super().__init__()
        self.num_classes, self.class_dim = class_codes
        self.z_dim = z_dim
        self.code_dim = z_dim + self.class_dim
        self.base = base
        self.normalize_z = normalize_z
        self.slope = slope
        self.tanh = tanh
        self.epsilons = epsilons
        # One row per class: what follows z, [num_classes, class_dim].
        self.class_codes = nn.Parameter(torch.empty(class_codes)) if self.num_classes else None
        self.dense = nn.Linear(self.code_dim, widths[0] * base[0] * base[1])
        self.convs = nn.ModuleList(
            up_conv(widths[k - 1], widths[k]) if k % 2 == 0 else nn.Conv2d(widths[k - 1], widths[k], 3, padding=1)
            for k in range(1, len(widths))
        )
        self.to_image = to_image
        factor = 2 ** (len(widths) // 2 - 1) * to_image.scale
        self.resolution = (base[0] * factor, base[1] * factor)
        self.channels = to_image.conv.out_channels

    def _encode(self, z: Tensor, label: Tensor | None, truncation: Truncation, truncation_layers: int | None) -> Tensor:
        if self.class_codes is not None and label is not None:
            z = torch.cat([z, F.embedding(label, self.class_codes)], dim=1)
        return z[:, None]  # [N, 1, D]

    def decode(self, codes: Tensor) -> Tensor:
        code = self.normalize_codes(codes.squeeze(1))  # [N, D]
        x = before = self._activate(self.dense(code).unflatten(1, (-1, *self.base)))  # [N, C, 4, 4]
        for k, conv in enumerate(self.convs, start=1):
            if k % 2 == 0:
                before = x
            x = self._activate(conv(x))
        image: Tensor = self.to_image(x, before)
        return torch.tanh(image) if self.tanh else image

    def normalize_codes(self, codes: Tensor) -> Tensor:
        if self.normalize_z:
            codes = torch.cat([pixel_norm(codes[:, : self.z_dim]), codes[:, self.z_dim :]], dim=1)
        return pixel_norm(codes)

    def affines(self) -> list[Tensor]:
        return [self.dense.weight.detach()]  # [C·4·4, D]

    def _activate(self, x: Tensor) -> Tensor:
        """Return norm(lrelu(x)), [N, C, H, W]."""
        x = F.leaky_relu(x, self.slope)
        # Compute the mean over channels as a convolution: onnxruntime takes several times as long to reduce that axis.
        mean = torch.full((1, x.shape[1], 1, 1), 1 / x.shape[1], dtype=x.dtype, device=x.device)
        inner, outer = self.epsilons
        rms = (F.conv2d(x * x, mean) + inner).sqrt()
        return x / (rms + outer if outer else rms)
