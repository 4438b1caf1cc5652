"""Class labels as one-hot vectors."""

from abc import ABC

import torch
from torch import Tensor

from sefa.generators.generator import Generator, Truncation


class OneHotGenerator(Generator, ABC):
    """A generator of L = 1 whose code is z itself, with the one-hot label behind it if there are classes."""

    num_layers = 1

    @property
    def latent_dim(self) -> int:
        return self.z_dim

    def _encode(self, z: Tensor, label: Tensor | None, truncation: Truncation, truncation_layers: int | None) -> Tensor:
        code = z if label is None else torch.cat([z, one_hot(label, self.num_classes)], dim=1)
        return code[:, None]  # [N, 1, z_dim + num_classes]


def one_hot(label: Tensor, num_classes: int) -> Tensor:
    """Class indices [N] to one-hot rows, float32 [N, num_classes]."""
    return (label[:, None] == torch.arange(num_classes, device=label.device)).float()
