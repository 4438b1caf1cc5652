"""Read the layers of one nn.Sequential, nested or not, from the keys of its state dict.

Gaps in the numbering show where layers without weights stand.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor

from sefa.errors import CheckpointError

# `main.3.weight` or `main.1.0.weight`: an nn.Sequential under any name, and the entry's position in it.
KEY = re.compile(r"(?:(?P<sequence>.{1,500}?)\.)?(?P<path>\d{1,4}(?:\.\d{1,4}){0,5})\.(?P<entry>\w+)")
Path = tuple[int, ...]
STATISTICS = {"running_mean", "running_var"}
OWN_CODE = "read it with its own code, MODULE:CLASS --weights FILE"


@dataclass(frozen=True)
class SequentialLayer:
    """A layer with weights: its position, and its tensors."""

    path: Path
    entry: Mapping[str, Tensor]

    @property
    def name(self) -> str:
        return ".".join(map(str, self.path))

    @property
    def is_conv(self) -> bool:
        return "weight" in self.entry and self.weight.ndim == 4

    @property
    def weight(self) -> Tensor:
        return self.entry["weight"]

    @property
    def shapes(self) -> str:
        """Its tensors' names and shapes, for messages."""
        return ", ".join(f"{name} {list(tensor.shape)}" for name, tensor in self.entry.items())

    @property
    def kernel(self) -> tuple[int, int]:
        return self.weight.shape[2], self.weight.shape[3]

    @property
    def kernel_text(self) -> str:
        """The kernel's size as text: 4x4."""
        return "x".join(map(str, self.kernel))


@dataclass(frozen=True)
class Between:
    """What stands between two convolutions.

    Attributes:
        norm: The batch norm, if there is one.
        has_activation: Whether there is an activation.
        is_before_norm: Whether the activation stands before the norm.
        has_upsampling: Whether the image is enlarged.
        has_dropout: Whether a second layer without weights stands there: the upsampling if there is one, otherwise a
            layer without effect.
    """

    norm: SequentialLayer | None
    has_activation: bool
    is_before_norm: bool = False
    has_upsampling: bool = False
    has_dropout: bool = False


def begins_with_convolution(tensors: Mapping[str, object]) -> bool:
    """Return whether the keys are those of one nn.Sequential that begins with a convolution."""
    matches = [KEY.fullmatch(key) for key in tensors]
    if not tensors or not all(matches) or len({match["sequence"] for match in matches if match}) != 1:
        return False
    first = min((match for match in matches if match), key=lambda match: _path(match["path"]))
    weight = tensors.get(first[0].removesuffix(first["entry"]) + "weight")
    return isinstance(weight, Tensor) and weight.ndim == 4


def layers_of(tensors: Mapping[str, Tensor]) -> list[SequentialLayer]:
    """Return the layers with weights, in order.

    Raises:
        CheckpointError: If there is anything but convolutions and batch norms.
    """
    entries: dict[Path, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        match = KEY.fullmatch(key)
        if match is None:
            raise CheckpointError(f"not a DCGAN: unexpected key {key}")
        if match["entry"] != "num_batches_tracked":
            entries.setdefault(_path(match["path"]), {})[match["entry"]] = tensor
    layers = [SequentialLayer(path, entries[path]) for path in sorted(entries)]
    for one, following in pairwise(layers):
        if following.path[: len(one.path)] == one.path:
            raise CheckpointError(f"not a DCGAN: layer {following.name} lies within layer {one.name}; {OWN_CODE}")
    for layer in layers:
        names = set(layer.entry)
        if layer.is_conv and names <= {"weight", "bias"}:
            continue
        if not layer.is_conv and STATISTICS <= names <= STATISTICS | {"weight", "bias"}:
            continue
        if names <= {"weight", "bias"} and all(tensor.ndim == 1 for tensor in layer.entry.values()):
            raise CheckpointError(
                f"layer {layer.name} has {layer.shapes}, as a PReLU, an InstanceNorm2d, a GroupNorm, and a "
                f"BatchNorm2d without statistics have; a BatchNorm2d with statistics was expected; {OWN_CODE}"
            )
        raise CheckpointError(
            f"not a DCGAN: layer {layer.name} has {layer.shapes}; a convolution or BatchNorm2d was expected; {OWN_CODE}"
        )
    return layers


def layers_between(
    layers: Sequence[SequentialLayer], conv: SequentialLayer, following: SequentialLayer, kind: str
) -> Between:
    """Return what the numbering shows about the layers without weights between two convolutions.

    Args:
        layers: All layers with weights.
        conv: The first of the two.
        following: The second.
        kind: The second one's kind, `transposed` or `plain`.

    Raises:
        CheckpointError: If the numbering does not show what they are.
    """
    norm = norm_after(layers, conv, following)
    before_norm, _ = _gap(conv.path, norm.path) if norm else (0, False)
    known, is_open = _gap((norm or conv).path, following.path)
    if norm and before_norm == 1 and known == 0:
        return Between(norm, True, is_before_norm=True)
    # Layers after the last weights of an inner nn.Sequential leave no gap: one is assumed there.
    total = known + is_open
    if before_norm or total > 2:
        raise CheckpointError(
            f"{before_norm + total} layers without weights stand between layers {conv.name} and {following.name}, and "
            f"no tensor tells what they are; {OWN_CODE}"
        )
    second = total == 2
    return Between(norm, total > 0, has_upsampling=second and kind == "plain", has_dropout=second)


def norm_after(
    layers: Sequence[SequentialLayer], conv: SequentialLayer, following: SequentialLayer | None = None
) -> SequentialLayer | None:
    """Return the batch norm after a convolution: before the `following` convolution, or before the end if it is None.

    Raises:
        CheckpointError: If there are several, or, after the last convolution, a layer without weights stands before it.
    """
    found = [layer for layer in layers if conv.path < layer.path and (following is None or layer.path < following.path)]
    if len(found) > 1:
        raise CheckpointError(
            f"not a DCGAN: layers {', '.join(layer.name for layer in found)} all follow convolution {conv.name}; "
            f"{OWN_CODE}"
        )
    if found and following is None and _gap(conv.path, found[0].path) != (0, False):
        raise CheckpointError(
            f"something without weights stands before layer {found[0].name}, and no tensor tells what; {OWN_CODE}"
        )
    return found[0] if found else None


def order_of(key: str) -> Path:
    """Return the position of a key's layer, for sorting."""
    match = KEY.fullmatch(key)
    return _path(match["path"]) if match else ()


def _gap(one: Path, other: Path) -> tuple[int, bool]:
    """Return how many places lie between two positions, and whether the end of an inner sequence may hide more."""
    level = next(index for index, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
    return other[level] - one[level] - 1 + sum(other[level + 1 :]), len(one) > level + 1


def _path(text: str) -> Path:
    return tuple(map(int, text.split(".")))
