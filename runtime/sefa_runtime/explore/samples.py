"""The images that effects are measured on, rendered by an Editor from some latents."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sefa_runtime.editor import MAX_BATCH, Editor
from sefa_runtime.images import Images

# Bytes of images held at once, and in the cache.
MAX_BYTES = 64 << 20
MAX_CACHED_BYTES = 128 << 20


class Samples(Protocol):
    """Images that can be moved along directions."""

    @property
    def count(self) -> int:
        """How many there are."""

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """H, W, C."""

    def sweep(self, direction: int, alphas: Sequence[float], rows: slice) -> Images:
        """Return some of the images at some alphas: uint8 [n, A, H, W, C]."""


@dataclass
class ImageCache:
    """Rendered images, as far as there is room: unedited ones, and those of the current direction.

    Attributes:
        progress: Called after each run of the model with the number of images rendered in all.
        count: That number.
    """

    progress: Callable[[float], None] = lambda count: None
    count: float = 0
    _direction: int | None = None
    _room: int = MAX_CACHED_BYTES
    _unedited: dict[bytes, Images] = field(default_factory=dict)  # by latent
    _edited: dict[tuple[bytes, float], Images] = field(default_factory=dict)  # by latent and alpha

    def turn_to(self, direction: int) -> None:
        """Make a direction the current one, and forget the images of the last if it was another."""
        if direction != self._direction:
            self._room += sum(image.nbytes for image in self._edited.values())
            self._edited.clear()
            self._direction = direction

    def get(self, latent: bytes, alpha: float) -> Images | None:
        """Return an image; None if it is not in the cache."""
        return self._edited.get((latent, alpha)) if alpha else self._unedited.get(latent)

    def keep(self, latent: bytes, alpha: float, image: Images) -> None:
        """Store an image, if there is room."""
        if image.nbytes > self._room or self.get(latent, alpha) is not None:
            return
        self._room -= image.nbytes
        if alpha:
            self._edited[latent, alpha] = image.copy()  # A view would keep its whole batch in memory.
        else:
            self._unedited[latent] = image.copy()

    def report(self, count: float) -> None:
        """Report the number of images rendered in all."""
        self.count = count
        self.progress(count)


@dataclass(frozen=True)
class EditorSamples:
    """The images that an Editor renders from some latents.

    Attributes:
        editor: The loaded model.
        latents: What the model takes, `z`, `w` or `codes`, float32 [N, ...].
        inputs: Its other inputs, one number each for all images: `label`, `truncation`, ...
        cache: Images already rendered; shared by samples of the same model with the same inputs.
    """

    editor: Editor
    latents: NDArray[np.float32]
    inputs: Mapping[str, float | None]
    cache: ImageCache = field(default_factory=ImageCache)

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self.latents)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """H, W, C."""
        return self.editor.info.image_shape

    def sweep(self, direction: int, alphas: Sequence[float], rows: slice) -> Images:
        """Return some of the images at some alphas: uint8 [n, A, H, W, C]."""
        latents = self.latents[rows]
        keys = [latent.tobytes() for latent in latents]
        self.cache.turn_to(direction)
        missing = [alpha for alpha in alphas if any(self.cache.get(key, alpha) is None for key in keys)]
        fresh = dict(zip(missing, self._render(direction, missing, latents).swapaxes(0, 1), strict=True))
        images = np.empty((len(keys), len(alphas), *self.image_shape), np.uint8)
        for row, key in enumerate(keys):
            for step, alpha in enumerate(alphas):
                cached = self.cache.get(key, alpha)
                images[row, step] = fresh[alpha][row] if cached is None else cached
                self.cache.keep(key, alpha, images[row, step])
        return images

    def _render(self, direction: int, alphas: Sequence[float], latents: NDArray[np.float32]) -> Images:
        if not alphas:
            return np.empty((len(latents), 0, *self.image_shape), np.uint8)
        before, more = self.cache.count, len(latents) * len(alphas)
        given: dict[str, Any] = {self.editor.info.latent_name: latents, **self.inputs}
        return self.editor.sweep(
            direction=direction, alphas=alphas, progress=lambda share: self.cache.report(before + share * more), **given
        )


def in_parts(samples: Samples, steps: int, count: int | None = None) -> Iterator[slice]:
    """Yield the first `count` samples in parts small enough that `steps` images of each sample fit into `MAX_BYTES`."""
    count = samples.count if count is None else min(count, samples.count)
    size = max(1, min(MAX_BATCH, MAX_BYTES // (steps * int(np.prod(samples.image_shape)))))
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))
