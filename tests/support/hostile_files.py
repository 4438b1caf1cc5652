"""Files meant to run code, fill the memory, take for ever, name what is not theirs, or confuse whoever reads them.

They are built here each time; `FILES` has all of them. What every reader and command does with them is in
tests/test_hostile_corpus.py.
"""

import io
import json
import pickle
import pickletools
import stat
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from sefa_runtime.model.reading import read_info
from support.damage import rezipped
from support.descriptions import describe, described
from support.paths import GOLDEN, ROOT, TINY
from support.pickle_files import (
    call,
    dict_of,
    literal,
    name,
    nested_of,
    number,
    pickle_of,
    sizes,
    storage,
    stream_of,
    tensor,
    text,
    zip_of,
)
from support.tuned_files import tuned_document

Build = Callable[[], bytes]
MARK = "hostile-file-was-run"  # a file of this name, in the working directory, says that something ran
SHELL = f"touch {MARK}"
PYTHON = f"open({MARK!r}, 'w')"

# Text that is more than it looks like, on a terminal, in HTML, in JSON, as a path, or to whoever reads it.
TEXTS = {
    "clears the screen": "a\x1b[2J\x1b[H",
    "writes to the clipboard": "a\x1b]52;c;cm0gLXJmIH4=\x07",
    "of 8 bits": "a\x9b31mred",
    "returns": "good\rsefa: all is well",
    "has two lines": "a\nsefa: all is well",
    "runs backwards": "gnp\u202e.exe",
    "is unseen": "a\u200b\u2060\u00ad\ufeffb",
    "ends with a zero": "a\0b",
    "is half a character": "a\ud800",
    "is a tag": "<img src=x onerror=alert(1)>\"'",
    "ends a script": "</script><script>alert(1)</script>",
    "goes up": "../../../../tmp/escaped",
    "is an absolute path": "/etc/passwd",
    "is a path of Windows": "C:\\..\\NUL",
    "is a format": "%s%n{0.__class__}[bold red]:smile:",
    "is long": "a" * 100_000,
    "is a number": "0",
    "is empty": "",
}


# Pickles


# Opcodes that call a function, make an instance, look for a name, or refer to what is outside the pickle. Each is a
# whole pickle's content.
_SYSTEM, _ARGUMENTS = name("os", "system"), text(SHELL) + b"\x85"
CALLING = {
    "GLOBAL": _SYSTEM,
    "STACK_GLOBAL": text("os") + text("system") + b"\x93" + _ARGUMENTS + b"R",
    "REDUCE": _SYSTEM + _ARGUMENTS + b"R",
    "INST": b"(" + text(SHELL) + b"ios\nsystem\n",
    "OBJ": b"(" + _SYSTEM + text(SHELL) + b"o",
    "NEWOBJ": name("subprocess", "Popen") + b"(" + text("touch") + text(MARK) + b"t\x85\x81",
    "NEWOBJ_EX": name("subprocess", "Popen") + b"(" + text("touch") + text(MARK) + b"t\x85}\x92",
    "BUILD": name("os", "_wrap_close") + b")\x81" + dict_of({"__setstate__": _SYSTEM}) + b"b" + text(SHELL) + b"b",
    "EXT1": b"\x82\x01" + _ARGUMENTS + b"R",
    "EXT2": b"\x83\x01\x00" + _ARGUMENTS + b"R",
    "EXT4": b"\x84\x01\x00\x00\x00" + _ARGUMENTS + b"R",
    "PERSID": f"P{SHELL}\n".encode(),
    "BINPERSID": text(SHELL) + b"Q",
    "NEXT_BUFFER": b"\x97",
    "READONLY_BUFFER": b"\x97\x98",
}
# All others: numbers, texts, containers, the memo and the stack.
INERT = {
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT", "STRING", "BINSTRING",
    "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8", "UNICODE", "SHORT_BINUNICODE",
    "BINUNICODE", "BINUNICODE8", "NONE", "NEWTRUE", "NEWFALSE", "EMPTY_LIST", "APPEND", "APPENDS", "LIST",
    "EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "EMPTY_DICT", "DICT", "SETITEM", "SETITEMS", "EMPTY_SET",
    "ADDITEMS", "FROZENSET", "POP", "DUP", "MARK", "POP_MARK", "GET", "BINGET", "LONG_BINGET", "PUT", "BINPUT",
    "LONG_BINPUT", "MEMOIZE", "PROTO", "STOP", "FRAME",
}  # fmt: skip
OPCODES = {opcode.name for opcode in pickletools.opcodes}

CALLED = {
    "eval": call("builtins", "eval", text(PYTHON)),
    "exec": call("__builtin__", "exec", text(PYTHON)),
    "open": call("io", "open", text(MARK), text("w")),
    "numpy.load": call("numpy", "load", text(MARK)),
    "torch.load": call("torch", "load", text(MARK)),
    "a dotted name": text("torch.serialization") + text("os.system") + b"\x93" + _ARGUMENTS + b"R",
    "getattr": call("builtins", "getattr", name("torch", "serialization"), text("os")),
    "a pickle in a pickle": call("pickle", "loads", literal(pickle_of(_SYSTEM + _ARGUMENTS + b"R"))),
    "torch's pickle in a pickle": call(
        "torch.storage", "_load_from_bytes", literal(stream_of(pickle_of(_SYSTEM + _ARGUMENTS + b"R", 2)))
    ),
    "_reconstructor": call("copyreg", "_reconstructor", name("subprocess", "Popen"), name("builtins", "object"), b"N"),
    "a module's source": call(
        "torch_utils.persistence",
        "_reconstruct_persistent_obj",
        dict_of({"type": text("class"), "version": number(6), "module_src": text(PYTHON), "class_name": text("G"),
                 "state": b"}"}),
    ),
    "a sparse tensor": call("torch._utils", "_rebuild_sparse_tensor", name("torch", "sparse_coo"), b")"),
}  # fmt: skip


def npy_of(pickled: bytes) -> bytes:
    """A .npy file of objects: a header and a pickle."""
    return npy_claiming("(1,)", "'|O'", pickled)


CONTAINERS: dict[str, Callable[[bytes], bytes]] = {
    "a pickle": bytes,
    "an archive of torch": zip_of,
    "a stream of torch": stream_of,
    "an .npy": npy_of,
    "an .npz": lambda pickled: archive_of(Member("w.npy", npy_of(pickled))),
}


def pickles() -> Iterator[tuple[str, Build]]:
    """Every opcode that calls, in every container; functions that call, and sizes and depths that are not."""
    attacks = {f"opcode {opcode}": content for opcode, content in CALLING.items()}
    attacks |= {f"a call of {what}": content for what, content in CALLED.items()}
    for what, content in attacks.items():
        yield f"{what}, nested in a stream", partial(nested_of, pickle_of(content, 2))
        for container, wrap in CONTAINERS.items():
            protocol = 2 if "torch" in container else 4
            pickled = pickle_of(dict_of({"state_dict": content}), protocol)
            yield f"{what}, in {container}", partial(wrap, pickled)
    contents = {
        "bytes of a terabyte": b"\x8e" + struct.pack("<Q", 2**40),
        "text of four exabytes": b"\x8d" + struct.pack("<Q", 2**62),
        "a bytearray of a terabyte": b"\x96" + struct.pack("<Q", 2**40),
        "an integer of two gigabytes": b"\x8b" + struct.pack("<i", 2**31 - 1),
        "a frame of a terabyte": b"\x95" + struct.pack("<Q", 2**40) + b"N",
        "a memo of four billion": b"Nr\xff\xff\xff\xff",
        "tuples nested deep": b")" + b"\x85" * 30_000,
        "dicts nested deep": (b"}" + text("a")) * 20_000 + b"N" + b"s" * 20_000,
        "a tuple that is doubled 200 times": b")" + b"q\x00h\x00\x86" * 200,
        "a key that is doubled 200 times": b"}" + b")" + b"q\x00h\x00\x86" * 200 + b"Ns",
        "a stack that is empty": b"R",
        "an opcode that is none": b"\xff",
        "digits without end": b"I" + b"9" * 100_000 + b"\n",
        "a list in itself": b"]q\x00h\x00a",
        "a protocol of the future": b"\x80\xff" + b"N",
    }
    for what, content in contents.items():
        yield f"a pickle of {what}", partial(pickle_of, content, 4)


# Archives


@dataclass(frozen=True)
class Member:
    """One member of a zip archive, and what is said of it where that is not the truth."""

    name: str
    content: bytes = b""
    deflated: bool = False
    method: int | None = None
    flags: int = 0
    size: int | None = None
    packed: int | None = None
    attributes: int = 0
    extra: bytes = b""
    at: int | None = None  # where the directory says it is
    local_name: str | None = None  # in front of its content
    hidden: bool = False  # not there: only in the directory


def archive_of(*members: Member, comment: bytes = b"", claims: int | None = None, before: bytes = b"") -> bytes:
    """Write a zip archive field by field. Source: PKWARE's APPNOTE.TXT."""
    body, directory = before, b""
    for member in members:
        compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
        content = compressor.compress(member.content) + compressor.flush() if member.deflated else member.content
        method = member.method if member.method is not None else 8 * member.deflated
        sizes_ = (
            len(content) if member.packed is None else member.packed,
            len(member.content) if member.size is None else member.size,
        )
        at = len(body) if member.at is None else member.at
        encoded = member.name.encode("utf-8", "surrogatepass")
        flags = member.flags | (0x800 if not encoded.isascii() else 0)
        common = struct.pack("<5HL2L", 20, flags, method, 0, 0x21, zlib.crc32(member.content), *sizes_)
        if not member.hidden:
            local = encoded if member.local_name is None else member.local_name.encode()
            body += b"PK\3\4" + common + struct.pack("<2H", len(local), 0) + local + content
        lengths = struct.pack("<5H2L", len(encoded), len(member.extra), 0, 0, 0, member.attributes, at)
        directory += b"PK\1\2" + struct.pack("<H", 0x314) + common + lengths + encoded + member.extra
    count = len(members) if claims is None else claims
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, count, count, len(directory), len(body), len(comment))
    return body + directory + end + comment


def _zip64(size: int, packed: int, at: int) -> bytes:
    return struct.pack("<2H3Q", 1, 24, size, packed, at)


def _lies(first: Member, rest: Sequence[Member]) -> Iterator[tuple[str, Build]]:
    """Archives of some members, with something wrong about the first."""

    def changed(**fields: Any) -> Build:
        return lambda: archive_of(Member(**{**vars(first), **fields}), *rest)

    large = 2**32 - 2
    yield "that says it is smaller", changed(size=10)
    yield "that says it is larger", changed(size=large)
    yield "that is packed beyond the end", changed(packed=large, size=large)
    yield (
        "of zip64 beyond all numbers",
        changed(size=2**32 - 1, packed=2**32 - 1, at=2**32 - 1, extra=_zip64(2**63, 2**63, 2**63)),
    )
    yield "of zip64 with an extra field that is cut", changed(size=2**32 - 1, extra=b"\1\0\x18\0\1\2")
    yield "that is before the beginning", changed(at=large)
    yield "that is in the directory of another name", changed(local_name="x" * len(first.name))
    yield "that is encrypted", changed(flags=1)
    yield "that is encrypted strongly", changed(flags=0x41)
    yield "that is a patch", changed(flags=0x20)
    yield "that is packed with bzip2", changed(method=12)
    yield "that is packed with lzma", changed(method=14)
    yield "that is packed in a way that there is not", changed(method=99)
    yield "that is deflated, and is not", changed(method=8)
    yield "that is a link", changed(content=b"/etc/passwd", attributes=(stat.S_IFLNK | 0o777) << 16)
    yield "that is a device", changed(attributes=(stat.S_IFCHR | 0o666) << 16)
    for what in (
        "is an absolute path",
        "goes up",
        "is a path of Windows",
        "ends with a zero",
        "clears the screen",
        "is half a character",
        "has two lines",
    ):
        yield f"whose name {what}", changed(name=TEXTS[what] + first.name)
    yield "that is there twice", lambda: archive_of(first, first, *rest)
    yield (
        "that is twice in the directory",
        lambda: archive_of(first, *rest, Member(**{**vars(first), "at": 0, "hidden": True})),
    )
    yield (
        "that a thousand names share",
        lambda: archive_of(
            Member(first.name, first.content + bytes(2**20), deflated=True),
            *(
                Member(f"{first.name}{index}", at=0, hidden=True, method=8, size=2**20, packed=2000)
                for index in range(1000)
            ),
        ),
    )
    yield "that unpacks to a thousand times as much", changed(content=first.content + bytes(2**24), deflated=True)
    yield "with more entries than it has", lambda: archive_of(first, *rest, claims=60_000)
    yield "with a second end in its comment", lambda: archive_of(first, *rest, comment=archive_of(Member("a"))[-22:])
    yield "behind a program", lambda: archive_of(first, *rest, before=b"#!/bin/sh\n" + SHELL.encode() + b"\n")
    yield "that is cut", lambda: archive_of(first, *rest)[:-30]


def archives() -> Iterator[tuple[str, Build]]:
    """Archives of torch, of numpy, and exported ones, that lie about a member they need."""
    codes = npy(np.zeros((3, 4, 5), np.float32))
    for what, build in _lies(Member("w.npy", codes), []):
        yield f"an .npz with a member {what}", build
    state = pickle_of(dict_of({"main.0.weight": tensor(storage(16), (4, 1, 2, 2), (4, 4, 2, 1))}), 2)
    data = Member("archive/data/0", bytes(64))
    for what, build in _lies(Member("archive/data.pkl", state), [data]):
        yield f"an archive of torch with a pickle {what}", build
    for what, build in _lies(data, [Member("archive/data.pkl", state)]):
        yield f"an archive of torch with a storage {what}", build
    for suffix, members in (
        ("ts", [Member("m/constants.pkl", pickle_of(CALLING["REDUCE"], 2)), Member("m/code/__torch__.py", b"x")]),
        ("pt2", [Member("m/archive_format", b"pt2"), Member("m/models/model.json", b"{}")]),
    ):
        described = Member("m/extra/sefa.json", b"{" * 100)
        for what, build in _lies(described, members):
            yield f"a .{suffix} with a description {what}", build
        yield (
            f"a .{suffix} with a description of 9 MB",
            partial(archive_of, Member("m/extra/sefa.json", bytes(9 * 10**6), deflated=True), *members),
        )
        yield f"a .{suffix} without a description", partial(archive_of, *members)


# Tensors


def _dcgan(first: bytes, numbers: bytes = bytes(64), kind: str = "zip") -> bytes:
    """A DCGAN of one layer whose weight is to be [4, 1, 2, 2]."""
    pickled = pickle_of(dict_of({"main.0.weight": first}), 2)
    return zip_of(pickled, {"0": numbers}) if kind == "zip" else stream_of(pickled, {"0": numbers})


def tensors() -> Iterator[tuple[str, Build]]:
    """Weights that are not within their storage, are of no shape, of no known kind, or of a storage elsewhere."""
    rebuild = "torch._utils"
    shape, strides = (4, 1, 2, 2), (4, 4, 2, 1)
    kinds: dict[str, bytes] = {
        "beyond its storage": tensor(storage(16), (8, 1, 2, 2), strides),
        "of an offset beyond its storage": tensor(storage(16), shape, strides, 1),
        "of a negative offset": tensor(storage(16), shape, strides, -1),
        "of an offset beyond all numbers": tensor(storage(16), shape, strides, 2**63),
        "of negative strides": tensor(storage(16), shape, (-4, 4, 2, 1), 12),
        "of strides beyond all numbers": tensor(storage(16), shape, (2**62, 2**62, 2, 1)),
        "of a negative size": tensor(storage(16), (-4, 1, 2, 2), strides),
        "of two negative sizes": tensor(storage(16), (-4, -1, 2, 2), strides),
        "of four exabytes": tensor(storage(16), (2**31, 2**31, 1, 1), (0, 0, 0, 0)),
        "of sizes that wrap around": tensor(storage(16), (2**32, 2**32, 1, 1), (1, 1, 1, 1)),
        "of one number, repeated a billion times": tensor(storage(16), (2**30, 1, 2, 2), (0, 0, 0, 0)),
        "of ten thousand axes": tensor(storage(16), (1,) * 10_000, (1,) * 10_000),
        "of fewer strides than axes": tensor(storage(16), shape, (1,)),
        "of a storage that says it is negative": tensor(storage(-16), shape, strides),
        "of a storage that says it is larger": tensor(storage(2**40), shape, strides),
        "of a storage of zero numbers": tensor(storage(0), shape, strides),
        "of a storage elsewhere": tensor(storage(16, key="../../../etc/passwd"), shape, strides),
        "of a storage of an absolute path": tensor(storage(16, key="/etc/passwd"), shape, strides),
        "of a storage that is no text": tensor(storage(16).replace(text("0"), b"N"), shape, strides),
        "of a kind that is none": tensor(storage(16, kind="NoStorage"), shape, strides),
        "of quantised numbers": tensor(storage(64, kind="QInt8Storage"), shape, strides),
        "of complex numbers": tensor(storage(8, kind="ComplexFloatStorage"), (2, 1, 2, 2), strides),
        "that is quantised": call(rebuild, "_rebuild_qtensor", storage(16), number(0), sizes(*shape), sizes(*strides),
                                  b"(" + name("torch", "per_tensor_affine") + b"G" + bytes(8) + number(0) + b"t",
                                  b"\x89N"),
        "that is sparse": call(rebuild, "_rebuild_sparse_tensor", name("torch", "sparse_coo"),
                               b"(" + tensor(storage(16), (1, 16), (16, 1)) + tensor(storage(16), (16,), (1,))
                               + sizes(2**40) + b"t"),
        "on no device": call(rebuild, "_rebuild_meta_tensor_no_storage", name("torch", "float32"), sizes(*shape),
                             sizes(*strides), b"\x89"),
        "on a device that there is not": tensor(storage(16).replace(text("cpu"), text("cuda:99")), (8, 1, 2, 2),
                                                strides),
        "that is a parameter of itself": call(rebuild, "_rebuild_parameter", b"]q\x07h\x07a", b"\x89N"),
        "of a class that decides itself": call("torch._tensor", "_rebuild_from_type_v2", name("os", "system"),
                                               name("torch", "Tensor"), b")N"),
        "that is a number": number(2**120),
    }  # fmt: skip
    for what, content in kinds.items():
        for kind in ("zip", "stream"):
            yield f"a weight {what}, in a {kind}", partial(_dcgan, content, kind=kind)


# safetensors


def safetensors_of(header: Any, numbers: bytes = b"", length: int | None = None) -> bytes:
    """Write a safetensors file of a header, an object or text, that may be anything."""
    written = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(written) if length is None else length) + written + numbers


def entry(shape: Any, offsets: Any, kind: Any = "F32") -> dict[str, Any]:
    """Return the description of a tensor in a safetensors file."""
    return {"dtype": kind, "shape": shape, "data_offsets": offsets}


def safetensors() -> Iterator[tuple[str, Build]]:
    """Headers that lie about their length, their tensors, or where these are."""
    whole = entry([4, 1, 2, 2], [0, 64])
    headers: dict[str, Any] = {
        "of a shape of exabytes": {"main.0.weight": entry([2**31, 2**31], [0, 64])},
        "of a shape beyond all numbers": {"main.0.weight": entry([2**64, 2], [0, 64])},
        "of a shape that wraps around": {"main.0.weight": entry([2**32, 2**32, 16], [0, 64])},
        "of a negative shape": {"main.0.weight": entry([-4, -4], [0, 64])},
        "of a shape of text": {"main.0.weight": entry("4444", [0, 64])},
        "of a shape of fractions": {"main.0.weight": entry([4.0, 4.0], [0, 64])},
        "beyond its end": {"main.0.weight": entry([4, 4], [64, 128])},
        "of offsets that run backwards": {"main.0.weight": entry([4, 4], [64, 0])},
        "of negative offsets": {"main.0.weight": entry([4, 4], [-64, 0])},
        "of offsets beyond all numbers": {"main.0.weight": entry([4, 4], [2**64 - 64, 2**64])},
        "of one offset": {"main.0.weight": entry([4, 4], [0])},
        "whose tensors overlap": {"main.0.weight": whole, "other": entry([4, 1, 2, 2], [32, 96])},
        "whose tensors share everything": {f"main.{index}.weight": whole for index in range(3)},
        "with a hole": {"main.0.weight": entry([2, 1, 2, 2], [32, 64])},
        "of a kind that is none": {"main.0.weight": entry([4, 4], [0, 64], "F33")},
        "of a kind that is a list": {"main.0.weight": entry([4, 4], [0, 64], [])},
        "of eight bits": {"main.0.weight": entry([4, 1, 4, 4], [0, 64], "F8_E5M2")},
        "of an entry that is none": {"main.0.weight": 7},
        "of a list": [1, 2, 3],
        "of metadata that are no text": {"__metadata__": {"sefa_bank": {"a": []}}, "main.0.weight": whole},
        "of a bank that is a list": {"__metadata__": {"sefa_bank": "[]"}, "vectors": whole},
        "of a bank of a version of two lines": {
            "__metadata__": {"sefa_bank": json.dumps({"format_version": TEXTS["has two lines"]})}, "vectors": whole
        },
        "of a bank of a future version": {"__metadata__": {"sefa_bank": '{"format_version": 10000}'}, "vectors": whole},
        "of a key twice": b'{"main.0.weight": {"dtype": "F32", "shape": [4, 4], "data_offsets": [0, 64]}, '
                          b'"main.0.weight": {"dtype": "F32", "shape": [8, 8], "data_offsets": [0, 256]}}',
        "nested deep": b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        "of a number of many digits": b'{"a": {"dtype": "F32", "data_offsets": [0, 64], "shape": [' + b"9" * 9_000
                                      + b"]}}",
        "of infinity": b'{"a": {"dtype": "F32", "shape": [Infinity], "data_offsets": [0, NaN]}}',
        "that is not UTF-8": b'{"\xff\xfe": {}}',
        "that is cut": b'{"a": {"dtype"',
    }  # fmt: skip
    for what, header in headers.items():
        yield f"safetensors {what}", partial(safetensors_of, header, bytes(64))
    yield "safetensors whose header is longer than the file", lambda: safetensors_of({}, length=2**30)
    yield "safetensors whose header is of exabytes", lambda: safetensors_of({}, length=2**63)
    yield "safetensors whose header is shorter", lambda: safetensors_of({"main.0.weight": whole}, bytes(64), length=10)


# numpy


def npy(array: Any, version: tuple[int, int] = (1, 0)) -> bytes:
    """Write an .npy file as numpy does."""
    file = io.BytesIO()
    np.lib.format.write_array(file, array, version)
    return file.getvalue()


def npy_claiming(shape: str, dtype: str = "'<f4'", data: bytes = b"", order: str = "False", more: str = "") -> bytes:
    """Write an .npy file of a header of any text."""
    header = f"{{'descr': {dtype}, 'fortran_order': {order}, 'shape': {shape}, {more}}}"
    header += " " * (-(len(header) + 11) % 64) + "\n"
    if len(header) < 2**16:
        return b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header.encode() + data
    return b"\x93NUMPY\2\0" + struct.pack("<I", len(header)) + header.encode() + data


def _in_archive(build: Build) -> bytes:
    return archive_of(Member("w.npy", build()))


def numpy_files() -> Iterator[tuple[str, Build]]:
    """Headers that are Python, that lie, and arrays that are no numbers."""
    contents: dict[str, Build] = {
        "of a header that calls": lambda: npy_claiming(f"(__import__('os').system({SHELL!r}),)"),
        "of a header that is a comprehension": lambda: npy_claiming("tuple(x for x in range(10**12))"),
        "of a header that multiplies": lambda: npy_claiming("(9**9**9,)"),
        "of a header nested deep": lambda: npy_claiming("(" * 9_000 + ")" * 9_000),
        "of a header of lists nested deep": lambda: npy_claiming("(1,)", "[" * 9_000 + "]" * 9_000),
        "of a header of a megabyte": lambda: npy_claiming("(1,)" + " " * 2**20),
        "of a header beyond the end": lambda: b"\x93NUMPY\2\0" + struct.pack("<I", 2**32 - 1) + b"{}",
        "of a version that is none": lambda: b"\x93NUMPY\x09\0\x10\0" + bytes(16),
        "of a shape of a terabyte": lambda: npy_claiming("(274877906944,)"),
        "of a shape beyond all numbers": lambda: npy_claiming(f"({2**62}, {2**62})"),
        "of a negative shape": lambda: npy_claiming("(-1, 4)", data=bytes(16)),
        "of a shape of truths": lambda: npy_claiming("(True, True)", data=bytes(4)),
        "of a shape of a thousand axes": lambda: npy_claiming("(" + "1," * 1000 + ")", data=bytes(4)),
        "of a kind of arrays": lambda: npy_claiming("(1,)", "('<f4', (1000000000,))"),
        "of a kind of nothing": lambda: npy_claiming(f"({2**40},)", "'S0'"),
        "of a kind that is none": lambda: npy_claiming("(1,)", "'<f99'"),
        "of a kind of titles": lambda: npy_claiming("(1,)", "[(('t', 'n'), '<f4')]", bytes(4)),
        "of a kind of offsets": lambda: npy_claiming("(1,)", "{'names': ['a'], 'formats': ['<f4'], 'offsets': [-8]}"),
        "of dates": lambda: npy(np.zeros(3, "datetime64[s]")),
        "of records": lambda: npy(np.zeros(3, [("a", "f4"), ("b", "i4")])),
        "of an order that is none": lambda: npy_claiming("(1,)", order="'C'", data=bytes(4)),
        "of a key more": lambda: npy_claiming("(1,)", data=bytes(4), more="'x': 1"),
        "of objects that are none": lambda: npy_of(b"\x80\x04"),
    }
    for what, build in contents.items():
        yield f"an .npy {what}", build
        yield f"an .npz with an array {what}", partial(_in_archive, build)


# Models


def _onnx(change: Callable[[Any], None]) -> bytes:
    """A model of a changed graph under a description that fits it."""
    import onnx

    model = onnx.load(TINY)
    del model.metadata_props[:]
    change(model)
    return describe(TINY, model.SerializeToString())


def _weights_in(location: str, offset: str = "0", length: str = "16") -> Callable[[Any], None]:
    def change(model: Any) -> None:
        import onnx

        tensor_ = model.graph.initializer[0]
        tensor_.ClearField("raw_data")
        tensor_.data_location = onnx.TensorProto.EXTERNAL
        for key, value in (("location", location), ("offset", offset), ("length", length)):
            tensor_.external_data.add(key=key, value=value)

    return change


def _add_initializer(dims: Sequence[int], raw: bytes, kind: int = 1) -> Callable[[Any], None]:
    def change(model: Any) -> None:
        import onnx

        model.graph.initializer.append(onnx.TensorProto(name="more", dims=dims, raw_data=raw, data_type=kind))

    return change


def _add_node(*nodes: tuple[str, Sequence[str], Sequence[str], dict[str, Any]]) -> Callable[[Any], None]:
    def change(model: Any) -> None:
        from onnx import helper

        model.graph.node.extend(
            helper.make_node(kind, list(inputs), list(outputs), **options) for kind, inputs, outputs, options in nodes
        )

    return change


def _functions(model: Any) -> None:
    """Each calls the next one twice."""
    from onnx import helper

    opsets = [helper.make_opsetid("f", 1), helper.make_opsetid("", 18)]
    model.opset_import.append(opsets[0])
    for index in range(40):
        kind, domain = (f"F{index + 1}", "f") if index < 39 else ("F0", "f")
        nodes = [helper.make_node(kind, [one], [other], domain=domain) for one, other in (("a", "b"), ("b", "c"))]
        model.functions.append(helper.make_function("f", f"F{index}", ["a"], ["c"], nodes, opsets))
    model.graph.node.append(helper.make_node("F0", ["z"], ["more"], domain="f"))


def _nested_graphs(model: Any) -> None:
    from onnx import helper

    inside = helper.make_graph([helper.make_node("Identity", ["z"], ["e"])], "g", [], [])
    for _ in range(60):
        node = helper.make_node("If", ["c"], ["e"], then_branch=inside, else_branch=inside)
        inside = helper.make_graph([node], "g", [], [])
        if len(inside.SerializeToString()) > 2**16:
            break
    model.graph.node.append(helper.make_node("If", ["c"], ["e"], then_branch=inside, else_branch=inside))


def _metadata(*pairs: tuple[str, str]) -> Callable[[Any], None]:
    def change(model: Any) -> None:
        for key, value in pairs:
            model.metadata_props.add(key=key, value=value)

    return change


def _rename_everything(text_: str) -> Callable[[Any], None]:
    def change(model: Any) -> None:
        model.producer_name = model.domain = model.doc_string = model.graph.name = text_
        for node in model.graph.node:
            node.name = node.doc_string = text_

    return change


def models() -> Iterator[tuple[str, Build]]:
    """ONNX files that reach for other files, declare what they do not have, or expand without end."""
    places = ("/etc/passwd", "/dev/zero", "/dev/stdin", "../../secret", "a/../b", "\\\\host\\share", "a\0b", "", ".",
              "file:///etc/passwd", "https://example.org/w")  # fmt: skip
    changes: dict[str, Callable[[Any], None]] = {
        **{f"with weights in {place!r}": _weights_in(place) for place in places},
        "with weights at an offset beyond all numbers": _weights_in("tiny.onnx", "9" * 30),
        "with weights of a negative length": _weights_in("tiny.onnx", "0", "-1"),
        "with a weight of exabytes": _add_initializer([2**31, 2**31], b""),
        "with a weight of a negative shape": _add_initializer([-4], bytes(16)),
        "with a weight of fewer bytes": _add_initializer([1000], bytes(4)),
        "with a weight of a kind that is none": _add_initializer([4], bytes(16), 99),
        "with functions that call each other for ever": _functions,
        "with graphs in graphs": _nested_graphs,
        "with an operator of another domain": _add_node(("Run", ["z"], ["more"], {"domain": "com.attacker"})),
        "with an operator of Python's": _add_node(("PyOp", ["z"], ["more"], {"domain": "pyopmulti", "code": PYTHON})),
        "with a node that reads its own output": _add_node(("Identity", ["more"], ["more"], {})),
        "with an engine of TensorRT": _add_node(
            ("EPContext", ["z"], ["more"], {"domain": "com.microsoft", "embed_mode": 0, "ep_cache_context": "/dev/zero",
                                            "source": "TensorrtExecutionProvider", "main_context": 1})
        ),
        "with an input more": lambda model: model.graph.input.append(model.graph.input[0]),
        "of an operator set of the future": lambda model: setattr(model.opset_import[0], "version", 10_000),
        "of an IR of the future": lambda model: setattr(model, "ir_version", 10_000),
        "with two descriptions": _metadata(("sefa", "{}"), ("sefa_sha256", "0" * 64)),
        "with metadata of 9 MB": _metadata(("more", "x" * 9_000_000)),
        "with 20,000 metadata": _metadata(*((str(index), "") for index in range(20_000))),
    }  # fmt: skip
    for what, change in changes.items():
        yield f"a model {what}", partial(_onnx, change)
    yield "a model that is cut", lambda: TINY.read_bytes()[:2000]
    yield "a model behind another", lambda: TINY.read_bytes() + TINY.read_bytes()
    for what, document in (("a list", b"[]"), ("deep", b"[" * 100_000), ("nothing", b""), ("not UTF-8", b"\xff")):
        yield f"a model whose description is {what}", partial(_described, document)
    for what in ("is an absolute path", "goes up", "ends with a zero", "is empty", "is long", "has two lines"):
        yield f"a model whose weights' file {what}", partial(_weights_said_in, TEXTS[what])
    yield "a model whose weights are in a device", lambda: _weights_said_in("/dev/zero")


def _described(document: bytes) -> bytes:
    model = TINY.read_bytes()
    return model[: read_info(TINY).payload.bytes] + described(document)  # type: ignore[union-attr]


def _weights_said_in(place: str) -> bytes:
    return describe(TINY, None, weights={"name": place, "bytes": 16, "sha256": "0" * 64})


# JSON


def json_files() -> Iterator[tuple[str, Build]]:
    """Records and descriptions that are JSON, and more than that or less."""
    record = json.loads((ROOT / "benchmarks" / "results" / "faces-latency.json").read_text())

    def changed(**fields: Any) -> Build:
        return lambda: json.dumps(record | fields).encode()

    documents: dict[str, Build] = {
        "nested deep": lambda: b'{"record_version": ' + b"[" * 200_000,
        "of dicts nested deep": lambda: b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
        "of a number of many digits": lambda: b'{"record_version": ' + b"9" * 100_000 + b"}",
        "of a number without end": lambda: b'{"record_version": 1e999999}',
        "of infinity": lambda: b'{"record_version": Infinity}',
        "of a key 100,000 times": lambda: b"{" + b'"record_version":3,' * 100_000 + b'"a":1}',
        "of lists without end": lambda: b"[" + b"[]," * 12_000_000 + b"[]]",
        "of half a character": lambda: b'{"record_version": "\\ud800"}',
        "that is not UTF-8": lambda: b'{"record_version": "\xff\xfe"}',
        "of UTF-16": lambda: '{"record_version": 3}'.encode("utf-16"),
        "of nothing": lambda: b"",
        "of zeros": lambda: bytes(1000),
        "of a version that is a text": changed(record_version=TEXTS["has two lines"]),
        "of a version that is long": changed(record_version=TEXTS["is long"]),
        "of a version that is a list": changed(record_version=[[[]]]),
        "of no results": changed(results=None),
        "of results that are a text": changed(results="abc"),
        "of results that are texts": changed(results=["abc"]),
        "of results of other kinds": changed(results=[{"batch": {}, "edits": [], "p50_ms": "1"}]),
        "of results of many digits": changed(results=[record["results"][0] | {"p50_ms": 10**400}]),
        "of results of infinity": changed(results=[record["results"][0] | {"p50_ms": float("inf"), "batch": 1e400}]),
        "of a machine that is a list": changed(machine=[]),
        "of a model that is a text": changed(model="x"),
        "of a scenario that clears the screen": changed(scenario=TEXTS["clears the screen"]),
    }
    for what, build in documents.items():
        yield f"a record {what}", build
    settings: dict[str, dict[str, Any]] = {
        "whose option names a library": {"options": {"trt_extra_plugin_lib_paths": "./evil.so"}},
        "whose option names a file to write": {"options": {"session.optimized_model_filepath": MARK}},
        "whose option is a dict": {"options": {"load_config": {"CPU": {}}}},
        "of a provider that has two lines": {"provider": TEXTS["has two lines"]},
        "of a provider that is long": {"provider": TEXTS["is long"]},
        "of threads without end": {"threads": 10**400},
        "of a model elsewhere": {"model": "/etc/passwd"},
    }
    for what, fields in settings.items():
        document = tuned_document()
        document["one_caller"]["setting"] |= fields
        yield f"a tuned file {what}", lambda document=document: json.dumps(document).encode()  # type: ignore[misc]


# Others


def others() -> Iterator[tuple[str, Build]]:
    """What is something else."""
    contents: dict[str, Build] = {
        "an empty file": lambda: b"",
        "a byte": lambda: b"\x80",
        "a web page": lambda: b"<!DOCTYPE html><script>alert(1)</script>",
        "a program": lambda: b"#!/bin/sh\n" + SHELL.encode(),
        "a program of Python": lambda: PYTHON.encode(),
        "marshalled code": lambda: b"\xe3" + bytes(100),
        "a gzip bomb": lambda: b"\x1f\x8b\x08" + bytes(7) + zlib.compress(bytes(2**24))[2:],
        "an HDF5 file": lambda: b"\x89HDF\r\n\x1a\n" + bytes(100),
        "a tar archive of torch": lambda: b"sys_info" + bytes(249) + b"ustar" + bytes(300),
        "a GGUF file": lambda: b"GGUF" + bytes(100),
        "XML of entities": lambda: (
            b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><a>&b;</a>'
        ),
        "YAML that calls": lambda: f"a: !!python/object/apply:os.system ['{SHELL}']\n".encode(),
        "noise": lambda: np.random.default_rng(0).bytes(5000),
        "a checkpoint's archive with noise in it": lambda: rezipped(
            (GOLDEN / "checkpoints" / "dcgan_small_64" / "netG.pth").read_bytes(), 3
        ),
    }
    yield from contents.items()


# By family, and by what is wrong with each.
FILES: dict[str, dict[str, Build]] = {
    family.__name__.replace("_", " "): dict(family())
    for family in (pickles, archives, tensors, safetensors, numpy_files, models, json_files, others)
}


# Text in names


def names() -> Iterator[tuple[str, Callable[[str], bytes]]]:
    """Files with a text where a name is expected; whether they are read or refused, the text stays a text."""
    weight = tensor(storage(16), (4, 1, 2, 2), (4, 4, 2, 1))
    yield (
        "an entry of a checkpoint",
        lambda text_: zip_of(
            pickle_of(b"}(" + _text(text_) + b"}(" + text("main.0.weight") + weight + b"uu", 2), {"0": bytes(64)}
        ),
    )
    yield (
        "a weight",
        lambda text_: zip_of(
            pickle_of(b"}(" + text("main.0.weight") + weight + _text(text_) + weight + b"u", 2), {"0": bytes(64)}
        ),
    )
    yield (
        "a class",
        lambda text_: pickle.dumps({"state_dict": 0}, 4)[:-1] + b"0" + (_text(text_) + _text("Net") + b"\x93)R."),
    )
    yield "a tensor of safetensors", lambda text_: safetensors_of({text_: entry([4, 1, 2, 2], [0, 64])}, bytes(64))
    yield (
        "metadata of safetensors",
        lambda text_: safetensors_of(
            {"__metadata__": {text_: text_}, "main.0.weight": entry([4, 1, 2, 2], [0, 64])}, bytes(64)
        ),
    )
    yield (
        "an array of an .npz",
        lambda text_: archive_of(Member(f"{text_[:60_000]}.npy", npy(np.zeros((3, 4, 5), np.float32)))),
    )
    yield (
        "an image of a file of codes",
        lambda text_: npy_of(pickle_of(b"}" + _text(text_) + call("numpy.core.multiarray", "scalar") + b"s", 4)),
    )
    yield (
        "a direction of a model",
        lambda text_: _described_with(lambda document: document["directions"][0].update(name=text_)),
    )
    yield "the family of a model", lambda text_: _described_with(lambda document: document.update(family=text_))
    yield (
        "a version in a model",
        lambda text_: _described_with(lambda document: document.update(versions={text_: text_})),
    )
    yield (
        "the names in a graph",
        lambda text_: _onnx(_rename_everything(text_[:1000].encode("utf-8", "replace").decode())),
    )
    yield "a record", lambda text_: json.dumps({"record_version": text_, "scenario": text_}).encode()


def _text(value: str) -> bytes:
    """The opcode that pushes a text, surrogates among it."""
    encoded = value.encode("utf-8", "surrogatepass")
    return b"X" + struct.pack("<I", len(encoded)) + encoded


def _described_with(change: Callable[[dict[str, Any]], object]) -> bytes:
    return describe(TINY, None, change=change)
