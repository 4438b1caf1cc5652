"""Protobuf messages without their schema: a sequence of (field number, wire type, value) to walk or append to.

Source: protobuf's encoding, protobuf.dev/programming-guides/encoding.
"""

from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

# Wire types.
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5


class Field(NamedTuple):
    """One field of a message."""

    number: int
    wire_type: int
    value: int  # for a varint, else 0
    start: int  # offset and length of the contents, for the other wire types
    length: int


def fields(file: BinaryIO, end: int) -> Iterator[Field]:
    """Yield the fields of the message between the cursor and `end`, skipping the contents of the longer ones.

    The caller may move the cursor between two steps.

    Raises:
        EOFError: If the message ends within a field.
        ValueError: If it is not a protobuf message.
    """
    position = file.tell()
    while position < end:
        tag = read_varint(file)
        number, wire_type = tag >> 3, tag & 7
        value = length = 0
        if wire_type == VARINT:
            value = read_varint(file)
        elif wire_type in (FIXED32, FIXED64):
            length = 4 if wire_type == FIXED32 else 8
        elif wire_type == BYTES and number > 0:
            length = read_varint(file)
        else:
            raise ValueError(f"no protobuf field at byte {position}")
        start = file.tell()
        position = start + length
        if position > end:
            raise EOFError
        yield Field(number, wire_type, value, start, length)
        file.seek(position)


def read_varint(file: BinaryIO) -> int:
    """Read an integer stored as seven bits per byte, lowest first.

    Raises:
        EOFError: If the file ends within it.
        ValueError: If it is longer than ten bytes.
    """
    value = 0
    for shift in range(0, 70, 7):
        byte = file.read(1)
        if not byte:
            raise EOFError
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return value
    raise ValueError("a varint of more than ten bytes")


def bytes_field(number: int, content: bytes) -> bytes:
    """Encode a field of bytes, text or a message."""
    return _varint(number << 3 | BYTES) + _varint(len(content)) + content


def varint_field(number: int, value: int) -> bytes:
    """Encode a field of an integer from 0 on."""
    return _varint(number << 3 | VARINT) + _varint(value)


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])
