"""DCGAN: a stack of convolutions.

Source: Radford, Metz & Chintala, "Unsupervised Representation Learning with Deep Convolutional Generative
Adversarial Networks", ICLR 2016.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from sefa.generators.common.labels import OneHotGenerator


class DCGAN(OneHotGenerator):
    """The generator of a DCGAN or a descendant: a sequence of layers, the first of which turns z into an image.

    L = 1 and the code is z itself, followed by the one-hot label if there are classes, so an edited image is exactly
    G(z + alpha·n).
    """

    family = "dcgan"

    def __init__(
        self,
        layers: Sequence[nn.Module],
        resolution: tuple[int, int],
        channels: int,
        num_classes: int = 0,
        image_range: tuple[float, float] = (-1.0, 1.0),
    ) -> None:
        """Build from layers.

        Args:
            layers: All layers; the first is a ConvTranspose2d that reads z as a 1x1 image, or a Linear, which an
                Unflatten follows.
            resolution: Height and width of the image.
            channels: Channels of the image.
            num_classes: How many of the first layer's inputs, counted from the last, are a one-hot label.
            image_range: The last layer's values for black and for white.
        """
        first = layers[0]
        assert isinstance(first, nn.ConvTranspose2d | nn.Linear)
        inputs = first.in_features if isinstance(first, nn.Linear) else first.in_channels
        super().__init__(inputs - num_classes, num_classes, image_range)
        self.layers = nn.Sequential(*layers)
        self.resolution = resolution
        self.channels = channels

    @property
    def first(self) -> nn.ConvTranspose2d | nn.Linear:
        """The layer that reads the latent."""
        layer: nn.ConvTranspose2d | nn.Linear = self.layers[0]  # type: ignore[assignment]
        return layer

    def decode(self, codes: Tensor) -> Tensor:
        code = codes.squeeze(1)  # [N, D]
        return self._centred(self.layers(code if isinstance(self.first, nn.Linear) else code[:, :, None, None]))

    def affines(self) -> list[Tensor]:
        if isinstance(self.first, nn.Linear):
            return [self.first.weight.detach()]
        # On a 1x1 image a transposed convolution is a matrix: y[o, u, v] = Σ_i weight[i, o, u + p, v + p] z[i].
        weight = self.first.weight.detach()  # [D, out, kh, kw]
        paddings = self.first.padding
        assert isinstance(paddings, tuple)
        for axis, padding in enumerate(paddings, start=2):
            weight = weight.narrow(axis, padding, weight.shape[axis] - 2 * padding)
        return [weight.permute(1, 2, 3, 0).reshape(-1, self.code_dim)]  # [out·h·w, D]
