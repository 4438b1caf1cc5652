"""Load a generator from a checkpoint file, whose contents say which format it is in."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sefa.bundled import find_bundled, hint
from sefa.checkpoints.assumptions import Assumptions
from sefa.checkpoints.card import read_card
from sefa.checkpoints.checkpoint import Checkpoint, Format, LoadOptions, Network
from sefa.checkpoints.class_names import read_class_names
from sefa.checkpoints.contents import read_contents
from sefa.checkpoints.entries import choose, find_entries
from sefa.checkpoints.formats import FORMATS
from sefa.checkpoints.sizes import check_sizes
from sefa.checkpoints.unknown_files import describe_unknown, with_file
from sefa.choices import Noise, choice_of
from sefa.errors import ArgumentError, CheckpointError
from sefa.generators import Generator
from sefa_runtime.files import input_problem, sha256_of

MAX_MESSAGE = 1000  # characters


def load(
    path: str | Path,
    *,
    num_classes: int | None = None,
    noise: str = "const",
    entry: str | None = None,
    assume: Mapping[str, object] | None = None,
) -> Generator:
    """Load the generator from a checkpoint file.

    Nothing in the file is ever executed, whatever it holds.

    Args:
        path: A checkpoint in any of the formats in docs/formats.md. Its contents say which format it is in and how
            large everything is. `letters` is the generator that comes with the package (docs/letters.md), unless a
            file or folder is called so.
        num_classes: Number of classes of a conditional DCGAN or PGGAN whose label follows z as a one-hot vector: no
            tensor's shape says how much of the input is the label.
        noise: For the StyleGANs: `const` uses the checkpoint's constant noise, `none` leaves noise out.
        entry: Which of the file's entries to read, if it has several generators: "netG_ema", "state_dict.generator".
        assume: Facts that the file does not contain and that differ from the usual ones: `{"stride": "1,2,2,1"}`.
            docs/formats.md lists them for each format; the generator's `assumptions` says what was assumed.

    Returns:
        The generator, in float32, in inference mode, on the CPU.

    Raises:
        CheckpointError: If the file is missing, damaged, wants to run code, or holds no generator of a known family.
        ArgumentError: If an option does not fit the generator.

    Examples:
        >>> generator = sefa.load("netG.pth")
        >>> generator.family, generator.resolution, generator.latent_dim
        ('dcgan', (64, 64), 20)
    """
    path = Path(path)
    noise = choice_of(Noise, noise, "noise")
    file = find_bundled(path)
    problem = input_problem(file)
    if problem:
        raise CheckpointError(f"{path}: {problem}{hint(path)}")
    try:
        content = read_contents(file)
        generator = _build(file, content, LoadOptions(num_classes, noise, entry, Assumptions(assume)))
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {_one_line(with_file(str(error), path))}") from error.__cause__
    if num_classes not in (None, generator.num_classes):
        raise ArgumentError(
            f"{path}: num_classes {num_classes} was given, but the {generator.family} has {generator.num_classes}"
        )
    if noise is Noise.NONE and not generator.has_noise:
        raise ArgumentError(f"{path}: {generator.family} has no noise to leave out")
    generator.source_sha256 = sha256_of(file)
    generator.license, generator.note = read_card(file, content)
    return generator


def _build(path: Path, content: Any, options: LoadOptions) -> Generator:
    entries = find_entries(content)
    format_of: dict[int, Format | None] = {}
    seen: list[Network] = []  # Keeps the networks alive, so that their ids stay unique.

    def recognise(network: Network) -> Format | None:
        if id(network) not in format_of:
            checkpoint = Checkpoint(path, network)
            format_of[id(network)] = next((one for one in FORMATS if one.recognises(checkpoint)), None)
            seen.append(network)
        return format_of[id(network)]

    unsupported = [one for one in entries if (format_ := recognise(one.network)) and not format_.is_supported]
    choice = choose(
        [one for one in entries if one not in unsupported],
        lambda network: (format_ := recognise(network)) is not None and format_.is_supported,
        options.entry,
    )
    if choice is None and not unsupported:
        raise CheckpointError(describe_unknown(path, content, entries))
    entry = choice.entry if choice else unsupported[0]
    format_ = recognise(entry.network)
    if format_ is None:
        raise CheckpointError(describe_unknown(path, content, [entry]))
    try:
        generator = format_.load(Checkpoint(path, entry.network, entry.beside, entry.path), options)
        options.assumptions.check_all_asked()
        check_sizes(generator)
    except CheckpointError as error:
        raise CheckpointError(f"recognised as {format_.name}, but {error}") from error.__cause__
    except ArgumentError as error:
        raise ArgumentError(f"{path}: {error}") from error.__cause__
    generator.checkpoint_format = format_.name
    generator.class_names = read_class_names(path, generator.num_classes)
    generator.assumptions = options.assumptions.words
    generator.source_entry = generator.source_entry or (choice.described if choice else "")
    return generator


def _one_line(text: str) -> str:
    """Return text that may contain anything from the file as one printable line of limited length."""
    shown = "".join(character if character.isprintable() else "?" for character in text)
    return shown if len(shown) <= MAX_MESSAGE else f"{shown[:MAX_MESSAGE]}..."
