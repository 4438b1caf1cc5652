"""Directions as arrays: the boundaries of genforce's tools, and vectors that others save.

InterFaceGAN saves one boundary, [1, D]; `factorize_weight` in the SeFa authors' code gives all, [K, D], unsorted. e4e
and its relatives keep InterFaceGAN's as `.pt`, [1, D] or with a row for each layer, [1, L, D]; AnyCost, a dict of them.
"""

import io
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from sefa.bank.direction_bank import ALPHA_RANGE, UNIT_TOLERANCE, DirectionBank
from sefa.errors import ArgumentError, BankError
from sefa.generators import Generator
from sefa.generators.layers import LayerSpec, parse_layers
from sefa.linear_algebra import zero_level
from sefa_runtime.files import write_whole
from sefa_runtime.inputs.numpy_files import SINGLE
from sefa_runtime.model.direction_names import name_problems
from sefa_runtime.printable import printable

MAX_NAMED = 8


def vectors_bank(
    path: Path,
    content: Any,
    generator: Generator,
    layers: LayerSpec,
    edit_layers: LayerSpec | None,
    report: Callable[[str], None] = lambda text: None,
) -> DirectionBank:
    """Return vectors as a bank, in their order; each eigenvalue is |A·v|², with A of the analysed layers.

    Vectors of unit length stay so, and alpha is a distance. Others stay as long as they are: alpha counts them.

    Args:
        path: The file, for messages.
        content: An array of the shapes that `rows_in` reads; or a list of such arrays, or a mapping of them by name.
        generator: The generator that they belong to.
        layers: The layers that were analysed.
        edit_layers: Layers that an edit changes; None: those analysed.
        report: Called with a sentence about what was read as something other than it seems.

    Raises:
        BankError: If they are not directions of the generator's latent.
        ArgumentError: If a layer is unknown.
    """
    names, arrays = _named_arrays(path, content, (generator.latent_dim, generator.code_dim))
    parts = [rows_in(array, generator, path, report) for array in arrays]
    names = [name for name, part in zip(names, parts, strict=True) for _ in part]
    if any(part.ndim == 3 for part in parts):
        parts = [part if part.ndim == 3 else part[:, None].repeat(1, generator.num_layers, 1) for part in parts]
    vectors = torch.cat(parts)  # [K, D] or [K, L, D]
    lengths = vectors.norm(dim=-1).reshape(len(vectors), -1)  # [K, 1] or [K, L]
    if not (lengths.amax(dim=1) > 0).all():
        raise BankError(f"{path}: a direction is zero")
    is_unit = torch.allclose(lengths, torch.ones_like(lengths), atol=UNIT_TOLERANCE)
    if is_unit:
        vectors = F.normalize(vectors, dim=-1)
    else:
        report(f"of length {_span(lengths)}, not 1: alpha counts these vectors as they are, alpha 1 adds one")
    analysed = chosen_layers(generator, layers, path)
    bank = DirectionBank.found_in(
        generator,
        vectors,
        _eigenvalues(vectors, generator, analysed),
        [analysed] * len(vectors),
        edit_layers,
        method="boundaries",
        rank=1,
        alpha_unit="distance" if is_unit else "vector",
    )
    rank = int((bank.eigenvalues > zero_level(bank.eigenvalues.max()[None], generator.latent_dim)).sum())
    sizes = [1.0] * len(vectors) if is_unit else lengths.square().mean(dim=1).sqrt().tolist()
    return replace(
        bank,
        names=tuple(names) if all(names) and not name_problems(names) else bank.names,
        source=replace(bank.source, rank=rank),
        alpha_range=torch.tensor([[float(f"{end / size:.2g}") for end in ALPHA_RANGE] for size in sizes]),
    )


def _named_arrays(path: Path, content: Any, sizes: tuple[int, int]) -> tuple[list[str], list[NDArray[Any]]]:
    """Return the arrays in a file and their names, empty for those that have none."""
    if isinstance(content, np.ndarray):
        return [""], [content]
    items: Iterable[tuple[Any, Any]] = ()
    if isinstance(content, Mapping):
        items = content.items()
    elif isinstance(content, list):
        items = (("", item) for item in content)
    named = [(str(name) if name != SINGLE else "", array) for name, array in items]
    is_alone = [name for name, _ in named] == [""]  # Its shape is spoken of later.
    fits = [
        isinstance(array, np.ndarray) and (is_alone or array.shape[-1:] in [(n,) for n in sizes]) for _, array in named
    ]
    if not named or not all(fits):
        inside = printable(", ".join(name[:80] for name, _ in named[:MAX_NAMED] if name)) or type(content).__name__
        raise BankError(f"{path}: neither a direction bank's arrays nor GANSpace's components; it has {inside}")
    return [name for name, _ in named], [array for _, array in named]


def _eigenvalues(vectors: Tensor, generator: Generator, analysed: tuple[int, ...]) -> Tensor:
    """Return the squared change of the analysed layers' outputs per unit of alpha, float64 [K]."""
    changes = torch.zeros(len(vectors), dtype=torch.float64)
    affines = generator.affines()
    for layer in analysed:
        A = affines[layer][:, : generator.latent_dim].cpu().double()
        moved = vectors[:, layer] if vectors.ndim == 3 else vectors
        changes += (A @ moved.T).square().sum(dim=0)
    return changes


def _span(lengths: Tensor) -> str:
    shown = dict.fromkeys(f"{float(length):.4g}" for length in (lengths.min(), lengths.max()))
    return " to ".join(shown)


def write_boundaries(bank: DirectionBank, path: Path) -> Path:
    """Write the directions as unit rows, float32 [K, D], or as they are if each layer has its own, [K, L, D].

    Such a file cannot hold names, ranges or, for [K, D], layers.

    Raises:
        OSError: If the file cannot be written.
    """
    content = io.BytesIO()
    vectors = bank.steps() if bank.has_own_vectors else F.normalize(bank.vectors, dim=1)
    np.save(content, vectors.numpy(), allow_pickle=False)
    write_whole(path, content.getvalue())
    return path


def rows_in(
    array: NDArray[Any], generator: Generator, path: Path, report: Callable[[str], None] = lambda text: None
) -> Tensor:
    """Return an array as directions, float64 [K, latent_dim], or [K, L, latent_dim] if each layer has its own vector.

    [D], [K, D] and [K, 1, D] are directions for all layers, [K, L, D] has a row for each layer, and so has [L, D],
    unless its rows are of unit length and differ: those are L directions. Axes of 1 before these are ignored.

    Raises:
        BankError: If the shape is none of these, an entry is not finite, or a direction would change the class.
    """
    sizes, layers = (generator.latent_dim, generator.code_dim), generator.num_layers
    shape = array.shape
    while len(shape) > 3 and shape[0] == 1:
        shape = shape[1:]
    if array.dtype.kind != "f" or not 1 <= len(shape) <= 3 or array.size == 0 or shape[-1] not in sizes:
        raise BankError(
            f"{path}: {array.dtype} {list(array.shape)}, directions [K, {generator.latent_dim}] were expected"
        )
    if len(shape) == 3 and shape[1] not in (1, layers):
        raise BankError(
            f"{path}: {list(shape)}, directions with vectors for {shape[1]} layers; this generator has {layers} "
            f"(directions [K, {generator.latent_dim}] were expected)"
        )
    rows = torch.from_numpy(np.array(array, np.float64)).reshape(shape)
    if not rows.isfinite().all():
        raise BankError(f"{path}: it has NaN or infinite values")
    if rows[..., generator.latent_dim :].any():
        raise BankError(f"{path}: a direction would change the class, whose entries begin at {generator.latent_dim}")
    rows = rows[..., : generator.latent_dim]
    if rows.ndim == 2 and len(rows) == layers > 1:
        lengths = rows.norm(dim=1)
        if not torch.allclose(lengths, torch.ones_like(lengths), atol=UNIT_TOLERANCE) or (rows == rows[0]).all():
            report(
                f"{list(shape)} is read as one direction with a vector for each of the {layers} layers; {layers} "
                f"directions are {[layers, 1, shape[-1]]}"
            )
            rows = rows[None]
    if rows.ndim == 3 and (rows == rows[:, :1]).all():  # Also if there is only one.
        rows = rows[:, 0]
    return rows.reshape(-1, *rows.shape[1:]) if rows.ndim > 1 else rows[None]


def chosen_layers(generator: Generator, layers: LayerSpec, path: Path) -> tuple[int, ...]:
    """Return the layers to which the directions in a file are said to belong.

    Raises:
        ArgumentError: If a layer is unknown, or there are several but z is split between the layers.
    """
    chosen = parse_layers(layers, generator.num_layers, generator.default_layers)
    if len(chosen) > 1 and not generator.layers_share_latent:
        raise ArgumentError(f"{path}: z is split between the layers: say of which one these directions are")
    return chosen
