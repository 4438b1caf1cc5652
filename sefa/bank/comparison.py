"""Compare the directions of two banks."""

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from sefa.bank.direction_bank import DirectionBank
from sefa.errors import BankError

MAX_PAIRS = 4_000_000


@dataclass(frozen=True)
class Pair:
    """A direction of one bank and the direction of the other that it was matched with."""

    a: int  # index in the first bank
    b: int  # index in the second
    cosine: float  # between the two edits, signed
    same_direction: (
        float  # |cosine| between the vectors alone, whatever layers they edit (of all layers, if each has one)
    )
    shared_layers: float  # cosine between the layer masks alone: 1 if both edit the same layers, 0 if none is shared


@dataclass(frozen=True, eq=False)
class BankComparison:
    """A comparison of two banks, A and B.

    Attributes:
        cosines: Cosine between what an edit along each direction of A and of B adds to the codes of all layers,
            float64 [K_A, K_B]: 0 where the two edit no layer in common.
        pairs: Matched directions, each at most once, most similar first.
    """

    cosines: Tensor
    pairs: tuple[Pair, ...]


def compare_banks(a: DirectionBank, b: DirectionBank) -> BankComparison:
    """Compare all directions of two banks that belong to one generator, or to two of the same sizes.

    Pairs are matched greedily: the most similar pair of all first, then the most similar of those that are left.

    Raises:
        BankError: If their numbers of layers or code sizes differ, or there are too many pairs of directions.

    Examples:
        >>> bank = sefa.DirectionBank.load("faces.safetensors")
        >>> pair = compare_banks(bank, sefa.factorize(sefa.load("netG.pth"))).pairs[0]
        >>> bank.names[pair.a], pair.b, round(pair.cosine, 3)
        ('turn', 1, 1.0)
    """
    sizes = [(bank.num_layers, bank.code_dim) for bank in (a, b)]
    if sizes[0] != sizes[1]:
        raise BankError(
            f"the banks cannot be compared: one is for {sizes[0][0]} layers and codes of {sizes[0][1]}, the other for "
            f"{sizes[1][0]} and {sizes[1][1]}"
        )
    if len(a) * len(b) > MAX_PAIRS:
        raise BankError(
            f"{len(a)} x {len(b)} directions are more than can be compared at once: take some of them with "
            "sefa bank subset"
        )
    directions = _flat(a, b) @ _flat(b, a).T
    layers = F.normalize(a.edited_layers.double(), dim=1) @ F.normalize(b.edited_layers.double(), dim=1).T
    # An edit is mask ⊗ vector, so the cosine between two is the product of the cosines of masks and vectors.
    cosines = moves(a) @ moves(b).T if a.has_own_vectors or b.has_own_vectors else directions * layers
    pairs = tuple(
        Pair(
            row,
            column,
            float(cosines[row, column]),
            float(directions[row, column].abs()),
            float(layers[row, column]),
        )
        for row, column in match(cosines.abs())
    )
    return BankComparison(cosines, pairs)


def _flat(bank: DirectionBank, other: DirectionBank) -> Tensor:
    """Return a bank's vectors as unit rows, [K, D], or [K, L·D] if either bank has vectors for each layer."""
    vectors = bank.vectors.double()
    if other.has_own_vectors and not bank.has_own_vectors:
        vectors = vectors[:, None].repeat(1, bank.num_layers, 1)
    return F.normalize(vectors.flatten(1), dim=1)


def match(likeness: Tensor) -> list[tuple[int, int]]:
    """Pair rows with columns, each at most once, always taking the most similar pair of those that are left."""
    rows, columns = likeness.shape
    pairs: list[tuple[int, int]] = []
    free_rows, free_columns = set(range(rows)), set(range(columns))
    for place in likeness.flatten().argsort(descending=True, stable=True).tolist():
        row, column = divmod(place, columns)
        if row in free_rows and column in free_columns:
            free_rows.remove(row)
            free_columns.remove(column)
            pairs.append((row, column))
            if len(pairs) == min(rows, columns):
                break
    return pairs


def moves(bank: DirectionBank) -> Tensor:
    """Return what each direction adds to the codes of all layers, scaled to unit length, float64 [K, L·D]."""
    return F.normalize(bank.steps().double().flatten(1), dim=1)
