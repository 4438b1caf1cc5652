"""Any module that draws images of latents: a generator of the user's own."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sefa.errors import ArgumentError
from sefa.generators.labels import OneHotGenerator, one_hot
from sefa.generators.latent_layers import affine_weight

CHECK_SEED = 0


@dataclass(frozen=True)
class CallForm:
    """How a module wants its arguments.

    Attributes:
        z_as_image: z as [N, z_dim, 1, 1] rather than [N, z_dim].
        one_hot: The label as float one-hot rows rather than int64 indices.
        label_as_image: One-hot labels as [N, num_classes, 1, 1].
    """

    z_as_image: bool = False
    one_hot: bool = False
    label_as_image: bool = False


class CustomGenerator(OneHotGenerator):
    """A module called as module(z) or module(z, label), and the names of its layers that read the latent.

    L = 1. The code is z, with the one-hot label behind it if there are classes; an edited image is exactly
    module(z + alpha·n, label).
    """

    family = "custom"

    def __init__(
        self,
        module: nn.Module,
        layers: Sequence[str],
        *,
        latent_dim: int,
        num_classes: int,
        form: CallForm,
        image_range: tuple[float, float],
        resolution: tuple[int, int],
        channels: int,
    ) -> None:
        """Wrap a module; `sefa.wrap` finds out `form`, `resolution` and `channels`.

        Args:
            module: In inference mode.
            layers: Names of the layers whose weights make up A.
            latent_dim: Length of z.
            num_classes: Classes, or 0.
            form: How the module wants its arguments.
            image_range: What the module gives for black and for white.
            resolution: Height and width of the image.
            channels: Channels of the image.
        """
        super().__init__()
        self.module = module
        self.layers = tuple(layers)
        self.z_dim = latent_dim
        self.num_classes = num_classes
        self.code_dim = latent_dim + num_classes
        self.form = form
        self.image_range = image_range
        self.resolution = resolution
        self.channels = channels

    def decode(self, codes: Tensor) -> Tensor:
        image = image_of(self.call(codes.squeeze(1)))  # [N, C, H, W]
        low, high = self.image_range
        return image if (low, high) == (-1, 1) else (image - low) * (2 / (high - low)) - 1

    def call(self, code: Tensor) -> object:
        """What the module gives for codes [N, z_dim + num_classes]."""
        return call(self.module, code, self.z_dim, self.form)

    def affines(self) -> list[Tensor]:
        if not self.layers:
            raise ArgumentError("no layers were named that read the latent first: no directions can be found")
        device = next(self.parameters()).device
        codes = random_codes(2, self.z_dim, self.num_classes).to(device)
        found = [affine_weight(self.module, name, self.call, codes, self.z_dim) for name in self.layers]
        A = torch.cat(found)  # [out, z_dim]
        return [torch.cat([A, A.new_zeros(len(A), self.num_classes)], dim=1)]  # The class is not looked at.


def call(module: nn.Module, code: Tensor, z_dim: int, form: CallForm) -> object:
    """Call a module with the latents and classes in codes [N, z_dim + num_classes]."""
    z = code[:, :z_dim]
    arguments = [z[:, :, None, None] if form.z_as_image else z]
    if code.shape[1] > z_dim:
        label = code[:, z_dim:] if form.one_hot else code[:, z_dim:].argmax(dim=1)
        arguments.append(label[:, :, None, None] if form.label_as_image else label)
    return module(*arguments)


def image_of(result: object) -> Tensor:
    """The image in what a module gives: the result itself, or the first of several."""
    if isinstance(result, tuple | list) and result:
        result = result[0]
    assert isinstance(result, Tensor)
    return result


def random_codes(count: int, z_dim: int, num_classes: int, seed: int = CHECK_SEED) -> Tensor:
    """Random latents with classes behind them, the same at every call, float32 [count, z_dim + num_classes]."""
    random = torch.Generator().manual_seed(seed)
    z = torch.randn(count, z_dim, generator=random)
    if not num_classes:
        return z
    label = torch.randint(num_classes, (count,), generator=random)
    return torch.cat([z, one_hot(label, num_classes)], dim=1)
