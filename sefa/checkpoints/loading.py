"""Loading a generator from a checkpoint file, whose format is detected from its contents."""

from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from sefa.checkpoints.checkpoint import Checkpoint, LoadOptions
from sefa.checkpoints.formats import FORMATS
from sefa.checkpoints.names import Name
from sefa.checkpoints.placeholders import Placeholder
from sefa.checkpoints.reading import DAMAGED, EXPECTED, read
from sefa.errors import ArgumentError, CheckpointError
from sefa.generators import Generator
from sefa_runtime.files import sha256_of

NOISES = ("const", "none")
MAX_MESSAGE = 1000  # characters


def load(path: str | Path, *, num_classes: int | None = None, noise: str = "const") -> Generator:
    """Load the generator in a checkpoint file.

    Nothing in the file is ever executed, whatever it holds.

    Args:
        path: A checkpoint of any of the formats in docs/formats.md. Which one is detected from the contents, and every
            size is read from them.
        num_classes: Classes of a conditional DCGAN or PGGAN whose label follows z as a one-hot vector: no tensor's
            shape tells how much of the input is the label.
        noise: For the StyleGANs: `const` is the checkpoint's constant noise, `none` leaves noise out.

    Returns:
        The generator, in float32, in inference mode, on the CPU.

    Raises:
        CheckpointError: If the file is missing, damaged, wants to run code, or holds no generator of a known family.
        ArgumentError: If an option does not fit the generator.
    """
    path = Path(path)
    if noise not in NOISES:
        raise ArgumentError(f"noise must be const or none, got {noise!r}")
    try:
        generator = _build(read(path), LoadOptions(num_classes, noise))
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {_one_line(str(error))}") from error.__cause__
    if num_classes not in (None, generator.num_classes):
        raise ArgumentError(
            f"{path}: num_classes {num_classes} was given, but the {generator.family} has {generator.num_classes}"
        )
    if noise == "none" and not generator.noise:
        raise ArgumentError(f"{path}: {generator.family} has no noise to leave out")
    generator.source_sha256 = sha256_of(path)
    return generator


def _build(checkpoint: Checkpoint, options: LoadOptions) -> Generator:
    for format_ in FORMATS:
        if not format_.recognises(checkpoint):
            continue
        try:
            generator = format_.load(checkpoint, options)
        except CheckpointError as error:
            raise CheckpointError(f"recognised as {format_.name}, but {error}") from error.__cause__
        except ArgumentError as error:
            raise ArgumentError(f"{checkpoint.path}: {error}") from error.__cause__
        except DAMAGED as error:
            raise CheckpointError(f"recognised as {format_.name}, but its contents do not fit together") from error
        generator.checkpoint_format = format_.name
        return generator
    raise CheckpointError(_describe(checkpoint))


def _describe(checkpoint: Checkpoint) -> str:
    """What a file is that no format recognises."""
    content = checkpoint.content
    if checkpoint.tensors:
        return f"no known generator; {EXPECTED}, its keys begin with {_some(checkpoint.tensors)}"
    if checkpoint.persisted:
        return f"no known generator; {EXPECTED}, its G_ema is a network of class {checkpoint.persisted.class_name}"
    for value in (content, *(content.values() if isinstance(content, Mapping) else ())):
        if isinstance(value, Placeholder) and value.is_module:
            return (
                f"a whole module of class {value.class_name}, whose code is not in the file: save the generator's "
                "state_dict() instead, and export one of your own class with sefa export MODULE:CLASS --weights FILE"
            )
    if isinstance(content, Placeholder | Name):
        named = content.class_name if isinstance(content, Placeholder) else content
        return f"no generator inside: it holds a {named}; {EXPECTED}"
    keys = f" of {_some(content)}" if isinstance(content, Mapping) else ""
    return f"no generator inside: it holds a {type(content).__name__}{keys}; {EXPECTED}"


def _some(keys: Mapping[Any, Any]) -> str:
    names = [str(key)[:80] for key in islice(keys, 4)] or ["nothing"]
    return ", ".join(names) + (", ..." if len(keys) > 4 else "")


def _one_line(text: str) -> str:
    """Text that may have anything from the file in it, as one line of what can be printed."""
    shown = "".join(character if character.isprintable() else "?" for character in text)
    return shown if len(shown) <= MAX_MESSAGE else f"{shown[:MAX_MESSAGE]}..."
