"""What PyTorch drew at export, small enough to travel in the file: mean levels of the parts of a few images."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sefa_runtime.inputs.latents import latents_from_seeds
from sefa_runtime.model.info import REFERENCE_GRID, ModelInfo

ALPHAS = (0.0, 1.5, -1.5, 3.0)  # of the images, one edit each
TRUNCATIONS = (1.0, 0.7, 0.7, 0.5)
GRID = REFERENCE_GRID  # parts of an image, down and across


def reference_inputs(info: ModelInfo) -> dict[str, NDArray[Any]]:
    """Arguments for `Editor.run`, the same for every model of one kind: an image for each of `ALPHAS`.

    They have one edit each, and none of a model that was exported for none.
    """
    count = len(ALPHAS)
    edits = 0 if info.num_edits == 0 else 1
    latents = latents_from_seeds(range(count), math.prod(info.latent_shape)).reshape(count, *info.latent_shape)
    # Codes as large as those that the mapping makes.
    scale = 1.0 if info.code_rms is None else sum(info.code_rms) / 2
    inputs: dict[str, NDArray[Any]] = {
        info.latent_name: latents * np.float32(scale),
        "direction": (np.arange(count) % len(info.directions))[:, None][:, :edits],
        "alpha": np.array(ALPHAS, np.float32)[:, None][:, :edits],
    }
    if info.takes_label:
        inputs["label"] = np.arange(count) % info.num_classes
    if info.truncation is None:
        inputs["truncation"] = np.array(TRUNCATIONS, np.float32)
    return inputs


def mean_levels(images: NDArray[np.uint8]) -> NDArray[np.float64]:
    """The mean of each channel in each of `GRID`² parts, or of single pixels where there are fewer.

    Args:
        images: [N, H, W, C].

    Returns:
        [N, parts · C], in grey levels, row by row of the grid.
    """
    height, width = images.shape[1:3]
    rows = np.array_split(np.arange(height), min(GRID, height))
    columns = np.array_split(np.arange(width), min(GRID, width))
    parts = [images[:, row[0] : row[-1] + 1, column[0] : column[-1] + 1] for row in rows for column in columns]
    return np.concatenate([part.mean(axis=(1, 2), dtype=np.float64) for part in parts], axis=1)
