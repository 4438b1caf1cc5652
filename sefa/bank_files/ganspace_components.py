"""GANSpace's components: the `.npz` that its code caches, single ones that its viewer exports, and e4e's `ffhq_pca.pt`.

Entries of the cache, for C components: `lat_comp` [C, 1, D], unit directions of z or w; `lat_stdev` [C], the standard
deviation of w along each, or 1 for z; `act_stdev` [C], the standard deviation of the analysed activations, which for w
is the same. An edit of sigma standard deviations adds sigma·lat_stdev·lat_comp; sigma is alpha here.

The viewer pickles one component: `lat_comp` [1, D], `lat_stdev` and `act_stdev` as numbers, `name`, `edit_type`, and
the layers `edit_start` to `edit_end`, the last one excluded. e4e's files have `comp` [C, 1, D], `std` [C] and `mean`.
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from sefa.bank.direction_bank import DirectionBank
from sefa.bank_files.boundaries import chosen_layers, rows_in
from sefa.errors import BankError
from sefa.generators import Generator
from sefa.generators.layers import LayerSpec
from sefa.linear_algebra import zero_level
from sefa_runtime.model.direction_names import is_name

DIRECTIONS, LENGTHS, DEVIATIONS = "lat_comp", "lat_stdev", "act_stdev"
RENAMED = {"comp": DIRECTIONS, "std": LENGTHS}  # in files of e4e
START, END, TYPE = "edit_start", "edit_end", "edit_type"


def is_components(content: Any) -> bool:
    """Return whether a file's content are GANSpace's components, or one of them."""
    return isinstance(content, Mapping) and (DIRECTIONS in content or set(RENAMED) <= set(content))


def is_named_component(content: Any) -> bool:
    """Return whether a file's content is one component that GANSpace's viewer exported."""
    return is_components(content) and START in content and END in content


def named_component_bank(path: Path, content: Mapping[str, Any], generator: Generator) -> DirectionBank:
    """Return one component as the bank of one direction, with its name, range and layers.

    Raises:
        BankError: If it moves activations, or its entries do not fit the generator.
    """
    kind, start, end = content.get(TYPE, "latent"), content[START], content[END]
    if kind != "latent":
        raise BankError(
            f"{path}: a component that moves activations ({kind!r:.40}), not the latent: it cannot be baked"
        )
    if type(start) is not int or type(end) is not int or not 0 <= start < end <= generator.num_layers:
        raise BankError(
            f"{path}: it edits layers {start!r:.20} to {end!r:.20}, the last one excluded; this generator has "
            f"{generator.num_layers}"
        )
    found = content[DIRECTIONS]
    arrays = {DIRECTIONS: found.reshape(1, 1, -1) if isinstance(found, np.ndarray) else found}
    for name in (LENGTHS, DEVIATIONS):
        value = content.get(name)
        arrays[name] = np.array([value], np.float64) if isinstance(value, int | float | np.number) else value
    layers = range(start, end)
    bank = components_bank(path, arrays, generator, layers if generator.layers_share_latent else "all", layers)
    given, reach = content.get("name"), content.get("sigma_range")
    if isinstance(given, str) and is_name(given):
        bank = replace(bank, names=(given,))
    if isinstance(reach, int | float) and math.isfinite(reach) and reach:
        bank = replace(bank, alpha_range=torch.tensor([[-abs(float(reach)), abs(float(reach))]]))
    return bank


def components_bank(
    path: Path, arrays: Mapping[str, Any], generator: Generator, layers: LayerSpec, edit_layers: LayerSpec | None
) -> DirectionBank:
    """Return GANSpace's components as a bank; alpha counts standard deviations, eigenvalues are variances.

    Raises:
        BankError: If entries are missing or do not fit the generator.
        ArgumentError: If a layer is unknown.
    """
    arrays = {RENAMED.get(name, name): value for name, value in arrays.items()}
    if isinstance(arrays.get(LENGTHS), np.ndarray):
        arrays.setdefault(DEVIATIONS, arrays[LENGTHS])
    found = arrays[DIRECTIONS]
    if not isinstance(found, np.ndarray):
        raise BankError(f"{path}: its components are {type(found).__name__}, an array was expected")
    vectors = rows_in(found[:, None] if found.ndim == 2 else found, generator, path)
    if vectors.ndim == 3:
        raise BankError(f"{path}: {list(found.shape)}, directions [K, {generator.latent_dim}] were expected")
    lengths, deviations = (arrays.get(name, np.empty(0)) for name in (LENGTHS, DEVIATIONS))
    for name, values in ((LENGTHS, lengths), (DEVIATIONS, deviations)):
        if (
            not isinstance(values, np.ndarray)
            or values.dtype.kind != "f"
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
