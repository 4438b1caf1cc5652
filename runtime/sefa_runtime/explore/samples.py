"""The images that effects are measured on, rendered by an Editor from some latents."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from sefa_runtime.editor import MAX_BATCH, Editor, as_images
from sefa_runtime.images import Images
from sefa_runtime.inputs.call import Call
from sefa_runtime.inputs.edits import NamedEdits

# Bytes of images held at once, and in the cache: nearly all of a direction's, if they are of 1024x1024 pixels.
MAX_BYTES = 64 << 20
MAX_CACHED_BYTES = 512 << 20
# Bytes of images rendered at once on the CPU, where large images are not faster together, and only take more memory.
BYTES_AT_ONCE = 1 << 20


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

    progress: Callable[[int], None] = lambda count: None
    count: int = 0
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

    def report(self, count: int) -> None:
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
        images = np.empty((len(keys), len(alphas), *self.image_shape), np.uint8)
        missing = []  # Latent by latent, so that what its first layers compute is used again.
        for row, key in enumerate(keys):
            for step, alpha in enumerate(alphas):
                cached = self.cache.get(key, alpha)
                if cached is None:
                    missing.append((row, step))
                else:
                    images[row, step] = cached
        size = self._batch_size()
        for start in range(0, len(missing), size):
            places = missing[start : start + size]
            edits: NamedEdits = {direction: [alphas[step] for _, step in places]}
            given = {self.editor.info.latent_name: latents[[row for row, _ in places]], **self.inputs}
            rendered = as_images(self.editor.infer(self.editor.prepare(Call(given, edits=edits))))
            for (row, step), image in zip(places, rendered, strict=True):
                images[row, step] = image
                self.cache.keep(keys[row], alphas[step], image)
            self.cache.report(self.cache.count + len(places))
        return images

    def _batch_size(self) -> int:
        """Return how many images to render at once."""
        if self.editor.info.batch is not None:
            return self.editor.info.batch
        if self.editor.provider != "cpu":
            return MAX_BATCH
        return max(1, min(MAX_BATCH, BYTES_AT_ONCE // int(np.prod(self.image_shape))))


def in_parts(samples: Samples, steps: int, most: int = MAX_BATCH) -> Iterator[slice]:
    """Yield the samples in parts of at most `most`, so small that `steps` images of each fit into `MAX_BYTES`."""
    size = max(1, min(most, MAX_BYTES // (steps * int(np.prod(samples.image_shape)))))
    for start in range(0, samples.count, size):
        yield slice(start, min(start + size, samples.count))
