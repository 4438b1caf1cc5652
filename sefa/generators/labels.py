"""Class labels as vectors."""

import torch
from torch import Tensor


def one_hot(label: Tensor, num_classes: int) -> Tensor:
    """Class indices [N] to one-hot rows, float32 [N, num_classes]."""
    return (label[:, None] == torch.arange(num_classes, device=label.device)).float()
