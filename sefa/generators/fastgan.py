"""FastGAN: gated convolutions from a small image of z, whose channels are weighted by what much smaller levels hold.

Source: Liu, Zhu, Song & Elgammal, "Towards Faster and Stabilized GAN Training for High-fidelity Few-shot Image
Synthesis", ICLR 2021; with classes and normalised latents, Sauer, Chitta, Müller & Geiger, "Projected GANs Converge
Faster", NeurIPS 2021.
"""

from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sefa.generators.biggan import ConditionalNorm, Norm
from sefa.generators.common.mapping import pixel_norm
from sefa.generators.common.progressive import up_conv
from sefa.generators.generator import Generator, Truncation

BOTTOM = 4  # height and width of the first features, and of what a gate reads
GATED_BY = 4  # how many levels below the gated one: 64x64 features are gated by the 4x4 ones


class GatedConv(nn.Module):
    """x = glu(norm(conv(x) + noise)).

    Args:
        inputs: Channels of the input.
        outputs: Channels of the output.
        size: Height and width of the output.
        up: Whether nearest-neighbour doubling comes first, which is merged into the convolution.
        noise: Whether constant noise, multiplied by its strength, is added.
        condition_dim: Length of what the norm reads of the class; 0: the norm is unconditional.
    """

    noise: Tensor | None

    def __init__(self, inputs: int, outputs: int, size: int, up: bool, noise: bool, condition_dim: int) -> None:
        super().__init__()
        self.conv = (
            up_conv(inputs, 2 * outputs, bias=False) if up else nn.Conv2d(inputs, 2 * outputs, 3, padding=1, bias=False)
        )
        self.register_buffer("noise", torch.empty(1, 1, size, size) if noise else None)
        self.norm = ConditionalNorm(2 * outputs, condition_dim) if condition_dim else Norm(2 * outputs)

    def forward(self, x: Tensor, *condition: Tensor) -> Tensor:
        """[N, inputs, h, w] and the condition [N, D], if the norm has one -> [N, outputs, H, W]."""
        x = self.conv(x)
        if self.noise is not None:
            x = x + self.noise
        return F.glu(self.norm(x, *condition), dim=1)


class Gate(nn.Module):
    """A factor from 0 to 1 for each channel, computed from another level's features (skip-layer excitation).

        sigmoid(conv1x1(silu(conv4x4(pool(x))))), where the pool makes x 4x4

    Args:
        inputs: Channels of the other level.
        outputs: Channels of the level to which it is applied.
        pool: How many times larger than 4x4 the other level is.
    """

    def __init__(self, inputs: int, outputs: int, pool: int) -> None:
        super().__init__()
        self.pool = pool
        self.squeeze = nn.Conv2d(inputs, outputs, BOTTOM, bias=False)
        self.excite = nn.Conv2d(outputs, outputs, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[N, inputs, 4·pool, 4·pool] -> [N, outputs, 1, 1]."""
        if self.pool > 1:
            x = F.avg_pool2d(x, self.pool)
        return torch.sigmoid(self.excite(F.silu(self.squeeze(x))))


class FastGAN(Generator):
    """The generator of a FastGAN, or of a Projected GAN of that architecture.

        x_4 = glu(norm(linear(z)) as an image);  x_2r = level(x_r) for every resolution r
        x_64 *= gate(x_4), x_128 *= gate(x_8), ...;  image = conv(x_R)

    L = 1: the gates read features, so z enters in one place. With classes, the class embedding, which the norms read,
    follows z. Projected GAN normalises z inside `decode`, after the edit, so an edited image is exactly G(z + alpha·n).
    """

    family = "fastgan"
    num_layers = 1

    def __init__(
        self,
        z_dim: int,
        embedding_shape: tuple[int, int],
        widths: Sequence[int],
        convs: Sequence[int],
        gates: Mapping[int, tuple[int, int]],
        to_image: nn.Conv2d,
        noise: bool,
        normalizes_codes: bool,
        tanh: bool,
    ) -> None:
        """Build without weights.

        Args:
            z_dim: Length of z.
            embedding_shape: Number of classes, and length of a class embedding; zeros without classes.
            widths: Channels of each level, 4x4 first.
            convs: Convolutions of each level after the first; levels of one have no noise.
            gates: For each gated level, by its index, the input and output channels of its gate.
            to_image: The last convolution.
            noise: Whether there is noise.
            normalizes_codes: Whether z is scaled to unit mean square.
            tanh: Whether the image passes through a tanh.
        """
        super().__init__()
        self.num_classes, self.class_dim = embedding_shape
        self.z_dim = z_dim
        self.code_dim = z_dim + self.class_dim
        self.resolution = (BOTTOM << len(widths) - 1,) * 2
        self.channels = to_image.out_channels
        self.normalizes_codes = normalizes_codes
        self.tanh = tanh
        self.embedding = nn.Parameter(torch.empty(embedding_shape)) if self.num_classes else None
        self.linear = nn.Linear(z_dim, 2 * widths[0] * BOTTOM**2, bias=False)
        self.norm = Norm(2 * widths[0])
        self.levels = nn.ModuleList()
        for k, count in enumerate(convs, start=1):
            level = nn.ModuleList()
            for i in range(count):
                inputs = widths[k] if i else widths[k - 1]
                has_noise = noise and count > 1
                level.append(GatedConv(inputs, widths[k], BOTTOM << k, i == 0, has_noise, self.class_dim))
            self.levels.append(level)
        self.gates = nn.ModuleDict({str(k): Gate(*sizes, pool=1 << k - GATED_BY) for k, sizes in gates.items()})
        self.to_image = to_image

    def _encode(self, z: Tensor, label: Tensor | None, truncation: Truncation, truncation_layers: int | None) -> Tensor:
        if self.embedding is not None and label is not None:
            z = torch.cat([z, F.embedding(label, self.embedding)], dim=1)
        return z[:, None]  # [N, 1, D]

    def decode(self, codes: Tensor) -> Tensor:
        code = self.normalize_codes(codes.squeeze(1))  # [N, D]
        condition = [code[:, self.z_dim :]] if self.num_classes else []
        x = self.linear(code[:, : self.z_dim]).unflatten(1, (-1, BOTTOM, BOTTOM))  # [N, 2C, 4, 4]
        features = [F.glu(self.norm(x), dim=1)]
        for k, level in enumerate(self.levels, start=1):
            x = features[-1]
            for conv in cast("nn.ModuleList", level):
                x = conv(x, *condition)
            if str(k) in self.gates:
                x = x * self.gates[str(k)](features[k - GATED_BY])
            features.append(x)  # [N, C, 4·2^k, 4·2^k]
        image: Tensor = self.to_image(features[-1])
        return torch.tanh(image) if self.tanh else image

    def normalize_codes(self, codes: Tensor) -> Tensor:
        if not self.normalizes_codes:
            return codes
        return torch.cat([pixel_norm(codes[:, : self.z_dim]), codes[:, self.z_dim :]], dim=1)

    def affines(self) -> list[Tensor]:
        return [F.pad(self.linear.weight.detach(), (0, self.class_dim))]  # [2C·4·4, D]
