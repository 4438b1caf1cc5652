"""Boundaries, as genforce's tools call directions: an `.npy` file of unit rows.

InterFaceGAN saves one, [1, D]; `factorize_weight` in the SeFa authors' code gives all, [K, D], unsorted.
"""

import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from sefa.bank.direction_bank import UNIT_TOLERANCE, DirectionBank
from sefa.bank_files.numpy_bank import Arrays
from sefa.errors import ArgumentError, BankError
from sefa.generators import Generator
from sefa.generators.layers import LayerSpec, parse_layers
from sefa.linear_algebra import zero_level
from sefa_runtime.files import write_whole
from sefa_runtime.inputs.numpy_files import SINGLE


def boundaries_bank(
    path: Path, arrays: Arrays, generator: Generator, layers: LayerSpec, edit_layers: LayerSpec | None
) -> DirectionBank:
    """Return boundaries as a bank, in their order; each eigenvalue is |A·n|², with A of the analysed layers.

    Raises:
        BankError: If they are not unit directions of the generator's latent.
        ArgumentError: If a layer is unknown.
    """
    if SINGLE not in arrays:
        raise BankError(
            f"{path}: neither a direction bank's arrays nor GANSpace's components; it has "
            f"{', '.join(sorted(arrays)[:8]) or 'nothing'}"
        )
    vectors = latent_rows(arrays[SINGLE], generator, path)
    lengths = vectors.norm(dim=1)
    if not torch.allclose(lengths, torch.ones_like(lengths), atol=UNIT_TOLERANCE):
        raise BankError(f"{path}: rows of length {float(lengths.min()):.4g} to {float(lengths.max()):.4g}, not 1")
    analysed = chosen_layers(generator, layers, path)
    affines = generator.affines()
    A = torch.cat([affines[layer][:, : generator.latent_dim].cpu().double() for layer in analysed])
    vectors = F.normalize(vectors, dim=1)
    eigenvalues = (A @ vectors.T).square().sum(dim=0)
    return DirectionBank.found_in(
        generator,
        vectors,
        eigenvalues,
        [analysed] * len(vectors),
        edit_layers,
        method="boundaries",
        rank=int((eigenvalues > zero_level(eigenvalues.max()[None], generator.latent_dim)).sum()),
    )


def write_boundaries(bank: DirectionBank, path: Path) -> Path:
    """Write the directions as unit rows, float32 [K, D]; such a file cannot hold layers, names or ranges.

    Raises:
        OSError: If the file cannot be written.
    """
    content = io.BytesIO()
    np.save(content, F.normalize(bank.vectors, dim=1).numpy(), allow_pickle=False)
    write_whole(path, content.getvalue())
    return path


def latent_rows(array: NDArray[Any], generator: Generator, path: Path) -> Tensor:
    """Return an array [D], [K, D] or [K, 1, D] as rows, float64 [K, latent_dim]; entries for the class must be zero.

    Raises:
        BankError: If the shape is none of these, an entry is not finite, or a direction would change the class.
    """
    sizes = (generator.latent_dim, generator.code_dim)
    fits = array.ndim in (1, 2) or (array.ndim == 3 and array.shape[1] == 1)
    if array.dtype.kind != "f" or not fits or array.size == 0 or array.shape[-1] not in sizes:
        raise BankError(
            f"{path}: {array.dtype} {list(array.shape)}, directions [K, {generator.latent_dim}] were expected"
        )
    rows = torch.from_numpy(np.ascontiguousarray(array, np.float64)).reshape(-1, array.shape[-1])
    if not rows.isfinite().all():
        raise BankError(f"{path}: it has NaN or infinite values")
    if rows[:, generator.latent_dim :].any():
        raise BankError(f"{path}: a direction would change the class, whose entries begin at {generator.latent_dim}")
    return rows[:, : generator.latent_dim]


def chosen_layers(generator: Generator, layers: LayerSpec, path: Path) -> tuple[int, ...]:
    """Return the layers to which the directions in a file are said to belong.

    Raises:
        ArgumentError: If a layer is unknown, or there are several but z is split between the layers.
    """
    chosen = parse_layers(layers, generator.num_layers, generator.default_layers)
    if len(chosen) > 1 and not generator.layers_share_latent:
        raise ArgumentError(f"{path}: z is split between the layers: say of which one these directions are")
    return chosen
