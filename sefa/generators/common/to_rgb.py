"""The layer of a StyleGAN2 or 3 that turns features into colours."""

import torch
from torch import Tensor, nn


class ToRGB(nn.Module):
    """image = conv1x1(s·x) + bias, s = affine(w), without demodulation.

    Attributes:
        affine: The style's transform, [in, w_dim].
        weight: [channels, in].
        bias: [channels]; None if there is none.
    """

    affine: nn.Linear

    def __init__(
        self,
        inputs: int,
        channels: int,
        size: tuple[int, int],
        w_dim: int,
        clamp: float | None = None,
        bias: bool = True,
    ) -> None:
        """Build without values.

        Args:
            inputs: Channels of the features.
            channels: Channels of the image.
            size: Height and width of both.
            w_dim: Length of w.
            clamp: Largest magnitude of the image; None: no limit.
            bias: Whether there is a bias.
        """
        super().__init__()
        self.size = size
        self.clamp = clamp
        self.affine = nn.Linear(w_dim, inputs)
        self.weight = nn.Parameter(torch.empty(channels, inputs))
        self.bias = nn.Parameter(torch.empty(channels)) if bias else None

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """[N, in, H, W] and [N, w_dim] -> [N, channels, H, W]."""
        # Scaling these few rows per sample takes less work than scaling the pixels.
        weight = self.weight * self.affine(w)[:, None]  # [N, channels, in]
        image: Tensor = weight @ x.flatten(2)  # [N, channels, H·W]
        if self.bias is not None:
            image = image + self.bias[:, None]
        return limit(image, self.clamp).reshape(-1, self.weight.shape[0], *self.size)


def limit(x: Tensor, clamp: float | None) -> Tensor:
    """Clamp to ±clamp; unchanged if it is None."""
    return x if clamp is None else x.clamp(-clamp, clamp)
