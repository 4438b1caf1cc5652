"""The glyphs that `letters.fonts` saved, as batches for training."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from letters.glyphs import as_images


class Glyphs:
    """Glyphs of some faces, kept as bytes on disk.

    Attributes:
        coverage: [faces, classes, 64, 64], memory-mapped.
        faces: Which of them.
    """

    def __init__(self, folder: Path, held_out: bool) -> None:
        """Open those of a data set's faces that are held out of training, or the others."""
        self.coverage = np.load(folder / "glyphs.npy", mmap_mode="r")
        described = json.loads((folder / "faces.json").read_text())
        self.faces = np.array([i for i, face in enumerate(described) if face["held_out"] == held_out])
        self.num_classes = self.coverage.shape[1]

    def images(self, faces: Sequence[int] | np.ndarray, labels: Sequence[int] | np.ndarray) -> Tensor:
        """Return the images [n, 1, 64, 64] of faces, counted among these, and their labels."""
        return torch.from_numpy(as_images(self.coverage[self.faces[faces], labels]))[:, None]

    def all(self) -> tuple[Tensor, Tensor]:
        """Return all images [n, 1, 64, 64] and labels [n]."""
        faces, labels = np.divmod(np.arange(len(self.faces) * self.num_classes), self.num_classes)
        return self.images(faces, labels), torch.from_numpy(labels)

    def batch(self, labels: Tensor, random: np.random.Generator) -> Tensor:
        """Return images [n, 1, 64, 64] of random faces for labels [n]."""
        return self.images(random.integers(len(self.faces), size=len(labels)), labels.numpy())


def balanced_labels(count: int, group: int, step: int, num_classes: int, seed: int) -> Tensor:
    """Return the labels [count] of a step's batch: each class `group` times in a row, all classes equally often.

    The classes of successive steps are a shuffled list of all, shuffled anew when it is used up.
    """
    classes = count // group
    first = step * classes
    shuffled = [
        np.random.default_rng([seed, turn]).permutation(num_classes)
        for turn in range(first // num_classes, (first + classes - 1) // num_classes + 1)
    ]
    start = first % num_classes
    return torch.from_numpy(np.concatenate(shuffled)[start : start + classes].repeat(group))
