"""Class labels as one-hot vectors."""

from abc import ABC

import torch
from torch import Tensor

from sefa.generators.generator import Generator, Truncation


class OneHotGenerator(Generator, ABC):
    """A generator with L = 1 whose code is z itself, followed by the one-hot label if there are classes."""

    num_layers = 1
    image_range: tuple[float, float]  # values for black and for white, before the image is brought to [-1, 1]

    def __init__(self, z_dim: int, num_classes: int, image_range: tuple[float, float]) -> None:
        super().__init__()
        self.z_dim = z_dim
        self.num_classes = self.class_dim = num_classes
        self.code_dim = z_dim + num_classes
        self.image_range = image_range

    def _encode(self, z: Tensor, label: Tensor | None, truncation: Truncation, truncation_layers: int | None) -> Tensor:
        code = z if label is None else torch.cat([z, one_hot(label, self.num_classes)], dim=1)
        return code[:, None]  # [N, 1, z_dim + num_classes]

    def _centred(self, image: Tensor) -> Tensor:
        """Bring an image from `image_range` to [-1, 1]."""
        low, high = self.image_range
        return image if (low, high) == (-1, 1) else (image - low) * (2 / (high - low)) - 1


def one_hot(label: Tensor, num_classes: int) -> Tensor:
    """Turn class indices [N] into one-hot rows, float32 [N, num_classes]."""
    return (label[:, None] == torch.arange(num_classes, device=label.device)).float()
