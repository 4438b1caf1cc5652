"""Facts that a file does not contain: taken from its owner or from what is usual, with a record of them."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

from sefa.errors import ArgumentError

T = TypeVar("T")


class Assumptions:
    """The facts that a format needs but the file does not contain.

    Args:
        told: The facts that the file's owner gave, by name.
    """

    def __init__(self, told: Mapping[str, object] | None = None) -> None:
        self._told = {name: _text(value) for name, value in (told or {}).items()}
        self._asked: list[str] = []
        self._words: list[str] = []

    @property
    def words(self) -> tuple[str, ...]:
        """Everything that was assumed, in a few words each."""
        return tuple(self._words)

    def take(self, name: str, usual: T, parse: Callable[[str], T]) -> T:
        """Return a fact as the owner gave it, or else its usual value.

        Args:
            name: The fact's name.
            usual: Its value if the owner did not give it.
            parse: Reads the owner's text; the message of its ValueError says what was expected.

        Raises:
            ArgumentError: If the owner's text cannot be read.
        """
        if name not in self._asked:
            self._asked.append(name)
        if name not in self._told:
            return usual
        try:
            return parse(self._told[name])
        except ValueError as error:
            raise ArgumentError(f"{name}={self._told[name]}: {error}") from None

    def is_told(self, name: str) -> bool:
        """Return whether the owner gave this fact."""
        return name in self._told

    def note(self, words: str, *names: str) -> None:
        """Record an assumption in words; `names` are the facts that it states, which the owner may have given."""
        self._words.append(f"{words} (as told)" if any(map(self.is_told, names)) else words)

    def check_all_asked(self) -> None:
        """Refuse facts from the owner that mean nothing to the format.

        Raises:
            ArgumentError: If there is such a fact.
        """
        strange = [name for name in self._told if name not in self._asked]
        if strange:
            has = f"what can be told is {', '.join(self._asked)}" if self._asked else "nothing can be told"
            raise ArgumentError(f"no fact {strange[0]!r} is assumed of it: {has}")


def positive(text: str) -> float:
    """Read a positive number."""
    number = float(text)
    if not 0 < number < float("inf"):
        raise ValueError("a positive number was expected")
    return number


def whole(text: str) -> int:
    """Read a whole number from 1 on."""
    if not text.isdecimal() or not int(text):
        raise ValueError("a whole number from 1 on was expected")
    return int(text)


def one_of(text: str, names: Iterable[str]) -> str:
    """Read one of several words."""
    if text not in names:
        raise ValueError(f"one of {', '.join(names)} was expected")
    return text


def mapping_rate(assumptions: Assumptions, usual: float) -> float:
    """Return the learning-rate multiplier of a mapping network, whose stored weights are divided by it."""
    rate = assumptions.take("mapping_lr", usual, positive)
    assumptions.note(f"mapping network's learning rate {rate:g}", "mapping_lr")
    return rate


def resample_kernel(assumptions: Assumptions, usual: Sequence[float] = (1, 3, 3, 1)) -> list[float]:
    """Return the taps of a StyleGAN2's filter, which is applied along both axes."""
    taps = assumptions.take("resample_kernel", list(usual), _taps)
    assumptions.note(f"filter {','.join(f'{tap:g}' for tap in taps)}", "resample_kernel")
    return taps


def _taps(text: str) -> list[float]:
    taps = [float(tap) for tap in text.split(",")]
    if not math.isfinite(sum(taps)) or not sum(taps):
        raise ValueError("numbers with a sum other than 0 were expected, as in 1,3,3,1")
    return taps


def _text(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
