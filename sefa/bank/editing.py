"""Make new direction banks from existing ones: rename or flip directions, select some, or merge several banks."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch

from sefa.bank.direction_bank import TENSORS, DirectionBank, DirectionSource, joint_source
from sefa.bank.naming import Change, renamed
from sefa.errors import ArgumentError, BankError


def change(bank: DirectionBank, changes: Mapping[int, Change]) -> DirectionBank:
    """Rename directions, flip them, or give them other ranges.

    Args:
        bank: The bank; it is not modified.
        changes: The changes by index. The range of a flipped direction is mirrored unless it gets a new one.

    Raises:
        BankError: If a new name is not allowed, or two directions would have the same name.

    Examples:
        >>> from sefa.bank.naming import parse_change, resolve
        >>> bank = sefa.DirectionBank.load("faces.safetensors")
        >>> change(bank, resolve(bank.names, [parse_change("0=nod:-1")])).names[:2]
        ('nod', 'turn')
    """
    vectors, alpha_range = bank.vectors.clone(), bank.alpha_range.clone()
    for index, one in changes.items():
        if one.flip:
            vectors[index] *= -1
            alpha_range[index] = -alpha_range[index].flip(0)
        if one.alpha_range is not None:
            alpha_range[index] = torch.tensor(one.alpha_range)
    return replace(bank, vectors=vectors, alpha_range=alpha_range, names=renamed(bank.names, changes))


def subset(bank: DirectionBank, indices: Sequence[int]) -> DirectionBank:
    """Return a bank of some directions, in the order of `indices`.

    Raises:
        ArgumentError: If `indices` is empty, or one is out of range or listed twice.
    """
    count = len(bank)
    if not indices or len(set(indices)) < len(indices) or not all(0 <= index < count for index in indices):
        raise ArgumentError(f"directions must be in 0..{count - 1}, each once and at least one, got {list(indices)}")
    return _joined(
        {name: tensor[list(indices)] for name, tensor in bank.tensors().items()},
        [bank.names[index] for index in indices],
        [bank.origin(index) for index in indices],
    )


def merge(
    banks: Sequence[DirectionBank], prefixes: Sequence[str] | None = None, *, allow_other_checkpoint: bool = False
) -> DirectionBank:
    """Concatenate several banks of one generator into one.

    Args:
        banks: The banks, at least one.
        prefixes: A prefix for the names of each bank's directions. None: names stay, except that names `direction-N`
            that occur more than once are numbered anew.
        allow_other_checkpoint: Join banks of several checkpoints of one architecture, such as a generator and one
            tuned from it; each direction keeps its source.

    Raises:
        ArgumentError: If there is no bank, or the number of prefixes differs from that of the banks.
        BankError: If the banks are of different generators, or two directions have the same name.

    Examples:
        >>> bank = sefa.DirectionBank.load("faces.safetensors")
        >>> merge([subset(bank, [1]), subset(bank, [0])], ["a-", "b-"]).names
        ('a-turn', 'b-direction-0')
    """
    if not banks:
        raise ArgumentError("there is no bank to merge")
    if prefixes is not None and len(prefixes) != len(banks):
        raise ArgumentError(f"{len(prefixes)} prefixes for {len(banks)} banks")
    first = banks[0]
    for bank in banks[1:]:
        differing = [
            f"{what} {one} and {other}"
            for what, one, other in (
                ("family", first.source.family, bank.source.family),
                ("latent size", first.code_dim, bank.code_dim),
                ("layers", first.num_layers, bank.num_layers),
            )
            if one != other
        ]
        if differing:
            raise BankError(f"the banks are of different generators: {', '.join(differing)}")
        one, other = first.source.checkpoint_sha256, bank.source.checkpoint_sha256
        if one != other and not allow_other_checkpoint:
            shown = " and ".join(sha256[:12] or "none" for sha256 in (one, other))
            raise BankError(
                f"the banks are of different checkpoints, sha256 {shown}: --allow-other-checkpoint "
                "(allow_other_checkpoint=True) joins them if one was tuned from the other; sefa bank compare says how "
                "alike they are"
            )
    tensors = [bank.tensors() for bank in banks]
    if any(bank.has_own_vectors for bank in banks):
        for bank, own in zip(banks, tensors, strict=True):
            if not bank.has_own_vectors:
                own["vectors"] = bank.vectors[:, None].repeat(1, bank.num_layers, 1)
    return _joined(
        {name: torch.cat([own[name] for own in tensors]) for name in TENSORS},
        _merged_names(banks, prefixes),
        [bank.origin(index) for bank in banks for index in range(len(bank))],
    )


def _joined(
    tensors: Mapping[str, torch.Tensor], names: Sequence[str], origins: Sequence[DirectionSource]
) -> DirectionBank:
    source = joint_source(origins)
    own = () if set(origins) == {source} else tuple(origins)
    return DirectionBank(**tensors, names=tuple(names), source=source, origins=own)


def _merged_names(banks: Sequence[DirectionBank], prefixes: Sequence[str] | None) -> tuple[str, ...]:
    if prefixes is not None:
        return tuple(prefix + name for prefix, bank in zip(prefixes, banks, strict=True) for name in bank.names)
    names = [name for bank in banks for name in bank.names]
    # A default name is the direction's number; if it occurs twice, use the number in the merged bank.
    return tuple(
        f"direction-{index}" if names.count(name) > 1 and _is_number(name) else name for index, name in enumerate(names)
    )


def _is_number(name: str) -> bool:
    return name.startswith("direction-") and name.removeprefix("direction-").isdecimal()
