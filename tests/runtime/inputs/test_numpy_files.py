"""Files of numbers, also such as claim to be what they are not: each is read, or refused with one line, and soon."""

import io
import json
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from sefa_runtime import InputError
from sefa_runtime.errors import ContentError
from sefa_runtime.inputs.code_files import load_codes, load_latents
from sefa_runtime.inputs.numpy_files import SINGLE, is_numpy_file, read_numpy_file
from support.pickle_files import (
    call,
    dict_of,
    literal,
    name,
    number,
    pickle_of,
    storage,
    stream_of,
    tensor,
    text,
    zip_of,
)
from support.resource_use import Reading, check_refused, readings

SHAPE = (4, 5)
CODES = np.random.default_rng(0).standard_normal((3, *SHAPE)).astype(np.float32)


def npy_claiming(shape: str, dtype: str = "'<f4'", data: bytes = b"") -> bytes:
    header = f"{{'descr': {dtype}, 'fortran_order': False, 'shape': {shape}, }}"
    header += " " * (-(len(header) + 11) % 64) + "\n"
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header.encode() + data


def npy(array: NDArray[Any], version: tuple[int, int] = (1, 0)) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, array, version)
    return file.getvalue()


def archive_of(members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for member, content in members.items():
            archive.writestr(member, content)
    return file.getvalue()


def encrypted() -> bytes:
    content = bytearray(archive_of({"w.npy": npy(CODES)}))
    content[6] |= 1
    content[content.index(b"PK\1\2") + 8] |= 1
    return bytes(content)


def bomb(method: int = zipfile.ZIP_DEFLATED, size: int = 2**30) -> bytes:
    """A member of zeros, a thousandth of its size or less."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive, archive.open("w.npy", "w", force_zip64=True) as member:
        member.write(npy_claiming(f"({size // 80}, 4, 5)"))
        for _ in range(size // 2**20):
            member.write(bytes(2**20))
    return file.getvalue()


def header_bomb(size: int = 2**29 - 100) -> bytes:
    """As long a header as an archive may be in all: numpy reads it whole, and makes text of it, before it looks."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive, archive.open("w.npy", "w") as w:
        w.write(b"\x93NUMPY\2\0" + struct.pack("<I", size))
        for _ in range(size >> 20):
            w.write(b" " * 2**20)
    return file.getvalue()


def understated_bomb() -> bytes:
    """One that says it unpacks to 1000 bytes, and holds an array that says the same."""
    packed = zlib.compressobj(9, zlib.DEFLATED, -15)
    content = packed.compress(npy_claiming("(5, 4, 5)")) + packed.compress(bytes(2**28)) + packed.flush()
    local = struct.pack("<4s5H3L2H", b"PK\3\4", 20, 0, 8, 0, 0x21, 0, len(content), 1000, 5, 0) + b"w.npy"
    entry = struct.pack("<4s6H3L5H2L", b"PK\1\2", 20, 20, 0, 8, 0, 0x21, 0, len(content), 1000, 5, 0, 0, 0, 0, 0, 0)
    entry += b"w.npy"
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 1, 1, len(entry), len(local) + len(content), 0)
    return local + content + entry + end


def torch_file(content: bytes, data: bytes = bytes(240)) -> bytes:
    return zip_of(pickle_of(content, 2), {"0": data})


WEIGHT = tensor(storage(60), (3, *SHAPE), (20, 5, 1))

REFUSED: dict[str, Callable[[], bytes]] = {
    "a shape of 16 GB": lambda: npy_claiming("(4000000000, 4)"),
    "a shape beyond all numbers": lambda: npy_claiming(f"({2**62}, {2**62})"),
    "a shape of many axes": lambda: npy_claiming(f"({'1,' * 100})", data=b"1234"),
    "a negative shape": lambda: npy_claiming("(-1, 4)", data=bytes(64)),
    "a shape of true": lambda: npy_claiming("(True, 4, 5)", data=bytes(80)),
    "a header nested deep": lambda: npy_claiming("(" * 9000),
    "a long header": lambda: npy_claiming("(1,)" + " " * 60_000),
    "a header of another text": lambda: npy_claiming("(open('x'),)"),
    "truncated": lambda: npy(CODES)[:-1],
    "structured": lambda: npy(np.zeros(3, [("a", "f4"), ("b", "i4")])),
    "structured, names of other alphabets": lambda: npy(np.zeros(3, [("ä", "f4"), ("日", "i4")]), (3, 0)),
    "dates": lambda: npy(np.zeros(3, "datetime64[s]")),
    "complex": lambda: npy(CODES.astype(np.complex64)),
    "bytes": lambda: npy(np.array([b"ab"])),
    "void": lambda: npy(np.zeros(3, "V8")),
    "objects": lambda: npy(np.array([{}], object)),
    "a pickle behind a header": lambda: npy_claiming("(1,)", "'|O'", b"cos\nsystem\n(S'true'\ntR."),
    "text of no length": lambda: npy_claiming(f"({2**40},)", "'<U0'"),
    "a bomb": bomb,
    "a bomb of a header": header_bomb,
    "a bomb of bzip2": lambda: bomb(zipfile.ZIP_BZIP2, 2**28),
    "a bomb of lzma": lambda: bomb(zipfile.ZIP_LZMA, 2**28),
    "a bomb that says it is small": understated_bomb,
    "encrypted": encrypted,
    "an archive of nothing": lambda: archive_of({}),
    "a member of nothing": lambda: archive_of({"w.npy": b""}),
    "a member of text": lambda: archive_of({"w.npy": b"text"}),
    "no archive": lambda: b"PK\3\4 nothing",
    "too many style codes": lambda: npy(np.zeros((2**26 // 20 + 1, 5), np.uint8)),
    "torch: a stride of 0": lambda: torch_file(tensor(storage(60), (2**30, *SHAPE), (0, 5, 1))),
    "torch: one tensor listed again and again": lambda: torch_file(b"](" + WEIGHT + b"q\1" + b"h\1" * 3_000_000 + b"e"),
    "torch: beyond its storage": lambda: torch_file(tensor(storage(60), (4, *SHAPE), (20, 5, 1))),
    "torch: a memo of four billion": lambda: torch_file(WEIGHT + b"r\xff\xff\xff\x7f" + b"j\xff\xff\xff\x00"),
    "torch: a list inside itself": lambda: torch_file(b"]q\1h\1a"),
    "torch: dicts inside dicts": lambda: torch_file(
        b"}"
        + b"".join(
            b"q%c0}(" % level + text("w") + b"h%c" % level + text("ws") + b"h%c" % level + b"u" for level in range(100)
        )
    ),
    "torch: lists nested deep": lambda: torch_file(b"]" * 100_000 + b"a" * 99_999),
    "torch: quantised": lambda: torch_file(
        tensor(storage(60, kind="QInt8Storage"), (3, *SHAPE), (20, 5, 1)), bytes(60)
    ),
    "torch: complex": lambda: torch_file(
        tensor(storage(60, kind="ComplexFloatStorage"), (3, *SHAPE), (20, 5, 1)), bytes(480)
    ),
    "torch: float8": lambda: torch_file(
        call(
            "torch._utils",
            "_rebuild_tensor_v3",
            storage(60, kind="UntypedStorage"),
            number(0),
            b"))",
            b"\x89N",
            name("torch", "float8_e5m2"),
        )
    ),
    "torch: sparse": lambda: torch_file(
        call("torch._utils", "_rebuild_sparse_tensor", name("torch", "sparse_coo"), WEIGHT)
    ),
    "torch: meta": lambda: torch_file(
        call("torch._utils", "_rebuild_meta_tensor_no_storage", name("torch", "float32"))
    ),
    "torch: an attack": lambda: torch_file(dict_of({"w": WEIGHT, "x": call("os", "system", text("true"))})),
    "torch: a method": lambda: torch_file(call("builtins", "getattr", name("pathlib", "Path"), text("touch"))),
    "torch: a compressed archive": lambda: archive_of({"a/data.pkl": pickle_of(WEIGHT, 2)}, zipfile.ZIP_DEFLATED),
    "torch: two pickles": lambda: archive_of({"a/data.pkl": b"", "data.pkl": b""}),
    "torch: no storage": lambda: zip_of(pickle_of(WEIGHT, 2)),
    "torch: a damaged pickle": lambda: torch_file(b"R"),
    "torch: a stream that is cut": lambda: stream_of(pickle_of(WEIGHT, 2), {"0": bytes(240)})[:-1],
    "torch: a stream of an attack": lambda: stream_of(pickle_of(call("os", "system", text("true")), 2), {}),
    "torch: a plain pickle": lambda: pickle_of(literal(b"")),
    "a pickle of an attack": lambda: pickle_of(call("os", "system", text("true")), 2),
    "objects that are no codes": lambda: npy(np.array([{"w": object}], object)),
    "one row listed again and again": lambda: pickle_of(b"](" + row_of_numbers() + b"q\1" + b"h\1" * 300_000 + b"e", 2),
    "a number of many digits": lambda: pickle_of(b"(" + b"I" + b"9" * 400 + b"\nl", 2),
    "lists in the second place": lambda: pickle_of(b"]" * 100_000 + b"(K\1K\2lK\3K\4" + b"a" * 2, 2),
    "safetensors: beyond the end": lambda: safetensors_of({"w": entry([3, 4, 5], [0, 240])}, bytes(236)),
    "safetensors: a shape of 16 GB": lambda: safetensors_of({"w": entry([2**30, 4], [0, 240])}, bytes(240)),
    "safetensors: a negative shape": lambda: safetensors_of({"w": entry([-3, -4, 5], [0, 240])}, bytes(240)),
    "safetensors: offsets of text": lambda: safetensors_of({"w": entry([3, 4, 5], ["0", "240"])}, bytes(240)),
    "safetensors: no entry": lambda: safetensors_of({"w": 7}, b""),
    "safetensors: a list": lambda: safetensors_of([], b""),
    "safetensors: float8": lambda: safetensors_of({"w": entry([3, 4, 5], [0, 60], "F8_E5M2")}, bytes(60)),
    "safetensors: a long header": lambda: (2**40).to_bytes(8, "little") + b"{" + bytes(100),
}


def row_of_numbers() -> bytes:
    return b"(" + (b"G" + bytes(8)) * 1000 + b"l"


def entry(shape: list[int], offsets: list[Any], kind: str = "F32") -> dict[str, Any]:
    return {"dtype": kind, "shape": shape, "data_offsets": offsets}


def safetensors_of(header: Any, numbers: bytes) -> bytes:
    written = json.dumps(header).encode()
    return len(written).to_bytes(8, "little") + written + numbers


@pytest.fixture(scope="module")
def read_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Reading]:
    folder = tmp_path_factory.mktemp("hostile")
    paths = []
    for index, make in enumerate(REFUSED.values()):
        paths.append(folder / f"{index}.pt")
        paths[-1].write_bytes(make())
    imports = "import numpy as np; from sefa_runtime.inputs.code_files import load_codes"
    return dict(zip(REFUSED, readings(imports, f"load_codes(path, {SHAPE})", paths), strict=True))


@pytest.mark.parametrize("kind", REFUSED)
def test_a_file_that_is_no_codes_is_refused_soon(read_files: dict[str, Reading], kind: str) -> None:
    check_refused(read_files[kind], "InputError")


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_are_read_as_numpy_reads_them(tmp_path: Path, method: int, order: Any) -> None:
    arrays = {
        "float": CODES.astype(np.float64, order=order),
        "half": CODES.astype(">f2"),
        "long": CODES.astype(np.longdouble),
        "integer": np.arange(6, dtype=np.uint16).reshape(2, 3, order=order),
        "flag": np.array([True, False]),
        "text": np.array(["a", "ü"]),
        "empty": np.empty((0, 3)),
        "scalar": np.array(2.5),
    }
    path = tmp_path / "arrays.npz"
    path.write_bytes(archive_of({f"{key}.npy": npy(array) for key, array in arrays.items()}, method))
    found = read_numpy_file(path)
    with np.load(path) as expected:
        assert list(found) == list(expected)
        for key, array in found.items():
            assert array.dtype == expected[key].dtype
            np.testing.assert_array_equal(array, expected[key])
            assert array.flags.writeable
    path.write_bytes(npy(CODES))
    np.testing.assert_array_equal(read_numpy_file(path)[SINGLE], CODES)


def test_what_kind_of_file_it_is_stands_in_its_contents(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for content, expected in [
        (npy(CODES), True),
        (archive_of({"a.npy": b""}), True),
        (archive_of({"a.npy": b"", "b.txt": b""}), False),
        (b"PK\3\4", False),
        (b"", False),
    ]:
        path.write_bytes(content)
        assert is_numpy_file(path) is expected


def test_clothing_does_not_matter(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    torch.save({"w": torch.from_numpy(CODES)}, tmp_path / "codes.npz")
    np.savez(tmp_path / "codes.pt.npz", w=CODES)
    (tmp_path / "codes.pt.npz").rename(tmp_path / "codes.pt")
    for file in ("codes.npz", "codes.pt"):
        np.testing.assert_array_equal(load_codes(tmp_path / file, SHAPE), CODES)


@pytest.mark.parametrize("kind", ["float64", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8"])
def test_torchs_numbers_are_read_as_torch_reads_them(tmp_path: Path, kind: str) -> None:
    torch = pytest.importorskip("torch")
    codes = (torch.from_numpy(CODES) * 10).to(getattr(torch, kind)).transpose(1, 2).contiguous().transpose(1, 2)
    torch.save(codes, tmp_path / "codes.pt")
    np.testing.assert_array_equal(load_codes(tmp_path / "codes.pt", SHAPE), codes.float().numpy())


def test_latents_are_read_by_the_same_reader(tmp_path: Path) -> None:
    path = tmp_path / "z.npy"
    path.write_bytes(npy(CODES))
    np.testing.assert_array_equal(load_latents(path), CODES)
    path.write_bytes(npy_claiming("(4000000000, 4)"))
    with pytest.raises(InputError, match=r"z\.npy: truncated or damaged: an array of shape \[4000000000, 4\]"):
        load_latents(path)
    path.write_bytes(archive_of({"a.npy": npy(CODES)}))
    with pytest.raises(InputError, match=r"not a \.npy file"):
        load_latents(path)


def test_objects_are_named(tmp_path: Path) -> None:
    path = tmp_path / "z.npy"
    path.write_bytes(npy(np.array([{}], object)))
    with pytest.raises(ContentError, match="pickled objects, which are not opened"):
        read_numpy_file(path)
