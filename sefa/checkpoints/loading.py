"""Load a generator from a checkpoint file, whose contents say which format it is in."""

from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from sefa.checkpoints.assumptions import Assumptions
from sefa.checkpoints.checkpoint import Checkpoint, Format, LoadOptions, Network, clean
from sefa.checkpoints.contents import EXPECTED, read_contents
from sefa.checkpoints.entries import Entry, choose, find_entries
from sefa.checkpoints.formats import FORMATS
from sefa.checkpoints.pickled_networks import PersistedModule, TensorFlowNetwork
from sefa.checkpoints.sizes import check_sizes
from sefa.choices import Noise, choice_of
from sefa.errors import ArgumentError, CheckpointError
from sefa.generators import Generator
from sefa_runtime.files import sha256_of
from sefa_runtime.pickles.names import Name
from sefa_runtime.pickles.placeholders import Placeholder

MAX_MESSAGE = 1000  # characters
OWN_CLASS = "a generator of your own class is read with MODULE:CLASS --weights FILE"


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
            large everything is.
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
    """
    path = Path(path)
    noise = choice_of(Noise, noise, "noise")
    try:
        generator = _build(path, read_contents(path), LoadOptions(num_classes, noise, entry, Assumptions(assume)))
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {_one_line(str(error))}") from error.__cause__
    if num_classes not in (None, generator.num_classes):
        raise ArgumentError(
            f"{path}: num_classes {num_classes} was given, but the {generator.family} has {generator.num_classes}"
        )
    if noise is Noise.NONE and not generator.has_noise:
        raise ArgumentError(f"{path}: {generator.family} has no noise to leave out")
    generator.source_sha256 = sha256_of(path)
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
        raise CheckpointError(_describe(content, entries))
    entry = choice.entry if choice else unsupported[0]
    format_ = recognise(entry.network)
    if format_ is None:
        raise CheckpointError(_describe(content, [entry]))
    try:
        generator = format_.load(Checkpoint(path, entry.network, entry.beside, entry.path), options)
        options.assumptions.check_all_asked()
        check_sizes(generator)
    except CheckpointError as error:
        raise CheckpointError(f"recognised as {format_.name}, but {error}") from error.__cause__
    except ArgumentError as error:
        raise ArgumentError(f"{path}: {error}") from error.__cause__
    generator.checkpoint_format = format_.name
    generator.assumptions = options.assumptions.words
    generator.source_entry = generator.source_entry or (choice.described if choice else "")
    return generator


def _describe(content: Any, entries: Sequence[Entry]) -> str:
    """Describe a file that no format recognises, and say what to do with it."""
    for entry in entries:
        network, where = entry.network, f"its {entry.name}" if entry.name else "it"
        if isinstance(network, Placeholder) and network.is_module:
            return (
                f"{where} is a whole module of class {network.class_name}, whose code is not in the file: save the "
                f"generator's state_dict() instead, {OWN_CLASS}"
            )
        if isinstance(network, PersistedModule):
            return f"no known generator; {EXPECTED}, {where} is a network of class {network.class_name}; {OWN_CLASS}"
        if isinstance(network, TensorFlowNetwork):
            return f"no known generator; {EXPECTED}, {where} is a TensorFlow network of another architecture"
    state_dicts = [(entry.name, entry.network) for entry in entries if isinstance(entry.network, Mapping)]
    if any(entry.is_large for entry in entries) and state_dicts:
        name, state_dict = max(state_dicts, key=lambda named: len(named[1]))
        tensors = clean(state_dict)
        where = f"{name}'s" if name else "its"
        return f"no known generator; {EXPECTED}, {where} keys begin with {_some(tensors)}; {OWN_CLASS}"
    if isinstance(content, Placeholder | Name):
        named = content.class_name if isinstance(content, Placeholder) else content
        return f"no generator inside: it holds a {named}; {EXPECTED}"
    keys = f" of {_some(content)}" if isinstance(content, Mapping) else ""
    return f"no generator inside: it holds a {type(content).__name__}{keys}; {EXPECTED}"


def _some(keys: Mapping[Any, Any]) -> str:
    names = [str(key)[:80] for key in islice(keys, 4)] or ["nothing"]
    return ", ".join(names) + (", ..." if len(keys) > 4 else "")


def _one_line(text: str) -> str:
    """Return text that may contain anything from the file as one printable line of limited length."""
    shown = "".join(character if character.isprintable() else "?" for character in text)
    return shown if len(shown) <= MAX_MESSAGE else f"{shown[:MAX_MESSAGE]}..."
