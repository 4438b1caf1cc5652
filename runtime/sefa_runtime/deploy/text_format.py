"""Writing protobuf's text format, the language of Triton's `config.pbtxt`.

Source: protobuf.dev/reference/protobuf/textformat-spec.
"""

from collections.abc import Mapping, Sequence
from typing import TypeAlias

Scalar: TypeAlias = str | int | bool
Message: TypeAlias = Mapping[str, "Scalar | Message | Sequence[int] | Sequence[Message]"]


class Word(str):
    """A value written without quotes: the name of an enumeration's member."""

    __slots__ = ()


def to_text(message: Message, indent: str = "") -> str:
    """Return a message as text, one field a line, in the mapping's order.

    A sequence of integers becomes a repeated field in one list, a sequence of mappings one block after another.
    """
    lines = []
    for name, value in message.items():
        if isinstance(value, Mapping):
            lines.append(_block(name, value, indent))
        elif isinstance(value, str | int):
            lines.append(f"{indent}{name}: {_scalar(value)}\n")
        elif value and isinstance(value[0], Mapping):
            lines += [_block(name, item, indent) for item in value if isinstance(item, Mapping)]
        else:
            lines.append(f"{indent}{name}: [{', '.join(map(str, value))}]\n")
    return "".join(lines)


def _block(name: str, message: Message, indent: str) -> str:
    return f"{indent}{name} {{\n{to_text(message, indent + '  ')}{indent}}}\n"


def _scalar(value: Scalar) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Word | int):
        return str(value)
    return '"' + "".join(map(_escaped, value)) + '"'


def _escaped(character: str) -> str:
    if character in '"\\':
        return "\\" + character
    return character if character.isprintable() else "".join(f"\\{byte:03o}" for byte in character.encode())
