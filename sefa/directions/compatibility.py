"""Check that a bank's directions fit a generator, and measure how similar they are to the generator's own."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from sefa.bank.comparison import match
from sefa.bank.direction_bank import DirectionBank, DirectionSource
from sefa.choices import Method
from sefa.directions.factorization import DEFAULT_TOP, factorize
from sefa.errors import ArgumentError, BankError
from sefa.generators import Generator, check_generator

SHOWN = 12  # digits of a sha256


def check_fits(bank: DirectionBank, generator: Generator, *, allow_other_checkpoint: bool = False) -> None:
    """Check that a bank was made for a generator.

    Args:
        bank: The directions.
        generator: The generator.
        allow_other_checkpoint: Accept a bank of another checkpoint of the same architecture, such as the one that this
            generator was tuned from.

    Raises:
        BankError: If latent size, layers or family differ; if a direction moves the class; or if the checkpoint differs
            and that is not allowed: the message then says how similar the two generators' directions are.
        ArgumentError: If one of them is something else, such as a path.
    """
    check_generator(generator)
    if not isinstance(bank, DirectionBank):
        raise ArgumentError(
            f"a direction bank was expected, got {type(bank).__name__}: sefa.factorize finds one, "
            "sefa.DirectionBank.load reads one"
        )
    mine = (bank.code_dim, bank.num_layers, bank.source.family)
    its = (generator.code_dim, generator.num_layers, generator.family)
    differing = [
        f"{what} {one}, not {other}"
        for what, one, other in zip(("latent size", "layers", "family"), mine, its, strict=True)
        if one != other
    ]
    if differing:
        raise BankError(
            f"the bank was made for another generator: {', '.join(differing)}"
            + ("; allowing another checkpoint does not help: it must be of the same sizes" * allow_other_checkpoint)
        )
    if bank.vectors[..., generator.latent_dim :].any():
        raise BankError(
            f"its directions move the class: the last {generator.class_dim} of {generator.code_dim} entries of this "
            "generator's code hold it, and were latent where the directions were found: find directions anew, with the "
            "same number of classes (--num-classes)"
        )
    others = other_checkpoints(bank, generator)
    if others and not allow_other_checkpoint:
        raise BankError(
            f"the bank was made for another checkpoint: its sha256 begins with {others[0][:SHOWN]}, this one's with "
            f"{generator.source_sha256[:SHOWN]}; {_likeness_in_words(bank, generator)}; if this one was tuned from "
            "that one, --allow-other-checkpoint (allow_other_checkpoint=True) takes its directions"
        )


def other_checkpoints(bank: DirectionBank, generator: Generator) -> tuple[str, ...]:
    """Return the sha256 of each checkpoint, known to differ from the generator's, that directions were found in."""
    own = generator.source_sha256
    found = dict.fromkeys(bank.origin(index).checkpoint_sha256 for index in range(len(bank)))
    return tuple(sha256 for sha256 in found if sha256 and own and sha256 != own)


@dataclass(frozen=True)
class Likeness:
    """How similar a bank's directions are to those that the same method finds in a generator.

    Attributes:
        cosine: Mean |cosine| over the most similar pairs, each direction in at most one pair.
        chance: The same for random directions.
        directions: How many of the bank's directions were compared: those found by SeFa and GANSpace.
    """

    cosine: float
    chance: float
    directions: int


def likeness(bank: DirectionBank, generator: Generator) -> Likeness | None:
    """Compare a bank with the generator's own directions, found in the same layers by the same method.

    Returns:
        None if no direction of the bank was found by a method that can be run here.
    """
    groups: dict[tuple[DirectionSource, tuple[int, ...]], list[int]] = {}
    for index in range(len(bank)):
        analysed = tuple(bank.analysed_layers[index].nonzero()[:, 0].tolist())
        groups.setdefault((bank.origin(index), analysed), []).append(index)
    random = torch.Generator().manual_seed(0)
    found: list[float] = []
    chance: list[float] = []
    for (origin, analysed), indices in groups.items():
        if origin.method not in tuple(Method) or not analysed:
            continue
        try:
            own = _find_alike(generator, origin, analysed, len(indices)).vectors
        except ArgumentError:  # The bank describes an impossible way of finding directions.
            continue
        free = own[:, (own != 0).any(dim=0)]  # without the class entries
        vectors = bank.vectors[indices]
        # Methods find one vector for all layers, which a bank with others repeats.
        found += _cosines(vectors[:, 0] if bank.has_own_vectors else vectors, own)
        chance += _cosines(torch.randn(len(indices), free.shape[1], generator=random), free)
    if not found:
        return None
    return Likeness(sum(found) / len(found), sum(chance) / len(chance), len(found))


def _find_alike(generator: Generator, origin: DirectionSource, layers: tuple[int, ...], count: int) -> DirectionBank:
    """Find at least `count` directions of a generator in the way that `origin` describes."""
    options = (
        {} if origin.method == Method.SEFA else {"samples": origin.samples, "seed": origin.seed, "label": origin.label}
    )
    return factorize(
        generator,
        layers,
        top=min(max(count, DEFAULT_TOP), generator.latent_size(layers)),
        method=origin.method,
        normalize=origin.normalize,
        **options,  # type: ignore[arg-type]
    )


def _cosines(one: Tensor, other: Tensor) -> list[float]:
    cosines = (F.normalize(one.double(), dim=1) @ F.normalize(other.double(), dim=1).T).abs()
    return [float(cosines[row, column]) for row, column in match(cosines)]


def _likeness_in_words(bank: DirectionBank, generator: Generator) -> str:
    found = likeness(bank, generator)
    if found is None:
        return f"how alike the two are is not known of directions by {bank.source.method}"
    return (
        f"the mean |cosine| of {found.directions} of its directions and this one's own is {found.cosine:.3f}, of "
        f"random ones {found.chance:.3f}"
    )
