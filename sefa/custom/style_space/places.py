"""Where a user's module keeps one vector per image: in tensors of any shape, repeated or not."""

from dataclasses import dataclass

import torch
from torch import Tensor

MAX_VECTOR = 2**15  # most entries of a style code


@dataclass(frozen=True)
class Place:
    """How a tensor [N, ...] holds a vector [N, D].

    Attributes:
        shape: The tensor's axes after the first.
        repeated: For each of these axes, whether the vector is repeated along it.
    """

    shape: tuple[int, ...]
    repeated: tuple[bool, ...]

    @property
    def is_single(self) -> bool:
        """Whether the vector lies along one axis, as style codes do, and image features and tokens do not."""
        return self.repeated.count(False) == 1

    def vector(self, x: Tensor) -> Tensor:
        """Return the vector that the tensor holds, [N, D]."""
        for axis, repeated in enumerate(self.repeated, start=1):
            if repeated:
                x = x.narrow(axis, 0, 1)
        return x.flatten(1)

    def tensor(self, v: Tensor) -> Tensor:
        """Return a tensor that holds v [N, D] as `vector` finds it: a copy, since users' layers may work in place."""
        axes = list(zip(self.shape, self.repeated, strict=True))
        once = v.reshape(-1, *(1 if repeated else size for size, repeated in axes))
        if not any(self.repeated):
            return once.clone()
        return once.repeat(1, *(size if repeated else 1 for size, repeated in axes))


def find_place(x: Tensor, count: int) -> Place | None:
    """Find how a tensor holds a vector for each of `count` images; None if it is no vector, or the same for all."""
    if (
        x.ndim < 2
        or len(x) != count
        or not x.is_floating_point()
        or x.numel() == 0
        or torch.equal(x, x[:1].expand_as(x))
    ):
        return None
    repeated = tuple(
        size == 1 or torch.equal(x, x.narrow(axis, 0, 1).expand_as(x)) for axis, size in enumerate(x.shape[1:], start=1)
    )
    place = Place(tuple(x.shape[1:]), repeated)
    return place if 2 <= place.vector(x[:1]).numel() <= MAX_VECTOR else None
