"""A generator of the user's own: any module that turns latents into images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import torch
from torch import Tensor, nn

from sefa.choices import LabelFormat
from sefa.custom.latent_layers import affine_weight
from sefa.custom.probing import Probe
from sefa.errors import ArgumentError
from sefa.generators.common.labels import OneHotGenerator, one_hot

CHECK_SEED = 0
# Lengths, relative to usual latents, of the latents used to probe a layer: they reveal a normalised or clipped z.
PROBE_LENGTHS = (1.0, 1.0, 0.5, 2.0, 4.0, 1.0, 1.0, 0.25)
PROBE_SAME_CLASS = 5  # how many of these, from the first, have the same class


class Axes(StrEnum):
    """The axes in which a module takes the latents, or one-hot labels, of N images."""

    FLAT = "flat"  # [N, D]
    IMAGE = "image"  # [N, D, 1, 1]
    SEQUENCE = "sequence"  # [N, 1, D]

    def of(self, x: Tensor) -> Tensor:
        """Reshape [N, D] to these axes."""
        return {Axes.FLAT: x, Axes.IMAGE: x[:, :, None, None], Axes.SEQUENCE: x[:, None]}[self]

    def in_words(self, size: int) -> str:
        """Return the shape for one image as text."""
        return {Axes.FLAT: f"{size}", Axes.IMAGE: f"{size}, 1, 1", Axes.SEQUENCE: f"1, {size}"}[self]


@dataclass(frozen=True)
class CallForm:
    """How a module wants its arguments.

    Attributes:
        z_axes: The latents' axes.
        label_format: How it takes the label, if there are classes.
        label_axes: The axes of a one-hot label.
        none: Whether to pass None as the second argument, if there are no classes.
    """

    z_axes: Axes = Axes.FLAT
    label_format: LabelFormat = LabelFormat.INDEX
    label_axes: Axes = Axes.FLAT
    none: bool = False


@dataclass(frozen=True)
class ImageForm:
    """Where the image is in a module's output.

    Attributes:
        path: Keys, attributes and indices that lead to it; empty if the output is the image.
        channels_last: Whether images are [N, H, W, C] rather than [N, C, H, W].
    """

    path: tuple[str, ...] = ()
    channels_last: bool = False


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
        """
        super().__init__(latent_dim, num_classes, image_range)
        self.module = module
        self.layers = tuple(layers)
        self.form = form
        self.image_form = image_form
        self.resolution = resolution
        self.channels = channels

    def decode(self, codes: Tensor) -> Tensor:
        return self._centred(image_of(self.call(codes.squeeze(1)), self.image_form))  # [N, C, H, W]

    def call(self, code: Tensor) -> object:
        """Return the module's output for codes [N, z_dim + num_classes]."""
        return call(self.module, code, self.z_dim, self.form)

    def affines(self) -> list[Tensor]:
        if not self.layers:
            raise ArgumentError("no layers were named that read the latent first: no directions can be found")
        device = next(self.parameters()).device
        probe = _probe(self.z_dim, self.num_classes, device)
        found = [affine_weight(self.module, name, self.call, probe) for name in self.layers]
        A = torch.cat(found)  # [out, z_dim]
        return [torch.cat([A, A.new_zeros(len(A), self.num_classes)], dim=1)]  # zeros for the class


def call(module: nn.Module, codes: Tensor, z_dim: int, form: CallForm) -> object:
    """Call a module with the latents and classes in codes [N, z_dim + num_classes]."""
    return module(*arguments_for(codes, z_dim, form))


def arguments_for(codes: Tensor, z_dim: int, form: CallForm) -> list[Tensor | None]:
    """Return the arguments with which to call a module for codes [N, z_dim + num_classes]."""
    # Pass copies: some modules modify their arguments in place.
    arguments: list[Tensor | None] = [form.z_axes.of(codes[:, :z_dim].clone())]
    if codes.shape[1] > z_dim:
        one_hot_label = codes[:, z_dim:]
        is_index = form.label_format is LabelFormat.INDEX
        arguments.append(one_hot_label.argmax(dim=1) if is_index else form.label_axes.of(one_hot_label.clone()))
    elif form.none:
        arguments.append(None)
    return arguments


def image_of(result: object, form: ImageForm) -> Tensor:
    """Return the image in a module's output, float32 [N, C, H, W].

    Raises:
        LookupError: If the output has nothing at the form's path.
    """
    image = entry_of(result, form.path)
    assert isinstance(image, Tensor)
    return (image.permute(0, 3, 1, 2) if form.channels_last else image).float()


def entry_of(result: object, path: Sequence[str]) -> object:
    """Return the entry at a path of keys, attributes and indices.

    Raises:
        LookupError: If there is none.
    """
    for part in path:
        if isinstance(result, Mapping):
            result = result[part]
        elif isinstance(result, list | tuple) and part.isdecimal():
            result = result[int(part)]
        else:
            try:
                result = getattr(result, part)
            except AttributeError:
                raise LookupError(part) from None
    return result


def trial_codes(count: int, z_dim: int, num_classes: int, seed: int = CHECK_SEED) -> Tensor:
    """Return random latents, each followed by its class: [count, z_dim + num_classes], the same at every call."""
    random = torch.Generator().manual_seed(seed)
    z = torch.randn(count, z_dim, generator=random)
    if not num_classes:
        return z
    label = torch.randint(num_classes, (count,), generator=random)
    return torch.cat([z, one_hot(label, num_classes)], dim=1)


def _probe(z_dim: int, num_classes: int, device: torch.device) -> Probe:
    """Make latents of several lengths: five of one class, three of other classes."""
    codes = trial_codes(len(PROBE_LENGTHS), z_dim, num_classes)
    codes[:, :z_dim] *= torch.tensor(PROBE_LENGTHS)[:, None]
    if num_classes:
        label = (torch.arange(len(codes)) - PROBE_SAME_CLASS + 1).clamp_min(0) % num_classes
        codes[:, z_dim:] = one_hot(label, num_classes)
    return Probe(codes.to(device), PROBE_SAME_CLASS, z_dim)
