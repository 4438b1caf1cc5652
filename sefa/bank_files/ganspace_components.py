"""The components that GANSpace's own code caches: an `.npz` file of `lat_comp`, `lat_stdev`, `act_stdev` and others.

Entries, for C components: `lat_comp` [C, 1, D], unit directions of z or w; `lat_stdev` [C], the standard deviation of w
along each, or 1 for z; `act_stdev` [C], the standard deviation of the analysed activations, which for w is the same. An
edit of sigma standard deviations adds sigma·lat_stdev·lat_comp; sigma is alpha here.
"""

from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from sefa.bank.direction_bank import DirectionBank
from sefa.bank_files.boundaries import chosen_layers, latent_rows
from sefa.bank_files.numpy_bank import Arrays
from sefa.errors import BankError
from sefa.generators import Generator
from sefa.generators.layers import LayerSpec
from sefa.linear_algebra import zero_level

DIRECTIONS, LENGTHS, DEVIATIONS = "lat_comp", "lat_stdev", "act_stdev"


def is_components(arrays: Arrays) -> bool:
    """Return whether the arrays are GANSpace's components."""
    return DIRECTIONS in arrays


def components_bank(
    path: Path, arrays: Arrays, generator: Generator, layers: LayerSpec, edit_layers: LayerSpec | None
) -> DirectionBank:
    """Return GANSpace's components as a bank; alpha counts standard deviations, eigenvalues are variances.

    Raises:
        BankError: If entries are missing or do not fit the generator.
        ArgumentError: If a layer is unknown.
    """
    vectors = latent_rows(arrays[DIRECTIONS], generator, path)
    lengths, deviations = (arrays.get(name, np.empty(0)) for name in (LENGTHS, DEVIATIONS))
    for name, values in ((LENGTHS, lengths), (DEVIATIONS, deviations)):
        if (
            values.dtype.kind != "f"
            or values.shape != (len(vectors),)
            or not (np.isfinite(values) & (values > 0)).all()
        ):
            raise BankError(f"{path}: {name} must be {len(vectors)} positive numbers, one for each component")
    if generator.has_style_codes and (lengths == 1).all():
        raise BankError(f"{path}: its components are of z, edits of a {generator.family} are of w: it needs --use_w")
    if not (vectors.norm(dim=1) > 0).all():
        raise BankError(f"{path}: a component is zero")
    variances = torch.from_numpy(deviations.astype(np.float64)) ** 2
    return DirectionBank.found_in(
        generator,
        F.normalize(vectors, dim=1) * torch.from_numpy(lengths.astype(np.float64))[:, None],
        variances,
        [chosen_layers(generator, layers, path)] * len(vectors),
        edit_layers,
        method="GANSpace's decomposition",
        rank=int((variances > zero_level(variances.max()[None], generator.latent_dim)).sum()),
        alpha_unit="sigma",
    )
