"""Small files made to fill the memory or to take for ever: refused soon, and with little memory."""

import struct
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save as safetensors_file

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

MILLION = 1_000_000


def memo(content: bytes, index: int) -> bytes:
    """Opcodes that also remember what they push; all below 256 are a byte."""
    return content + b"q" + bytes([index])


def get(index: int) -> bytes:
    return b"h" + bytes([index])


def one_tensor_many_keys(kind: str, itemsize: int, keys: int, shape: Sequence[int]) -> bytes:
    numel = int(np.prod(shape))
    strides = [int(np.prod(shape[axis + 1 :])) for axis in range(len(shape))]
    weight = memo(tensor(storage(numel, kind=kind), shape, strides), 1)
    entries = b"".join(text(f"main.{index}.weight") + get(1) for index in range(1, keys))
    return zip_of(pickle_of(b"}(" + text("main.0.weight") + weight + entries + b"u", 2), {"0": bytes(numel * itemsize)})


def views_of_one_storage(keys: int, numel: int) -> bytes:
    entries = b"".join(
        text(f"main.{index}.weight")
        + tensor(memo(storage(numel, kind="HalfStorage"), 1), (numel - index,), (1,), index)
        for index in range(keys)
    )
    return zip_of(pickle_of(b"}(" + entries + b"u", 2), {"0": bytes(2 * numel)})


def numpy_array(data: bytes, count: int, dtype: str = "u1") -> bytes:
    """Opcodes of an array [count] of the bytes that `data` pushes."""
    kind = call("numpy", "dtype", text(dtype)) + b"(" + number(3) + text("|") + b"NNNtb"
    return call("numpy.core.numeric", "_frombuffer", data, kind, number(count) + b"\x85", text("C"))


def tensorflow(variables: bytes) -> bytes:
    network = name("dnnlib.tflib.network", "Network") + b")\x81" + dict_of({"variables": variables}) + b"b"
    return pickle_of(b"(" + memo(network, 0) + get(0) + get(0) + b"t")


def variables(count: int, value: Callable[[int], bytes]) -> bytes:
    return b"](" + b"".join(text(f"w{index}") + value(index) + b"\x86" for index in range(count)) + b"e"


def dict_inside_itself() -> bytes:
    keys = ["G_ema", "g_ema", "netG", "generator", "G", "g", "GAN", "models", "state_dict", "model", "params", "ema"]
    keys += ["generator_ema", "G_state_dict", "G_ema_state_dict", "params_ema", "generator_smooth", "model_state_dict"]
    entries = b"".join(text(key) + get(0) for key in keys)
    return pickle_of(memo(b"}", 0) + b"(" + entries + b"".join(text(str(i)) + b"N" for i in range(60_000)) + b"u")


def nested_dicts(depth: int) -> bytes:
    """Each holds the next one under many keys: as many ways as there are keys, to the power of the depth."""
    inner = b"}"
    for level in range(depth):
        keys = ("G_ema", "netG", "generator", "state_dict", "model", "params", "ema", "g")
        inner = memo(inner, level) + b"0" + b"}(" + b"".join(text(key) + get(level) for key in keys) + b"u"
    return pickle_of(inner)


def long_names() -> bytes:
    return pickle_of(memo(text("a." * 100_000), 0) + (get(0) + get(0) + b"\x930") * 3_000 + b"N", 4)


def equal_keys() -> bytes:
    """Two equal long texts, set in turn: each time they are compared."""
    long = "k" * MILLION
    put = get(0) + b"Ns" + get(1) + b"Ns"
    return pickle_of(memo(text(long), 0) + b"0" + memo(text(long), 1) + b"0}" + put * 200_000)


def long_names_of_storages(container: Callable[[bytes, dict[str, bytes]], bytes], length: int) -> bytes:
    """One reference, made again and again: a name is compared each time, and in archives built and hashed."""
    key = "k" * length
    fields = [text("storage"), name("torch", "FloatStorage"), text(key), text("cpu"), number(1)]
    reference = b"(" + b"".join(fields) + b"t"
    use = memo(reference, 1) + b"0" + memo(reference, 2) + b"0" + (get(1) + b"Q0" + get(2) + b"Q0") * 160_000
    return container(pickle_of(use + b"N", 2), {key: bytes(4)})


def method_of_a_long_name() -> bytes:
    arguments = memo(name("a", "B") + b")\x81" + text("a" * MILLION) + b"\x86", 1)
    return pickle_of(
        memo(name("builtins", "getattr"), 0) + b"0" + arguments + b"0" + (get(0) + get(1) + b"R0") * 300_000
    )


def network(content: bytes) -> bytes:
    return memo(name("dnnlib.tflib.network", "Network") + b")\x81", 9) + content + b"b"


def networks_with_a_long_variable() -> bytes:
    shared = memo(b"](" + text("n" * MILLION) + number(1) + b"\x86e", 5)
    inner = name("dnnlib.tflib.network", "Network") + b")\x81" + dict_of({"variables": get(5)}) + b"b"
    components = dict_of({f"c{index}": inner for index in range(4_000)})
    root = network(dict_of({"variables": shared, "components": components}))
    return pickle_of(b"(" + root + get(9) + get(9) + b"t")


def network_inside_itself() -> bytes:
    one = b"](" + text("v") + number(1) + b"\x86e"
    root = network(dict_of({"variables": one, "components": dict_of({"c" * 8_000: get(9)})}))
    return pickle_of(b"(" + root + get(9) + get(9) + b"t")


def dicts_of_long_keys() -> bytes:
    """Networks of the same keys, in each of which formats look for patterns."""
    keys = [f"a.{index}." + "b." * 4_000 for index in range(40)]
    weight = memo(tensor(storage(16), (4, 4, 1, 1), (4, 1, 1, 1)), 19) + b"0"
    first = b"}(" + b"".join(memo(text(key), 20 + index) + get(19) for index, key in enumerate(keys)) + b"u"
    other = b"}(" + b"".join(get(20 + index) + get(19) for index in range(40)) + b"u"
    return zip_of(
        pickle_of(weight + dict_of({"x": first, **{f"net{index}": other for index in range(1_900)}})), {"0": bytes(64)}
    )


def many_members(count: int) -> bytes:
    """A zip archive of empty members, as small as can be: local headers are left out."""
    entry = struct.pack("<4s4B4HL2L5H2L", b"PK\1\2", 20, 3, 20, 0, 0, 0, 0, 0x21, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0)
    directory = b"".join(entry + struct.pack("<I", index) for index in range(count))
    return _ended(directory, count)


def _ended(directory: bytes, count: int) -> bytes:
    """With zip64's end, as so many need; or the plain one, which says less than there are."""
    head = b"PK\3\4" + bytes(26)
    zip64 = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, count, count, len(directory), len(head))
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, len(head) + len(directory), 1)
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    return head + directory + zip64 + locator + end


def many_axes() -> bytes:
    header = b'{"a":{"dtype":"F32","shape":[' + b"1," * MILLION + b'1],"data_offsets":[0,4]}}'
    return struct.pack("<Q", len(header)) + header + bytes(4)


def long_directory_that_claims_one_entry() -> bytes:
    content = many_members(MILLION)
    directory = content[30 : content.rindex(b"PK\6\6")]
    return content[:30] + directory + struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 1, 1, len(directory), 30, 0)


REFUSED: dict[str, Callable[[], bytes]] = {
    "a float16 tensor under 5000 keys": lambda: one_tensor_many_keys("HalfStorage", 2, 5_000, (512, 512, 2)),
    "a float64 tensor under 5000 keys": lambda: one_tensor_many_keys("DoubleStorage", 8, 5_000, (128, 512, 2)),
    "a float32 tensor under 5000 keys": lambda: one_tensor_many_keys("FloatStorage", 4, 5_000, (512, 512, 2)),
    "views of one storage": lambda: views_of_one_storage(5_000, 500_000),
    "a million names of one small tensor": lambda: one_tensor_many_keys("FloatStorage", 4, 100_000, (1,)),
    "a TensorFlow array under 5000 names": lambda: tensorflow(
        variables(5_000, lambda index: get(9) if index else memo(numpy_array(literal(bytes(MILLION)), MILLION), 9))
    ),
    "TensorFlow arrays of the same bytes": lambda: tensorflow(
        variables(5_000, lambda index: numpy_array(get(9) if index else memo(literal(bytes(4000)), 9), 4000))
    ),
    "TensorFlow arrays of the same text": lambda: tensorflow(
        variables(5_000, lambda index: numpy_array(get(9) if index else memo(text("0" * MILLION), 9), MILLION))
    ),
    "the same text encoded again": lambda: pickle_of(
        memo(text("0" * MILLION), 0) + b"(" + call("_codecs", "encode", get(0)) * 50_000 + b"t"
    ),
    "a dict inside itself": dict_inside_itself,
    "dicts inside dicts": lambda: nested_dicts(30),
    "keys that collide": lambda: pickle_of(
        b"}(" + b"".join(number(index * (2**61 - 1)) + b"N" for index in range(-30_000, 30_000)) + b"u"
    ),
    "floats that collide": lambda: pickle_of(
        b"}(" + b"".join(b"G" + struct.pack(">d", 2.0 ** (61 * i % 1000)) + b"N" for i in range(60_000)) + b"u"
    ),
    "memo indices that collide": lambda: pickle_of(
        b"N" + b"".join(b"p%d\n" % (index * (2**61 - 1)) for index in range(60_000))
    ),
    "equal long keys": equal_keys,
    "long names": long_names,
    "names of many parts": lambda: pickle_of(
        memo(text("a." * 125), 0) + b"0" + (get(0) + get(0) + b"\x930") * 500_000 + b"N", 4
    ),
    "storages of long names": lambda: long_names_of_storages(stream_of, MILLION),
    "storages of long names in an archive": lambda: long_names_of_storages(zip_of, 65_000),
    "a method of a long name": method_of_a_long_name,
    "TensorFlow networks with a variable of a long name": networks_with_a_long_variable,
    "a TensorFlow network inside itself": network_inside_itself,
    "dicts of long keys": dicts_of_long_keys,
    "names without end": lambda: pickle_of(b"(" + b"".join(b"ca\n%d\n" % i for i in range(MILLION // 4)) + b"t"),
    "objects of long names": lambda: pickle_of(
        memo(name("a" * 240, "b" * 240), 0) + b"(" + (get(0) + b")\x81") * MILLION + b"t"
    ),
    "sets": lambda: pickle_of(b"(" + b"\x8f" * 4 * MILLION + b"t", 4),
    "a list that grows": lambda: pickle_of(
        memo(b"](" + b"N" * 1000 + b"e", 0) + call("builtins", "list", get(0)) * 5_000
    ),
    "the same nested stream": lambda: pickle_of(
        memo(name("torch.storage", "_load_from_bytes"), 0)
        + b"0"
        + memo(literal(stream_of(pickle_of(storage(1), 2), {"0": bytes(4)})) + b"\x85", 1)
        + (b"0" + get(0) + get(1) + b"R") * 200_000
    ),
    "numbers of one byte each": lambda: pickle_of(
        memo(name("numpy.core.multiarray", "scalar"), 0)
        + b"0"
        + memo(call("numpy", "dtype", text("u1")) + literal(b"1") + b"\x86", 1)
        + (b"0" + get(0) + get(1) + b"R") * MILLION
    ),
    "tensors without end": lambda: zip_of(
        pickle_of(
            memo(name("torch._utils", "_rebuild_tensor_v2"), 0)
            + b"0"
            + memo(b"(" + storage(1) + number(0) + b"))\x89}t", 1)
            + b"("
            + (get(0) + get(1) + b"R") * MILLION
            + b"t",
            2,
        ),
        {"0": bytes(4)},
    ),
    "a million members": lambda: many_members(MILLION),
    "a long directory that claims one entry": long_directory_that_claims_one_entry,
    "safetensors of many weights": lambda: safetensors_file({f"w{i}": torch.ones(1) for i in range(30_000)}),
    "safetensors with a long header": lambda: struct.pack("<Q", 40_000_000) + b'{"a":"' + b"x" * 40_000_000,
    "safetensors with a million axes": many_axes,
    "safetensors nested deep": lambda: struct.pack("<Q", 200_007) + b'{"a":"b"' + b"[" * 200_000,
    "a length that the file has not": lambda: pickle_of(b"\x8e" + struct.pack("<Q", 2**33) + b"N", 4),
}


@pytest.fixture(scope="module")
def read_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Reading]:
    folder = tmp_path_factory.mktemp("hostile")
    paths = []
    for index, make in enumerate(REFUSED.values()):
        paths.append(folder / f"{index}.pth")
        paths[-1].write_bytes(make())
    return dict(zip(REFUSED, readings("import sefa.checkpoints.loading", "sefa.load(path)", paths), strict=True))


@pytest.mark.parametrize("kind", REFUSED)
def test_a_file_that_would_take_for_ever_or_fill_the_memory_is_refused_soon(
    read_files: dict[str, Reading], kind: str
) -> None:
    check_refused(read_files[kind], "CheckpointError")


def test_weights_that_are_larger_than_the_memory_are_not_called_damaged(tmp_path: Path) -> None:
    path = tmp_path / "large.pth"
    path.write_bytes(stream_of(pickle_of(storage(9 * 2**28), 2)))
    with path.open("r+b") as file:
        file.truncate(10 * 2**30)  # Of holes: no room is taken on the disk.
    (reading,) = readings("import sefa.checkpoints.loading", "sefa.load(path)", [path])
    check_refused(reading, "CheckpointError")
    assert "there is no memory for its weights, one storage of 9216 MB" in reading.message
