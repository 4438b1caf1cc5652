"""The choices that are made by name, shared by the library and the command line. This module does not import torch."""

from enum import StrEnum
from typing import TypeVar

from sefa.errors import ArgumentError

Choice = TypeVar("Choice", bound=StrEnum)


class Method(StrEnum):
    """How directions are found."""

    SEFA = "sefa"
    GANSPACE = "ganspace"


class Normalize(StrEnum):
    """How the rows of A are scaled."""

    NONE = "none"
    ROWS = "rows"


class Noise(StrEnum):
    """What a StyleGAN's noise inputs hold."""

    CONST = "const"
    NONE = "none"


class LabelFormat(StrEnum):
    """How a user's module takes its label: int64 [N], or float32 rows [N, num_classes]."""

    INDEX = "index"
    ONEHOT = "onehot"


class ImageLayout(StrEnum):
    """Which axis holds the channels in the images of a user's module."""

    NCHW = "nchw"
    NHWC = "nhwc"


def choice_of(kind: type[Choice], value: str, name: str) -> Choice:
    """Return the member of `kind` that `value` is or names.

    Raises:
        ArgumentError: If there is none; the message calls the argument `name` and lists the choices.
    """
    try:
        return kind(value)
    except ValueError:
        *others, last = kind
        raise ArgumentError(f"{name} must be {', '.join(others)} or {last}, got {value!r}") from None
