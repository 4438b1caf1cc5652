"""A generator of the user's own: any module that turns latents into images."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sefa.custom.calls.forms import CallForm, ImageForm
from sefa.custom.calls.frozen_noise import FrozenNoise
from sefa.custom.latent_layers import affine_weight
from sefa.custom.probing import Probe, trial_codes
from sefa.errors import ArgumentError
from sefa.generators.common.labels import OneHotGenerator, one_hot

# Lengths, relative to usual latents, of the latents used to probe a layer: they reveal a normalised or clipped z.
PROBE_LENGTHS = (1.0, 1.0, 0.5, 2.0, 4.0, 1.0, 1.0, 0.25)
PROBE_SAME_CLASS = 5  # how many of these, from the first, have the same class


class CustomGenerator(OneHotGenerator):
    """A module called as module(z) or module(z, label), with the names of its layers that read the latent.

    L = 1. The code is z, followed by the one-hot label if there are classes; an edited image is exactly
    module(z + alpha·n, label).
    """

    family = "custom"
    runs_user_code = True

    def __init__(
        self,
        module: nn.Module,
        layers: Sequence[str],
        *,
        latent_dim: int,
        num_classes: int,
        form: CallForm,
        image_form: ImageForm,
        image_range: tuple[float, float],
        resolution: tuple[int, int],
        channels: int,
        frozen: FrozenNoise | None = None,
    ) -> None:
        """Wrap a module; `sefa.wrap` determines the forms, `resolution` and `channels`.

        Args:
            module: The module, in inference mode.
            layers: Names of the layers whose weights make up A.
            latent_dim: Length of z.
            num_classes: Number of classes, or 0.
            form: How the module wants its arguments.
            image_form: Where the image is in its output.
            image_range: The module's values for black and for white.
            resolution: Height and width of the image.
            channels: Channels of the image.
            frozen: Constants for the random numbers that it draws.
        """
        super().__init__(latent_dim, num_classes, image_range)
        self.module = module
        self.layers = tuple(layers)
        self.form = form
        self.image_form = image_form
        self.resolution = resolution
        self.channels = channels
        self.frozen = FrozenNoise() if frozen is None else frozen

    def decode(self, codes: Tensor) -> Tensor:
        return self._centred(self.image_form.image_of(self.call(codes.squeeze(1))))  # [N, C, H, W]

    def call(self, code: Tensor) -> object:
        """Return the module's output for codes [N, z_dim + num_classes]."""
        with self.frozen.in_place(self.module):
            return call_module(self.module, code, self.z_dim, self.form)

    def affines(self) -> list[Tensor]:
        if not self.layers:
            raise ArgumentError("no layers were named that read the latent first: no directions can be found")
        device = next(self.parameters()).device
        probe = probe_codes(self.z_dim, self.num_classes, device)
        found = [affine_weight(self.module, name, self.call, probe) for name in self.layers]
        A = torch.cat(found)  # [out, z_dim]
        return [torch.cat([A, A.new_zeros(len(A), self.num_classes)], dim=1)]  # zeros for the class


def call_module(module: nn.Module, codes: Tensor, z_dim: int, form: CallForm) -> object:
    """Call a module with the latents and classes in codes [N, z_dim + num_classes]."""
    positional, keywords = form.arguments_for(codes, z_dim)
    return module(*positional, **keywords)


def probe_codes(z_dim: int, num_classes: int, device: torch.device) -> Probe:
    """Make latents of several lengths: five of one class, three of other classes."""
    codes = trial_codes(len(PROBE_LENGTHS), z_dim, num_classes)
    codes[:, :z_dim] *= torch.tensor(PROBE_LENGTHS)[:, None]
    if num_classes:
        label = (torch.arange(len(codes)) - PROBE_SAME_CLASS + 1).clamp_min(0) % num_classes
        codes[:, z_dim:] = one_hot(label, num_classes)
    return Probe(codes.to(device), PROBE_SAME_CLASS, z_dim)
