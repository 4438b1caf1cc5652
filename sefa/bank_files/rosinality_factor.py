"""Read the `factor.pt` of rosinality's stylegan2-pytorch as a direction bank, and write a bank as such a file."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sefa.bank.direction_bank import DirectionBank
from sefa.checkpoints.contents import read_contents
from sefa.errors import ArgumentError, BankError, CheckpointError
from sefa.generators import Generator, StyleGAN2
from sefa.linear_algebra import zero_level
from sefa_runtime.files import replacing

ENTRY = "eigvec"


def is_factor(content: Any) -> bool:
    """Return whether a file's content is that of a factor.pt."""
    return isinstance(content, dict) and ENTRY in content


def import_factor(path: str | Path, generator: Generator) -> DirectionBank:
    """Read the file that `closed_form_factorization.py` wrote.

    Direction i is column i of the file's matrix, with its sign, and edits all layers, as `apply_factor.py` does. That
    script moves w before truncation, while edits here follow truncation: its `degree` times psi is alpha here.

    Args:
        path: The file: factor.pt, a torch file with an entry `eigvec`.
        generator: The StyleGAN2 that the directions belong to.

    Returns:
        All the file's directions, in its order. Their eigenvalues are measured on the weights that the script analysed:
        the style transforms of all convolutions and of the first ToRGB.

    Raises:
        BankError: If the file is missing or damaged, holds something else, or does not fit the generator.
        ArgumentError: If the generator is not a StyleGAN2.
    """
    path = Path(path)
    try:
        content = read_contents(path)
    except CheckpointError as error:
        raise BankError(f"{path}: {error}") from error.__cause__
    columns = content.get(ENTRY) if isinstance(content, dict) else None
    if not isinstance(columns, Tensor):
        raise BankError(f"{path}: it has no matrix {ENTRY}; a factor.pt of stylegan2-pytorch was expected")
    if not isinstance(generator, StyleGAN2):
        raise ArgumentError(f"{path}: these are directions of a StyleGAN2, not of a {generator.family}")
    vectors = _directions(columns, generator.code_dim, path)
    affines = [*generator.conv_affines(), generator.rgb_affines()[0]]
    A = torch.cat([affine.weight.detach().cpu().double() for affine in affines])
    eigenvalues = (A @ vectors.double().T).square().sum(dim=0)
    return DirectionBank.found_in(
        generator,
        vectors,
        eigenvalues,
        [range(len(affines) - 1)] * len(vectors),
        range(generator.num_layers),
        method="rosinality's closed_form_factorization",
        rank=int((eigenvalues > zero_level(eigenvalues.max()[None], generator.code_dim)).sum()),
    )


def export_factor(bank: DirectionBank, path: str | Path, checkpoint: str = "") -> Path:
    """Write directions for `apply_factor.py`.

    Args:
        bank: Directions of a StyleGAN2 that edit all layers, as that script does.
        path: The file to write.
        checkpoint: The value of the file's entry `ckpt`: the path where the script finds the generator by default.

    Raises:
        BankError: If a direction does not edit all layers, or its alpha is not a distance, which the file cannot
            express; or the bank does not belong to a StyleGAN2.
        OSError: If the file cannot be written.
    """
    path = Path(path)
    if bank.source.family != StyleGAN2.family:
        raise BankError(f"factor.pt is for directions of a StyleGAN2, these are of a {bank.source.family}")
    if bank.has_own_vectors:
        raise BankError("factor.pt is for directions that move all layers alike: this bank has a vector for each layer")
    for index, name in enumerate(bank.names):
        if not bank.edited_layers[index].all():
            raise BankError(f"factor.pt is for directions that edit all layers: {name} does not")
        if bank.origin(index).alpha_unit != "distance":
            raise BankError(f"factor.pt is for alphas that are distances: of {name} they count standard deviations")
    with replacing(path) as partial:
        torch.save({"ckpt": checkpoint, ENTRY: bank.vectors.T.contiguous()}, partial)
    return path


def _directions(columns: Tensor, code_dim: int, path: Path) -> Tensor:
    """Check the file's matrix and return its columns as rows of unit length, float32 [K, D]."""
    if columns.ndim != 2 or columns.shape[0] != code_dim or not columns.is_floating_point():
        raise BankError(
            f"{path}: its {ENTRY} has shape {list(columns.shape)}, this generator's w has {code_dim} entries"
        )
    vectors: Tensor = columns.detach().float().T.contiguous()
    norms = vectors.norm(dim=1, keepdim=True)
    if not torch.allclose(norms, torch.ones_like(norms), atol=1e-3):
        raise BankError(f"{path}: the columns of its {ENTRY} are not of unit length")
    return vectors.div(norms)
