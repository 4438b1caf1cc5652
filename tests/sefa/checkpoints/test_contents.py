import io
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import sefa
from sefa import CheckpointError
from sefa.checkpoints.contents import read_contents
from sefa.checkpoints.pickled_networks import TensorFlowNetwork
from sefa_runtime.pickles.numpy_arrays import StoredArray
from sefa_runtime.pickles.placeholders import Placeholder
from support.pickle_files import (
    MAGIC,
    PROTOCOL,
    SYSTEM,
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

ONES = struct.pack("<6f", *range(6))  # Of a storage of six elements.
MATRIX = tensor(storage(6), (2, 3), (3, 1))


@pytest.fixture
def contents(tmp_path: Path) -> Callable[[bytes], Any]:
    def of(content: bytes) -> Any:
        path = tmp_path / "file.pth"
        path.write_bytes(content)
        return read_contents(path)

    return of


Contents = Callable[[bytes], Any]


class Attributes:
    """Of a program that is not installed where the file is read."""

    def __init__(self, **attributes: object) -> None:
        vars(self).update(attributes)


def everything() -> dict[str, Any]:
    shared = torch.arange(24, dtype=torch.float32)
    attributed = torch.ones(2)
    attributed.init_method = "normal"  # type: ignore[attr-defined]
    kinds = [torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8]
    kinds += [torch.uint8, torch.bool, torch.complex64, torch.float8_e4m3fn, torch.uint16]
    return {
        **{str(kind): torch.arange(5).to(kind) for kind in kinds},
        "shared": shared,
        "part": shared[4:12],
        "transposed": shared.view(4, 6).t(),
        "channels last": torch.rand(2, 3, 4, 5).to(memory_format=torch.channels_last),
        "expanded": torch.ones(1, 3).expand(4, 3),
        "empty": torch.empty(0, 3),
        "scalar": torch.tensor(2.5),
        "parameter": nn.Parameter(torch.rand(3)),
        "buffer": nn.Buffer(torch.rand(3)),
        "attributed": attributed,
        "state": nn.BatchNorm2d(3).state_dict(),
        "size": torch.Size([1, 2]),
        "numbers": [1, 2.5, None, True, "text", b"bytes", (1, 2), {3: 4}],
    }


def assert_same(ours: Any, theirs: Any) -> None:
    if isinstance(theirs, Tensor):
        assert isinstance(ours, Tensor)
        assert (ours.dtype, ours.shape, ours.stride()) == (theirs.dtype, theirs.shape, theirs.stride())
        assert ours.numpy(force=True).tobytes() == theirs.numpy(force=True).tobytes() if theirs.dtype in NUMPY else True
        assert bool((ours.double() == theirs.double()).all()) if not theirs.is_complex() else torch.equal(ours, theirs)
    elif isinstance(theirs, dict):
        assert list(ours) == list(theirs)
        for key, value in theirs.items():
            assert_same(ours[key], value)
    else:
        assert ours == theirs


NUMPY = (torch.float32, torch.float64, torch.int64, torch.uint8, torch.bool)


@pytest.mark.parametrize("as_zip", [True, False])
def test_torch_files_are_read_as_torch_reads_them(tmp_path: Path, as_zip: bool) -> None:
    path = tmp_path / "everything.pt"
    content = everything()
    if not as_zip:  # Which torch itself does not read from a stream.
        content = {key: value for key, value in content.items() if key not in ("torch.float8_e4m3fn", "torch.uint16")}
    torch.save(content, path, _use_new_zipfile_serialization=as_zip)
    ours = read_contents(path)
    assert_same(ours, torch.load(path, weights_only=True))
    ours["shared"][5] = 77.0  # Views of one storage stay views of it.
    assert ours["part"][1] == 77.0


@pytest.mark.parametrize("as_zip", [True, False])
def test_objects_of_other_programs_beside_the_weights_are_left_alone(tmp_path: Path, as_zip: bool) -> None:
    path = tmp_path / "checkpoint.pt"
    beside = {
        "args": Attributes(lr=0.1, path=Path("runs")),
        "rng": np.random.default_rng(0).bit_generator.state,
        "best": np.float64(0.5),
        "history": np.arange(3.0),
        "names": np.array(["a", "b"]),
        "kind": torch.float32,
        "device": torch.device("cuda:0"),
        "function": torch.relu,
    }
    torch.save({"g_ema": {"weight": torch.ones(2)}, **beside}, path, _use_new_zipfile_serialization=as_zip)
    with pytest.raises(pickle.UnpicklingError):
        torch.load(path, weights_only=True)
    content = read_contents(path)
    assert content["g_ema"]["weight"].tolist() == [1, 1]
    assert isinstance(content["args"], Placeholder)
    assert content["args"].class_name.endswith("test_contents.Attributes")
    assert content["args"].state["lr"] == 0.1
    assert content["best"] == 0.5
    assert np.asarray(content["history"]).tolist() == [0, 1, 2]
    assert content["names"].array is None


def test_weights_from_a_gpu_are_read_on_the_cpu(contents: Contents) -> None:
    cuda = b"(" + text("storage") + name("torch.cuda", "FloatStorage") + text("0") + text("cuda:0") + number(6) + b"tQ"
    for container in (zip_of, stream_of):
        found = contents(container(pickle_of(tensor(cuda, (6,), (1,))), {"0": ONES}))
        assert found.device.type == "cpu"
        assert found.tolist() == [0, 1, 2, 3, 4, 5]


def test_all_versions_of_torchs_functions_are_known(contents: Contents) -> None:
    oldest = call("torch._utils", "_rebuild_tensor", storage(6), number(0), sizes(2, 3), sizes(3, 1))
    newest = call(
        "torch._utils",
        "_rebuild_tensor_v3",
        storage(24, kind="UntypedStorage").replace(b"ctorch\n", b"ctorch.storage\n"),
        number(0),
        sizes(2, 3),
        sizes(3, 1),
        b"\x89",
        b"N",
        name("torch", "float32"),
        b"}",
    )
    hooks = call("collections", "OrderedDict")
    parameter = call("torch._utils", "_rebuild_parameter", MATRIX, b"\x88", hooks)
    with_state = call("torch._utils", "_rebuild_parameter_with_state", MATRIX, b"\x88", hooks, b"}")
    old_parameter = call("torch.nn.parameter", "Parameter", MATRIX, b"\x88")
    for opcodes in (MATRIX, oldest, newest, parameter, with_state, old_parameter):
        assert contents(zip_of(pickle_of(opcodes), {"0": ONES})).tolist() == [[0, 1, 2], [3, 4, 5]]


def test_a_storage_within_a_storage_is_read_as_old_versions_wrote_it(contents: Contents) -> None:
    part = storage(6, view=b"(" + text("7") + number(2) + number(3) + b"t")
    assert contents(stream_of(pickle_of(tensor(part, (3,), (1,))), {"0": ONES})).tolist() == [2, 3, 4]
    for start, length in ((4, 3), (-1, 2), (0, -1), (2**70, 1)):
        beyond = storage(6, view=b"(" + text("7") + number(start) + number(length) + b"t")
        with pytest.raises(CheckpointError):
            contents(stream_of(pickle_of(tensor(beyond, (1,), (1,))), {"0": ONES}))


@pytest.mark.parametrize(
    ("opcodes", "message"),
    [
        (tensor(storage(6), (2, 4), (3, 1)), "reaches beyond its storage"),
        (tensor(storage(6), (6,), (1,), offset=1), "reaches beyond its storage"),
        (tensor(storage(6), (6,), (1,), offset=-1), "reaches beyond its storage"),
        (tensor(storage(6), (2,), (2**61,)), "reaches beyond its storage"),
        (tensor(storage(6), (6,), (-1,)), "without its storage"),
        (tensor(storage(6), (-6,), (1,)), "without its storage"),
        (tensor(storage(6), (2, 3), (1,)), "damaged"),
        (tensor(storage(6), (1,) * 17, (1,) * 17), "without its storage"),
        (tensor(storage(6), (2**31,), (0,)), "more elements than the file"),
        (tensor(storage(6), (2**40, 2**40), (0, 0)), "more elements than the file"),
        (b"](" + tensor(storage(6), (2**19,), (0,)) * 4 + b"e", "more elements than the file"),
        (tensor(text("no storage"), (6,), (1,)), "without its storage"),
        (tensor(storage(6, kind="Storage"), (6,), (1,)), "of no known type"),
        (tensor(storage(6, kind="SystemStorage"), (6,), (1,)), "of no known type"),
        (tensor(text("0") + b"Q", (6,), (1,)), "outside the file"),
        (call("torch._utils", "_rebuild_tensor_v2", storage(6)), "damaged"),
        (call("torch._utils", "_rebuild_tensor_v2", storage(6), MATRIX, sizes(6), sizes(1)), "without its storage"),
        (storage(6, kind="DoubleStorage"), "damaged|truncated"),
        (storage(7), "damaged|truncated"),
        (storage(2**40), "damaged|truncated"),
        (storage(-1), "damaged"),
        (storage(6, key="1"), "damaged"),
        (storage(6, key="../data.pkl"), "damaged"),
    ],
)
@pytest.mark.parametrize("container", [zip_of, stream_of])
def test_tensors_that_do_not_fit_their_file_are_refused(
    contents: Contents, container: Callable[..., bytes], opcodes: bytes, message: str
) -> None:
    with pytest.raises(CheckpointError, match=message):
        contents(container(pickle_of(opcodes), {"0": ONES}))


def nested(stream: bytes) -> bytes:
    return pickle_of(tensor(call("torch.storage", "_load_from_bytes", literal(stream)), (6,), (1,)))


def test_a_storage_in_a_plain_pickle_is_read(contents: Contents) -> None:
    good = stream_of(pickle_of(storage(6)), {"0": ONES})
    assert contents(nested(good)).tolist() == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("stream", "message"),
    [
        (stream_of(pickle_of(storage(6)), {"0": ONES}) + b"\0", "something else in it"),
        (stream_of(pickle_of(storage(6)), {"0": ONES})[:-1], "truncated"),
        (stream_of(pickle_of(MATRIX), {"0": ONES}), "something else in it"),
        (stream_of(pickle_of(storage(6)), {"0": ONES, "1": ONES}), "list of storages"),
        (stream_of(pickle_of(storage(6)), {"1": ONES}), "list of storages"),
        (stream_of(pickle_of(storage(6)), {"0": ONES}).replace(MAGIC, pickle.dumps(1, 2)), "unknown version"),
        (stream_of(pickle_of(storage(6)), {"0": ONES}).replace(PROTOCOL, pickle.dumps(1, 2)), "unknown version"),
        (stream_of(pickle_of(call("torch.storage", "_load_from_bytes", literal(b"")))), "something else in it"),
        (b"", "damaged"),
        (zip_of(pickle_of(storage(6)), {"0": ONES}), "damaged"),
    ],
)
def test_a_nested_storage_is_exactly_one(contents: Contents, stream: bytes, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        contents(nested(stream))


def test_a_nested_storage_that_is_used_over_and_over_is_refused(contents: Contents) -> None:
    stream = stream_of(pickle_of(storage(2_000)), {"0": bytes(8_000)})
    again = b"h\x00" + call("torch.storage", "_load_from_bytes", b"h\x00") + b"h\x01"
    content = literal(stream) + b"q\x00" + b"".join([b"0h\x00\x85q\x01", again * 20])
    with pytest.raises(CheckpointError, match="more bytes than the file"):
        contents(pickle_of(content + b"N"))


def test_the_number_of_elements_in_front_of_weights_counts(contents: Contents) -> None:
    good = stream_of(pickle_of(storage(6)), {"0": ONES})
    with pytest.raises(CheckpointError, match="damaged"):
        contents(good.replace(struct.pack("<q", 6) + ONES, struct.pack("<q", 5) + ONES))


def test_big_endian_files_are_refused(contents: Contents) -> None:
    members = [("archive/data.pkl", pickle_of(MATRIX)), ("archive/data/0", ONES), ("archive/byteorder", b"big")]
    system = pickle.dumps({"little_endian": False}, protocol=2)
    for content in (archive_of(members), stream_of(pickle_of(MATRIX), {"0": ONES}).replace(SYSTEM, system)):
        with pytest.raises(CheckpointError, match="big-endian"):
            contents(content)


def archive_of(members: list[tuple[str, bytes]], compression: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for member, content in members:
            archive.writestr(member, content)
    return file.getvalue()


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_archives_that_torch_does_not_write_are_refused(contents: Contents) -> None:
    pickled, honest = pickle_of(MATRIX), ("archive/data/0", ONES)
    for members, message in [
        ([("archive/data.pkl", pickled), ("archive/data.pkl", pickle_of(b"N")), honest], "two members of one name"),
        ([("archive/data.pkl", pickled), honest, ("../../etc/passwd", b"")], "outside its folder"),
        ([("archive/data.pkl", pickled), honest, ("/etc/passwd", b"")], "outside its folder"),
        ([("archive/data.pkl", pickled), honest, ("archive\\..\\x", b"")], "outside its folder"),
        ([("archive/data.pkl", pickled), honest, ("other/data.pkl", pickled)], "2 pickles"),
        ([("archive/data.pkl", pickled)], "missing or of the wrong size"),
        ([("archive/data.pkl", pickled), ("archive/data/0", ONES + ONES)], "missing or of the wrong size"),
    ]:
        with pytest.raises(CheckpointError, match=message):
            contents(archive_of(members))
    bomb = [("archive/data.pkl", pickle_of(tensor(storage(2**22), (1,), (1,)))), ("archive/data/0", bytes(2**24))]
    with pytest.raises(CheckpointError, match="compressed"):
        contents(archive_of(bomb, zipfile.ZIP_DEFLATED))


def test_an_archive_that_claims_more_than_it_has_is_refused(contents: Contents) -> None:
    honest = archive_of([("archive/data.pkl", pickle_of(MATRIX)), ("archive/data/0", ONES)])
    large = honest.replace(struct.pack("<II", 24, 24), struct.pack("<II", 2**30, 2**30))
    assert large != honest
    with pytest.raises(CheckpointError, match="larger than itself"):
        contents(large)


def test_one_flipped_bit_in_an_archives_weights_is_found(contents: Contents) -> None:
    content = bytearray(zip_of(pickle_of(MATRIX), {"0": ONES}))
    content[content.index(ONES) + 3] ^= 1
    with pytest.raises(CheckpointError, match="truncated or damaged"):
        contents(bytes(content))


def test_the_pickle_in_an_archive_has_a_root_or_none(contents: Contents) -> None:
    for root in ("", "archive/", "netG/"):
        content = archive_of([(f"{root}data.pkl", pickle_of(MATRIX)), (f"{root}data/0", ONES)])
        assert contents(content).tolist() == [[0, 1, 2], [3, 4, 5]]


# Numpy's arrays, as NVlabs' pickles have them.


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("dtype", ["f2", "f4", "<f8", ">f4", ">i2", "u1", "?", "i8"])
def test_arrays_are_read_as_numpy_reads_them(contents: Contents, protocol: int, dtype: str) -> None:
    array = np.arange(6).reshape(2, 3).astype(dtype)
    content = contents(pickle.dumps([array, array.T, array[0, 1], np.array(1, dtype)], protocol=protocol))
    for ours, theirs in zip(content, [array, array.T, array[0, 1], np.array(1, dtype)], strict=True):
        assert np.asarray(ours).dtype == theirs.dtype
        assert np.array_equal(np.asarray(ours), theirs)


def test_both_of_numpys_names_are_known(contents: Contents) -> None:
    content = pickle.dumps([np.arange(3), np.float32(2)], protocol=2)
    old, new = b"numpy.core.multiarray", b"numpy._core.multiarray"
    assert old in content or new in content  # Of numpy 1, of numpy 2.
    for one in (content.replace(new, old), content.replace(old, new)):
        array, scalar = contents(one)
        assert np.asarray(array).tolist() == [0, 1, 2]
        assert scalar == 2


def test_strings_of_python_2_are_the_bytes_of_arrays(contents: Contents) -> None:
    numbers = np.array([1.5, -2.5], np.float32)
    data = b"U" + bytes([8]) + numbers.tobytes()  # SHORT_BINSTRING
    start = call("numpy.core.multiarray", "_reconstruct", name("numpy", "ndarray"), sizes(0), b"U\x01b")
    dtype = call("numpy", "dtype", b"U\x02f4", number(0), number(1))
    dtype += b"(" + number(3) + b"U\x01<NNN" + number(-1) + number(-1) + number(0) + b"tb"
    array = start + b"(" + number(1) + sizes(2) + dtype + b"\x89" + data + b"tb"
    variables = b"](U\x06weight" + array + b"\x86e"
    network = name("tfutil", "Network") + b")\x81" + b"}U\x09variables" + variables + b"sb"
    content = contents(pickle_of(b"(" + network * 3 + b"t", protocol=2))
    assert isinstance(content[2], TensorFlowNetwork)
    assert content[2].tensors()["weight"].tolist() == [1.5, -2.5]


@pytest.mark.parametrize("array", [np.array([{}, []], object), np.array(["a"]), np.array([1j]), np.array([b"a"])])
def test_arrays_of_other_things_are_left_out(contents: Contents, array: Any) -> None:
    found = contents(pickle.dumps(array))
    assert isinstance(found, StoredArray)
    assert found.array is None
    network = TensorFlowNetwork()
    network.set_state({"variables": [("weight", found)]})
    with pytest.raises(CheckpointError, match="the variable weight is no array of numbers"):
        network.tensors()


def test_an_array_with_too_few_bytes_is_refused(contents: Contents) -> None:
    content = pickle.dumps(np.arange(6, dtype=np.float32))
    with pytest.raises(CheckpointError, match=r"an array of shape \[7\] with 24 bytes"):
        contents(content.replace(b"K\x06\x85", b"K\x07\x85"))


# What networks are made of.


def test_a_network_inside_itself_is_refused() -> None:
    network = TensorFlowNetwork()
    network.set_state({"variables": [], "components": {"synthesis": network}})
    with pytest.raises(CheckpointError, match="more than"):
        network.tensors()


def test_variables_of_one_array_are_converted_once() -> None:
    array = StoredArray(np.zeros(1000, np.uint8))
    network = TensorFlowNetwork()
    network.set_state({"variables": [(f"w{index}", array) for index in range(50)]})
    assert len({tensor.data_ptr() for tensor in network.tensors().values()}) == 1


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
def test_weights_of_a_kind_that_is_not_read_are_named(tmp_path: Path) -> None:
    weight = torch.ones(4, 3, 4, 4)
    for content, kind in [
        (weight[:, :, 0, 0].to_sparse(), "_rebuild_sparse_tensor"),
        (torch.quantize_per_tensor(weight, 0.1, 0, torch.qint8), "_rebuild_qtensor"),
        (weight.to("meta"), "_rebuild_meta_tensor_no_storage"),
        (weight + 1j, "complex64"),
    ]:
        path = tmp_path / "netG.pth"
        torch.save(OrderedDict({"main.0.weight": content, "main.1.weight": torch.ones(3)}), path)
        with pytest.raises(CheckpointError, match=rf"main\.0\.weight is not an ordinary tensor of weights: .*{kind}"):
            sefa.load(path)


def test_names_of_attacks_are_refused_inside_nested_storages(contents: Contents) -> None:
    with pytest.raises(CheckpointError, match=r"wants to run os\.system"):
        contents(nested_of(pickle_of(call("os", "system", text("true")))))


def test_entries_of_a_dict_keep_their_order(contents: Contents) -> None:
    assert list(contents(pickle_of(dict_of({"b": b"N", "a": b"N"})))) == ["b", "a"]


def test_a_tensor_in_place_of_a_flag_is_looked_at_by_no_one(contents: Contents) -> None:
    tensor_as_metadata = call(
        "torch._utils", "_rebuild_tensor_v2", storage(6), number(0), sizes(6), sizes(1), b"\x89", b"N", MATRIX
    )
    assert isinstance(contents(zip_of(pickle_of(tensor_as_metadata), {"0": ONES})), Placeholder)
