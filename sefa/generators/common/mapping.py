"""The mapping network of the StyleGANs, and the truncation that follows it.

Source: Karras, Laine & Aila, "A Style-Based Generator Architecture for Generative Adversarial Networks", CVPR 2019.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from enum import Enum

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sefa.generators.generator import Generator, Truncation

# How many latents are sampled to measure the mapping network's style codes.
SAMPLES = 4096
SEED = 0
CHUNK = 512


def pixel_norm(x: Tensor) -> Tensor:
    """Scale the channels, axis 1, to unit mean square."""
    return x * (x.square().mean(dim=1, keepdim=True) + 1e-8).rsqrt()


class LabelNorm(Enum):
    """How the label's embedding y is joined to the latent z."""

    JOINT = "joint"  # norm(concat(z, y)): StyleGAN 1 and 2
    SEPARATE = "separate"  # concat(norm(z), norm(y)): ADA, StyleGAN3


class MappingNetwork(nn.Module, ABC):
    """w = f(z, label).

    Attributes:
        z_dim: Length of z; 0 if w depends on the label alone.
        num_classes: Number of classes of a conditional generator, or 0.
    """

    z_dim: int
    num_classes: int

    @abstractmethod
    def forward(self, z: Tensor, label: Tensor | None) -> Tensor:
        """[N, z_dim] and [N] -> [N, w_dim]."""


class Mapping(MappingNetwork):
    """w = f(z, label): x = norm(z); x = lrelu(W·x + b) for every layer.

    The weights are effective ones: learning-rate multipliers, equalised gains and the √2 that follows the activation in
    StyleGAN2 are multiplied in. For the √2 this is exact, since lrelu(√2·x) = √2·lrelu(x).

    Args:
        z_dim: Length of z; 0 if w depends on the label alone.
        widths: Length of each layer's output; the last is w_dim.
        num_classes: Number of classes of a conditional generator, or 0.
        embed_dim: Length of a class embedding.
        label_norm: How the embedding is joined to the latent.
    """

    def __init__(
        self,
        z_dim: int,
        widths: Sequence[int],
        num_classes: int = 0,
        embed_dim: int = 0,
        label_norm: LabelNorm = LabelNorm.SEPARATE,
    ) -> None:
        super().__init__()
        self.z_dim = z_dim
        self.num_classes = num_classes
        self.label_norm = label_norm
        # One row per class, [num_classes, embed_dim]: the file's embedding of a one-hot label.
        self.embedding = nn.Parameter(torch.empty(num_classes, embed_dim)) if num_classes else None
        inputs = [z_dim + (embed_dim if num_classes else 0), *widths]
        self.layers = nn.ModuleList(nn.Linear(inputs[i], inputs[i + 1]) for i in range(len(widths)))

    def forward(self, z: Tensor, label: Tensor | None) -> Tensor:
        """[N, z_dim] and [N] -> [N, w_dim]."""
        x = self._join(z, label)
        for layer in self.layers:
            x = F.leaky_relu(layer(x), 0.2)
        return x

    def _join(self, z: Tensor, label: Tensor | None) -> Tensor:
        if self.embedding is None or label is None:
            return pixel_norm(z)
        y = F.embedding(label, self.embedding)  # [N, embed_dim]
        if self.label_norm is LabelNorm.JOINT:
            return pixel_norm(torch.cat([z, y], dim=1))
        return torch.cat([pixel_norm(z), pixel_norm(y)], dim=1) if self.z_dim else pixel_norm(y)


class StyleBasedGenerator(Generator, ABC):
    """A generator whose layers read style codes w, which a mapping network computes from z.

    codes[:, l] = center + psi·(w - center); D = w_dim, and an edit may change the copies of w for any layers.

    Attributes:
        mapping: The mapping network.
        center: Centre of truncation, [w_dim], one row per class, [num_classes, w_dim], or, if a file has one for each
            layer, one row per layer, [L, w_dim].
        center_per_layer: Whether there is a centre for each layer.
    """

    has_style_codes = True
    center: Tensor
    center_per_layer: bool = False

    def __init__(self, mapping: MappingNetwork, w_dim: int, center_per_class: bool = False) -> None:
        super().__init__()
        self.mapping = mapping
        self.register_buffer("center", torch.empty(*([mapping.num_classes] if center_per_class else []), w_dim))
        self.z_dim = mapping.z_dim
        self.code_dim = w_dim
        self.num_classes = mapping.num_classes

    def _encode(self, z: Tensor, label: Tensor | None, truncation: Truncation, truncation_layers: int | None) -> Tensor:
        w: Tensor = self.mapping(z, label)  # [N, D]
        if not isinstance(truncation, Tensor) and truncation == 1:
            return w[:, None].repeat(1, self.num_layers, 1)  # [N, L, D]
        psi = truncation.reshape(-1, 1) if isinstance(truncation, Tensor) else truncation
        if self.center_per_layer:
            return self._truncate_each_layer(w, psi, truncation_layers)
        center = self.center if label is None or self.center.ndim == 1 else F.embedding(label, self.center)
        truncated = center + psi * (w - center)  # [N, D]
        count = self.num_layers if truncation_layers is None else min(truncation_layers, self.num_layers)
        return torch.cat(
            [truncated[:, None].repeat(1, count, 1), w[:, None].repeat(1, self.num_layers - count, 1)], dim=1
        )

    def _truncate_each_layer(self, w: Tensor, psi: Truncation, truncation_layers: int | None) -> Tensor:
        """Return codes [N, L, D] of w [N, D], each layer's drawn towards its own centre."""
        codes = [center + psi * (w - center) for center in self.center[:truncation_layers]]
        return torch.stack([*codes, *[w] * (self.num_layers - len(codes))], dim=1)

    @torch.no_grad()
    def estimate_center(self) -> None:
        """Set the centre of truncation, for a file without one, to the mean w of seeded latents over all classes."""
        sums = (w.double().sum(dim=0) for w in self._seeded_codes())
        total = sum(sums, torch.zeros(self.latent_dim, dtype=torch.float64))
        self.center = (total / SAMPLES).float()
        self.truncation_center = f"mean of {SAMPLES} latents, seed {SEED}"

    @torch.no_grad()
    def code_rms(self) -> tuple[float, float]:
        """Return the smallest and largest root mean square of w over seeded latents of all classes."""
        rms = torch.cat([w.square().mean(dim=1).sqrt() for w in self._seeded_codes()])
        return float(rms.min()), float(rms.max())

    def _seeded_codes(self) -> Iterator[Tensor]:
        """Yield w [CHUNK, w_dim] at a time, for SAMPLES latents in all."""
        random = torch.Generator().manual_seed(SEED)
        device = next(self.mapping.parameters()).device
        for start in range(0, SAMPLES, CHUNK):
            z = torch.randn(CHUNK, self.z_dim, generator=random).to(device)
            label = torch.arange(start, start + CHUNK, device=device) % self.num_classes if self.num_classes else None
            yield self.mapping(z, label)
