"""The pictures that effects are measured on: an Editor, and the latents it starts from."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sefa_runtime.editor import MAX_BATCH, Editor
from sefa_runtime.images import Pictures

# Of pictures that are held at once.
MAX_BYTES = 64 << 20


class Samples(Protocol):
    """Some pictures that can be moved along directions."""

    @property
    def count(self) -> int:
        """How many there are."""

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """H, W, C."""

    def sweep(self, direction: int, alphas: Sequence[float], rows: slice) -> Pictures:
        """Some of the pictures at some alphas: uint8 [n, A, H, W, C]."""


@dataclass(frozen=True)
class EditorSamples:
    """The pictures of an Editor from some latents.

    Attributes:
        editor: The loaded model.
        latents: What the model takes, `z`, `w` or `codes`, float32 [N, ...].
        label: The class of all pictures, for a class-conditional model.
        truncation: Truncation psi, for a model that has it as an input.
    """

    editor: Editor
    latents: NDArray[np.float32]
    label: int | None = None
    truncation: float | None = None

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self.latents)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """H, W, C."""
        return self.editor.info.image_shape

    def sweep(self, direction: int, alphas: Sequence[float], rows: slice) -> Pictures:
        """Some of the pictures at some alphas: uint8 [n, A, H, W, C]."""
        latents: dict[str, Any] = {self.editor.info.latent_name: self.latents[rows]}
        return self.editor.sweep(
            **latents, direction=direction, alphas=alphas, label=self.label, truncation=self.truncation
        )


def in_parts(samples: Samples, steps: int, count: int | None = None) -> Iterator[slice]:
    """The first `count` samples in parts, of which `steps` pictures each fit into `MAX_BYTES`."""
    count = samples.count if count is None else min(count, samples.count)
    size = max(1, min(MAX_BATCH, MAX_BYTES // (steps * int(np.prod(samples.image_shape)))))
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))
