"""How a user's module takes its arguments, and where the image is in its output."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from torch import Tensor

from sefa.choices import LabelFormat
from sefa.custom.calls.call_text import LABEL, LATENT, Call, parse_call

# How a module is called unless the user says otherwise.
PLAIN, WITH_LABEL, WITH_NONE = map(parse_call, ("z", "z,label", "z,None"))


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
        call: Its arguments, with names in the places of latent and label.
        z_axes: The latents' axes.
        label_format: How it takes the label, if there are classes.
        label_axes: The axes of a one-hot label.
    """

    call: Call = PLAIN
    z_axes: Axes = Axes.FLAT
    label_format: LabelFormat = LabelFormat.INDEX
    label_axes: Axes = Axes.FLAT

    def arguments_for(self, codes: Tensor, z_dim: int) -> tuple[list[object], dict[str, object]]:
        """Return the positional and keyword arguments for codes [N, z_dim + num_classes]."""
        # Pass copies: some modules modify their arguments in place.
        values: dict[str, object] = {LATENT: self.z_axes.of(codes[:, :z_dim].clone())}
        if codes.shape[1] > z_dim:
            one_hot_label = codes[:, z_dim:]
            is_index = self.label_format is LabelFormat.INDEX
            values[LABEL] = one_hot_label.argmax(dim=1) if is_index else self.label_axes.of(one_hot_label.clone())
        return self.call.filled(values)


@dataclass(frozen=True)
class ImageForm:
    """Where the image is in a module's output.

    Attributes:
        path: Keys, attributes and indices that lead to it; empty if the output is the image.
        channels_last: Whether images are [N, H, W, C] rather than [N, C, H, W].
    """

    path: tuple[str, ...] = ()
    channels_last: bool = False

    def image_of(self, result: object) -> Tensor:
        """Return the image in a module's output, float32 [N, C, H, W].

        Raises:
            LookupError: If the output has nothing at the form's path.
        """
        image = entry_of(result, self.path)
        assert isinstance(image, Tensor)
        return (image.permute(0, 3, 1, 2) if self.channels_last else image).float()


def entry_of(result: object, path: Sequence[str]) -> object:
    """Return the entry at a path of keys, attributes and indices.

    Raises:
        LookupError: If there is none.
    """
    for part in path:
        is_index = part.removeprefix("-").isdecimal()
        if isinstance(result, Mapping) and (part in result or not is_index):
            result = result[part]
        elif isinstance(result, Mapping | list | tuple) and is_index:
            result = result[int(part)]
        else:
            try:
                result = getattr(result, part)
            except AttributeError:
                raise LookupError(part) from None
    return result
