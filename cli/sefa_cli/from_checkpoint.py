"""Open a checkpoint's generator and find its directions, showing progress and printing warnings."""

from pathlib import Path
from typing import TYPE_CHECKING

from sefa import finding, opening
from sefa.choices import Method
from sefa.errors import ArgumentError
from sefa_cli.output import progress_bar, warn, working

if TYPE_CHECKING:
    from sefa.bank.direction_bank import DirectionBank
    from sefa.custom.discovery import Discovery
    from sefa.generators import Generator


def open_generator(
    source: Path, options: opening.OpenOptions, layers: str = "all", *, need_layers: bool = True
) -> "Generator":
    """Open a generator: see `sefa.opening.open_generator`."""
    with working("Loading the checkpoint"):
        return opening.open_generator(source, options, layers, need_layers=need_layers, warn=warn)


def discover_own(source: Path, options: opening.OpenOptions, layers: str) -> "tuple[Discovery, list[str]]":
    """Find out about a generator of the user's own: see `sefa.opening.discover_own`."""
    with working("Finding out how it is called"):
        return opening.discover_own(source, options, layers, warn)


def open_checkpoint(path: Path, options: opening.OpenOptions) -> "Generator":
    """Open a checkpoint, and nothing else: see `sefa.opening.open_checkpoint`."""
    with working("Loading the checkpoint"):
        return opening.open_checkpoint(path, options)


def find_directions(generator: "Generator", choices: finding.DirectionChoices) -> "DirectionBank":
    """Find directions: see `sefa.finding.find_directions`; warn about those that change nothing."""
    if choices.method == Method.SEFA:
        bank = finding.find_directions(generator, choices)
    else:
        with progress_bar("Sampling") as show:
            bank = finding.find_directions(generator, choices, show)
    if bank.source.rank < len(bank):
        warn(f"the rank is {bank.source.rank}: directions from {bank.source.rank} on change nothing")
    return bank


def check_bank_options(bank: Path | None, allow_other_checkpoint: bool, choices: list[str]) -> None:
    """Check that the options fit together with a bank, or without one.

    Args:
        bank: The bank, if one is given.
        allow_other_checkpoint: Whether the bank may belong to another checkpoint.
        choices: The given options that choose which directions to find.

    Raises:
        ArgumentError: If they do not.
    """
    if bank is not None and choices:
        raise ArgumentError(f"--bank brings its directions: leave out {', '.join(choices)}")
    if bank is None and allow_other_checkpoint:
        raise ArgumentError("--allow-other-checkpoint is for --bank: without one the directions are of this checkpoint")
