"""What every generator family offers."""

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor, nn


class Generator(nn.Module, ABC):
    """A trained generator, seen as two steps: a latent is encoded to codes, the codes are decoded to an image.

    An edit is added to the codes, between the two steps.

    Attributes:
        family: Name of the architecture: "dcgan".
        z_dim: Length of the latent z.
        code_dim: Length D of one layer's code.
        num_layers: Number L of layers that read a code of their own.
        resolution: Height and width of the image.
        channels: Channels of the image.
        num_classes: Classes of a conditional generator; 0 if there are none.
        source_sha256: sha256 of the checkpoint file, in hex; empty if it was not loaded from a file.
    """

    family: ClassVar[str]
    z_dim: int
    code_dim: int
    num_layers: int
    resolution: tuple[int, int]
    channels: int
    num_classes: int
    source_sha256: str = ""

    @abstractmethod
    def encode(self, z: Tensor, label: Tensor | None = None, truncation: float = 1.0) -> Tensor:
        """Turn latents into the codes that the layers read.

        Args:
            z: Shape [N, z_dim].
            label: Class indices, shape [N]; None for an unconditional generator.
            truncation: Truncation psi; 1 is off.

        Returns:
            codes: Shape [N, L, D].

        Raises:
            ArgumentError: If the family has no such input.
        """

    @abstractmethod
    def decode(self, codes: Tensor) -> Tensor:
        """Turn codes into images.

        Args:
            codes: Shape [N, L, D].

        Returns:
            image: Shape [N, C, H, W], nominally in [-1, 1].
        """

    @abstractmethod
    def affines(self) -> list[Tensor]:
        """The first transform that each layer's code meets.

        Returns:
            One effective (gain-applied) weight A per layer, shape [out_features, D].
        """
