"""Loading a generator from a checkpoint file, whose format is detected from its contents."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sefa.checkpoints.checkpoint import Checkpoint, LoadOptions
from sefa.checkpoints.formats import FORMATS
from sefa.checkpoints.reading import EXPECTED, read
from sefa.errors import ArgumentError, CheckpointError
from sefa.generators import Generator
from sefa_runtime.files import sha256_of

NOISES = ("const", "none")


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
        raise CheckpointError(f"{path}: {error}") from error.__cause__
    if num_classes not in (None, generator.num_classes):
        raise ArgumentError(
            f"{path}: num_classes {num_classes} was given, but the {generator.family} has {generator.num_classes}"
        )
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
        generator.checkpoint_format = format_.name
        return generator
    raise CheckpointError(f"no known generator: it holds {_describe(checkpoint)}; {EXPECTED}")


def _describe(checkpoint: Checkpoint) -> str:
    if checkpoint.tensors:
        return f"weights whose keys begin with {_some(checkpoint.tensors)}"
    content = checkpoint.content
    return f"a {type(content).__name__}" + (f" of {_some(content)}" if isinstance(content, Mapping) else "")


def _some(keys: Mapping[Any, Any]) -> str:
    names = [str(key)[:80] for key in keys] or ["nothing"]
    return ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")
