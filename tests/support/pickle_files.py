"""Checkpoint files written opcode by opcode, as no honest library would."""

import io
import pickle
import struct
import zipfile
from collections.abc import Mapping, Sequence

MAGIC = pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2)
PROTOCOL = pickle.dumps(1001, protocol=2)
SYSTEM = pickle.dumps({"protocol_version": 1001, "little_endian": True}, protocol=2)


def text(value: str) -> bytes:
    """Return the opcode that pushes a string."""
    encoded = value.encode()
    return b"X" + struct.pack("<I", len(encoded)) + encoded


def literal(value: bytes) -> bytes:
    """Return the opcode that pushes bytes."""
    return b"B" + struct.pack("<I", len(value)) + value


def number(value: int) -> bytes:
    """Return the opcode that pushes an integer."""
    encoded = value.to_bytes(16, "little", signed=True)
    return b"\x8a" + bytes([len(encoded)]) + encoded


def name(module: str, attribute: str) -> bytes:
    """Return the opcode that pushes a function or class."""
    return f"c{module}\n{attribute}\n".encode()


def call(module: str, attribute: str, *arguments: bytes) -> bytes:
    """Return opcodes that call it."""
    return name(module, attribute) + b"(" + b"".join(arguments) + b"tR"


def pickle_of(content: bytes, protocol: int = 3) -> bytes:
    """Return a whole pickle."""
    return b"\x80" + bytes([protocol]) + content + b"."


def storage(numel: int, key: str = "0", view: bytes = b"N", kind: str = "FloatStorage") -> bytes:
    """Return opcodes of the persistent id of a storage; `view` is left out if it is empty."""
    fields = [text("storage"), name("torch", kind), text(key), text("cpu"), number(numel), view]
    return b"(" + b"".join(fields) + b"tQ"


def sizes(*values: int) -> bytes:
    """Return opcodes of a tuple of integers."""
    return b"(" + b"".join(map(number, values)) + b"t"


def tensor(of: bytes, size: Sequence[int], stride: Sequence[int], offset: int = 0) -> bytes:
    """Return opcodes of a tensor of a storage."""
    hooks = call("collections", "OrderedDict")
    return call("torch._utils", "_rebuild_tensor_v2", of, number(offset), sizes(*size), sizes(*stride), b"\x89", hooks)


def dict_of(entries: Mapping[str, bytes]) -> bytes:
    """Return opcodes of a dict."""
    return b"}(" + b"".join(text(key) + value for key, value in entries.items()) + b"u"


def stream_of(content: bytes, data: Mapping[str, bytes] | None = None, itemsize: int = 4) -> bytes:
    """Return a torch file as it was before zip archives: `content` is a pickle, `data` what its storages hold."""
    data = data or {}
    keys = pickle.dumps(list(data), protocol=2)
    numbers = [struct.pack("<q", len(value) // itemsize) + value for value in data.values()]
    return MAGIC + PROTOCOL + SYSTEM + content + keys + b"".join(numbers)


def zip_of(content: bytes, data: Mapping[str, bytes] | None = None) -> bytes:
    """Return a torch file as a zip archive."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", content)
        archive.writestr("archive/byteorder", "little")
        for key, value in (data or {}).items():
            archive.writestr(f"archive/data/{key}", value)
        archive.writestr("archive/version", "3\n")
    return file.getvalue()


def nested_of(content: bytes) -> bytes:
    """Return a plain pickle with a storage whose bytes are a stream of their own."""
    return pickle_of(dict_of({"G_ema": call("torch.storage", "_load_from_bytes", literal(stream_of(content)))}))
