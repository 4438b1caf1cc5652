"""Record what the original code computes from a small checkpoint, for a format's tests.

A script of your own, which is not kept, imports the original code, gives it small sizes and random weights and
statistics, saves them as the original's training does, and calls `record`. That writes
tests/golden/checkpoints/NAME/golden.npz and the checkpoint's entry in MANIFEST.json; the tests in
tests/sefa/checkpoints/formats/test_formats.py then compare our reading with it.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from support.paths import CHECKPOINTS

# In float32 the rank of a matrix shows no closer.
RANK_TOLERANCE = 1e-6
IMAGES = 2
EDITED = (0, 1, 3)
LARGEST = 64  # pixels; of larger images only a window is kept


@dataclass(frozen=True)
class Directions:
    """Which weight a set of directions is of.

    Attributes:
        weight: A [out, in], gains applied: what first transforms the codes, or these columns of z.
        columns: The columns of z that it reads, from and to; None: all, or style codes.
        layers: The layers' indices, if the set is not of all layers.
        edited: Whether edited images are recorded too.
    """

    weight: Tensor
    columns: tuple[int, int] | None = None
    layers: tuple[int, ...] | None = None
    edited: bool = True


def record(
    checkpoint: Path,
    render: Callable[[Tensor, Tensor | None], Tensor],
    z_dim: int,
    sets: Mapping[str, Directions],
    *,
    source: str,
    commit: str,
    config: Mapping[str, Any],
    num_classes: int = 0,
    render_edited: Callable[[Tensor, Tensor | None, Tensor], Tensor] | None = None,
    arrays: Mapping[str, NDArray[Any]] | None = None,
    alphas: tuple[float, float, float] = (1.5, -2.0, 3.0),
    atol: float = 1e-4,
    folder: Path = CHECKPOINTS,
) -> Path:
    """Write golden.npz beside a checkpoint, and its entry in the manifest.

    Args:
        checkpoint: The file, in `folder`/NAME.
        render: The original: latents [N, z_dim] and class indices [N] or None -> images [N, C, H, W], in RGB.
        z_dim: Length of z.
        sets: The sets of directions by name: `linear`, `all`, `block0`; see `GoldenCheckpoint.layers_of`.
        source: The repository: owner/name.
        commit: Its commit.
        config: What the generator was made with, and whatever was done to the original's images.
        num_classes: Number of classes; 0 if there are none.
        render_edited: Likewise of an edited latent, with what the edit adds to z or to the style codes, [D]; by
            default that is added to z.
        arrays: More arrays, such as `w` and `ws`, named as tests/golden/README.md says.
        alphas: Of the three edits: such that they change what is seen, and do not saturate it.
        atol: How far our images may be.
        folder: The folder of the checkpoints.

    Returns:
        The file of arrays.
    """
    name = checkpoint.relative_to(folder).parts[0]
    random = torch.Generator().manual_seed(11)
    z = torch.randn(4, z_dim, generator=random)
    label = torch.randint(num_classes, (4,), generator=random) if num_classes else None
    edit = render_edited or (lambda z, label, step: render(z + step, label))
    with torch.no_grad():
        images = render(z[:IMAGES], None if label is None else label[:IMAGES]).numpy()
        height, width = images.shape[2:]
        top, left = height // 4, width // 4
        window = (..., slice(top, height - top), slice(left, width - left))
        small = max(height, width) <= LARGEST
        found: dict[str, NDArray[Any]] = {
            "z": z.numpy(),
            "crop_box": np.array((top, height - top, left, width - left)),
            "img" if small else "imgcrop": images if small else images[window],
            "edit_alpha": np.array(alphas, np.float32),
            "edit_batch": np.array([0]),
            **(arrays or {}),
        }
        if label is not None:
            found["label"] = label.numpy()
        for key, one in sets.items():
            vectors, found[f"eigvals__{key}"], found[f"rank__{key}"] = directions(one.weight)
            if one.columns is not None:
                from_, to = one.columns
                vectors = np.pad(vectors, ((0, 0), (from_, z_dim - to)))
            found[f"dirs__{key}"] = vectors
            if one.edited:
                found[f"edit_index__{key}"] = np.array(EDITED)
                steps = [alpha * torch.from_numpy(vectors[i]) for i, alpha in zip(EDITED, alphas, strict=True)]
                first = None if label is None else label[:1]
                edited = np.stack([edit(z[:1], first, step).numpy() for step in steps])
                found[f"imgcrop_edit__{key}"] = edited[window]
    golden = checkpoint.with_name("golden.npz")
    np.savez_compressed(golden, **found)  # type: ignore[arg-type]  # numpy's stub takes the keywords for its options
    manifest = folder / "MANIFEST.json"
    entries = json.loads(manifest.read_text()) if manifest.exists() else {}
    entries[name] = {
        "checkpoint": checkpoint.name,
        "source": source,
        "commit": commit,
        "atol": atol,
        "sets": {
            key: ({} if one.columns is None else {"z_columns": list(one.columns)})
            | ({} if one.layers is None else {"layers": list(one.layers)})
            for key, one in sets.items()
        },
        "config": dict(config),
    }
    manifest.write_text(json.dumps(dict(sorted(entries.items())), indent=1))
    print(f"{golden}: images from {images.min():.2g} to {images.max():.2g}, deviation {images.std():.2g}")
    return golden


def directions(weight: Tensor) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]:
    """Return the directions of a weight by singular value decomposition in float64, their eigenvalues, and its rank."""
    matrix = weight.detach().double().numpy()
    _, values, vectors = np.linalg.svd(matrix, full_matrices=True)
    largest = vectors[np.arange(len(vectors)), np.abs(vectors).argmax(axis=1)]
    eigenvalues = np.zeros(matrix.shape[1])
    eigenvalues[: len(values)] = values**2
    rank = int((values > RANK_TOLERANCE * values[0]).sum())
    return (vectors * np.sign(largest)[:, None]).astype(np.float32), eigenvalues.astype(np.float32), np.array(rank)
