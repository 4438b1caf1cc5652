"""Parse values given as text: seeds, alphas, edits, labels, options of the form KEY=VALUE."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from sefa.errors import ArgumentError
from sefa_runtime.errors import InputError
from sefa_runtime.json_text import parse_json

Number = TypeVar("Number", int, float)

MAX_ALPHAS = 1000
MAX_ALPHA = 1e6  # far beyond any meaningful image, and far from overflow
MAX_NUMBERS = 1000


def parse_edit(text: str) -> tuple[str | int, float]:
    """Parse `pose=2.5` or `3=-1` as direction and alpha.

    Raises:
        InputError: If the text does not have that form.
    """
    direction, equals, alpha = text.partition("=")
    if not equals or not direction.strip():
        raise InputError(f"an edit looks like pose=2.5 or 3=-1, got {text!r}")
    return parse_direction(direction), _finite(alpha, text)


def parse_edits(texts: list[str]) -> dict[str | int, float]:
    """Parse several edits.

    Raises:
        InputError: If a text does not have the form of an edit, or a direction is given twice.
    """
    edits = dict(map(parse_edit, texts))
    if len(edits) < len(texts):
        raise InputError(f"a direction is given twice: {', '.join(texts)}")
    return edits


def parse_provider_options(texts: list[str]) -> dict[str, str]:
    """Parse `device_id=1` and the like.

    Raises:
        InputError: If a text does not have that form, or a key is given twice.
    """
    return _parse_pairs(texts, "a provider option looks like device_id=1", "the provider option {} is given twice")


def parse_assumptions(texts: list[str]) -> dict[str, str]:
    """Parse `stride=1,2,2,1` and the like.

    Raises:
        InputError: If a text does not have that form, or a fact is given twice.
    """
    return _parse_pairs(texts, "--assume takes a fact like stride=1,2,2,1 or output=sigmoid", "--assume gives {} twice")


def parse_kwargs(text: str) -> dict[str, Any]:
    """Parse a class's keyword arguments, a JSON object.

    Raises:
        ArgumentError: If the text is not a JSON object.
    """
    try:
        arguments = parse_json(text or "{}")
    except ValueError as error:
        raise ArgumentError(
            f"--kwargs is not JSON ({error}): it looks like '{{\"nz\": 100}}', got {text!r:.80}"
        ) from None
    if not isinstance(arguments, dict):
        raise ArgumentError(f"--kwargs must be a JSON object like '{{\"nz\": 100}}', got {text!r:.80}")
    return arguments


def parse_image_range(text: str) -> tuple[float, float]:
    """Parse a range like `0,1`.

    Raises:
        InputError: If the text does not have that form.
    """
    return _parse_two(text, ",", "--image-range looks like 0,1")


def parse_alpha_range(text: str) -> tuple[float, float]:
    """Parse a range like `-3:3`.

    Raises:
        InputError: If the text does not have that form.
    """
    return _parse_two(text, ":", "a range looks like -3:3")


def parse_direction(text: str) -> str | int:
    """Return the index if the text is one, else the name."""
    text = text.strip()
    try:
        return int(text)
    except ValueError:
        return text


def parse_alphas(text: str) -> list[float]:
    """Parse `-3:3:7` (from, to, how many) or `-2,0,2`.

    Raises:
        InputError: If the text has neither form.
    """
    if ":" not in text:
        return [_finite(part, text) for part in text.split(",")]
    parts = text.split(":")
    if len(parts) != 3:
        raise InputError(f"alphas look like -3:3:7 (from, to, how many) or -2,0,2, got {text!r}")
    start, end, count = _finite(parts[0], text), _finite(parts[1], text), _number(parts[2], int, text)
    if not 1 <= count <= MAX_ALPHAS:
        raise InputError(f"alphas must be 1 to {MAX_ALPHAS} steps, got {count}")
    if count == 1 and start != end:
        raise InputError(
            f"one step does not lead from {start:g} to {end:g}: give one alpha, or more steps, got {text!r}"
        )
    return linear_steps(start, end, count)


def linear_steps(start: float, end: float, count: int) -> list[float]:
    """Return `count` evenly spaced numbers, including both ends."""
    import numpy as np

    return [float(number) for number in np.linspace(start, end, count)]


def parse_integers(text: str) -> list[int]:
    """Parse `7`, `1,2,8` or `1-6`.

    Raises:
        InputError: If the text has none of these forms, or gives too many numbers.
    """
    numbers: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,18})(?:-(\d{1,18}))?\s*", part)
        if match is None:
            raise InputError(f"numbers look like 7 or 1,2,8 or 1-6, got {text[:80]!r}")
        start, end = int(match[1]), int(match[2] or match[1])
        if end < start:
            raise InputError(f"a range must run upwards, got {part!r}")
        if len(numbers) + end - start >= MAX_NUMBERS:
            raise InputError(f"at most {MAX_NUMBERS} numbers at once, got {text[:80]!r}")
        numbers += range(start, end + 1)
    return numbers


def parse_class_names(text: str) -> tuple[str, ...]:
    """Return names of classes: the lines of a text file, or `cat,dog,bird`.

    Raises:
        InputError: If the file cannot be read.
    """
    path = Path(text)
    if not path.is_file():
        return tuple(name.strip() for name in text.split(","))
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as text: {error}") from error
    return tuple(line.strip() for line in lines if line.strip())


def parse_sizes(text: str) -> tuple[int, ...]:
    """Parse resolutions such as `32,64`.

    Raises:
        InputError: If one is not a positive number.
    """
    sizes = tuple(_number(part, int, text) for part in text.split(","))
    if min(sizes) < 1:
        raise InputError(f"resolutions are numbers of pixels such as 32,64, got {text!r}")
    return sizes


def _finite(text: str, whole: str) -> float:
    number = _number(text, float, whole)
    if not abs(number) <= MAX_ALPHA:
        raise InputError(f"alphas must be finite numbers of at most {MAX_ALPHA:g}, got {text.strip()!r}")
    return number


def _number(text: str, kind: Callable[[str], Number], whole: str) -> Number:
    try:
        return kind(text)
    except ValueError:
        raise InputError(f"{text.strip()!r} in {whole!r} is not a number") from None


def _parse_pairs(texts: list[str], form: str, twice: str) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for text in texts:
        key, equals, value = (part.strip() for part in text.partition("="))
        if not (key and equals and value):
            raise InputError(f"{form}, got {text!r}")
        if key in pairs:
            raise InputError(twice.format(key))
        pairs[key] = value
    return pairs


def _parse_two(text: str, separator: str, form: str) -> tuple[float, float]:
    try:
        low, high = map(float, text.split(separator))
    except ValueError:
        raise InputError(f"{form}, got {text[:80]!r}") from None
    return low, high
