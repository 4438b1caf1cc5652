import io
import os
import pickle
import struct
import subprocess
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import pytest

import sefa
from sefa import CheckpointError
from sefa.checkpoints.pickled_networks import TABLE, PersistedModule, TensorFlowNetwork
from sefa_runtime.errors import ContentError
from sefa_runtime.pickles.limits import Limits
from sefa_runtime.pickles.names import Name
from sefa_runtime.pickles.numpy_arrays import StoredArray
from sefa_runtime.pickles.placeholders import Placeholder
from sefa_runtime.pickles.torch_files import PickleReader
from support.pickle_files import call, dict_of, literal, name, nested_of, number, pickle_of, stream_of, text, zip_of

Container = Callable[[bytes], bytes]
CONTAINERS: dict[str, Container] = {"pickle": bytes, "zip": zip_of, "stream": stream_of, "nested": nested_of}


def read(content: bytes, size: int = 10_000) -> object:
    try:
        return PickleReader(Limits(size), TABLE).read_pickle(io.BytesIO(content))
    except ContentError as error:  # As `read_contents` has it.
        raise CheckpointError(str(error)) from error.__cause__


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    return tmp_path / "canary"


def attacks(canary: Path) -> dict[str, bytes]:
    """Opcodes that create a file when a careless reader runs them."""
    code = f"open({str(canary)!r}, 'w').close()"
    touch = f"touch {canary}"
    arguments = b"]" + text("touch") + b"a" + text(str(canary)) + b"a"
    return {
        "os.system": call("os", "system", text(touch)),
        "posix.system": call("posix", "system", text(touch)),
        "subprocess.call": call("subprocess", "call", arguments),
        "subprocess.Popen, NEWOBJ": name("subprocess", "Popen") + arguments + b"\x85\x81",
        "builtins.exec": call("builtins", "exec", text(code)),
        "builtins.eval": call("builtins", "eval", text(code)),
        "__builtin__.eval": call("__builtin__", "eval", text(code)),
        "io.open": call("io", "open", text(str(canary)), text("w")),
        "codecs.open": call("codecs", "open", text(str(canary)), text("w")),
        "pty.spawn": call("pty", "spawn", arguments),
        "runpy.run_path": call("runpy", "run_path", text(str(canary))),
        "importlib": call("importlib", "import_module", text("os")),
        "pickle.loads": call("pickle", "loads", literal(pickle_of(call("os", "system", text(touch))))),
        "INST": b"(" + text(touch) + b"ios\nsystem\n",
        "OBJ": b"(" + name("os", "system") + text(touch) + b"o",
        "STACK_GLOBAL": text("os") + text("system") + b"\x93" + text(touch) + b"\x85R",
        "dotted": text("torch.serialization") + text("os.system") + b"\x93" + text(touch) + b"\x85R",
        "getattr": call("builtins", "getattr", name("torch", "serialization"), text("os")),
        "hub": call("torch.hub", "load", text("owner/repository"), text("model")),
        "torch.load": call("torch", "load", text(str(canary))),
        "numpy": call("numpy.f2py.crackfortran", "getlincoef", text(code), b"}"),
        "operator": call("operator", "methodcaller", text("system"), text(touch)),
        "unused": name("os", "system"),
        "discarded": name("os", "system") + b"0N",
    }


ATTACKS = list(attacks(Path("canary")))


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("attack", ATTACKS)
def test_what_wants_to_run_code_is_refused_and_nothing_is_run(
    tmp_path: Path, canary: Path, attack: str, container: str
) -> None:
    payload = dict_of({"extra": attacks(canary)[attack]})
    path = tmp_path / "network.pkl"
    path.write_bytes(CONTAINERS[container](pickle_of(payload, protocol=2 if container != "pickle" else 4)))
    with pytest.raises(
        CheckpointError, match=r"network\.pkl: a pickle that wants to run \S+: refused, nothing in it was"
    ):
        sefa.load(path)
    assert not canary.exists()


@pytest.mark.parametrize("attack", ["os.system", "subprocess.call", "builtins.exec", "io.open", "INST", "dotted"])
def test_the_attacks_above_are_real(canary: Path, attack: str) -> None:
    made = pickle.loads(pickle_of(attacks(canary)[attack], protocol=4))
    if isinstance(made, io.IOBase):
        made.close()
    assert canary.exists()


def test_the_first_protocol_is_guarded_too(tmp_path: Path, canary: Path) -> None:
    for index, content in enumerate([f"cos\nsystem\n(S'touch {canary}'\ntR.", f"(S'touch {canary}'\nios\nsystem\n."]):
        path = tmp_path / f"{index}.pkl"
        path.write_text(content)
        with pytest.raises(CheckpointError, match=r"wants to run os\.system"):
            sefa.load(path)
        assert not canary.exists()
        pickle.loads(content.encode())
        assert canary.exists()
        canary.unlink()


def test_the_source_text_in_a_pickle_is_not_run(tmp_path: Path, canary: Path) -> None:
    state = dict_of({"_parameters": b"}", "_buffers": b"}", "_modules": b"}"})
    meta = dict_of(
        {
            "type": text("class"),
            "version": number(6),
            "module_src": text(f"open({str(canary)!r}, 'w')\nclass Generator: ..."),
            "class_name": text("Generator"),
            "state": state,
        }
    )
    network = call("torch_utils.persistence", "_reconstruct_persistent_obj", meta)
    path = tmp_path / "network.pkl"
    path.write_bytes(pickle_of(dict_of({"G_ema": network})))
    with pytest.raises(CheckpointError, match=r"network\.pkl: "):
        sefa.load(path)
    assert not canary.exists()
    found = read(pickle_of(network))
    assert isinstance(found, PersistedModule)
    assert "module_src" not in vars(found)


def test_an_unknown_class_takes_everything_and_does_nothing() -> None:
    unknown = name("some.package", "Thing")
    state = dict_of({"a": number(1), "__class__": name("torch", "Tensor"), "set_state": b"N"})
    made = {
        "reduce": call("some.package", "Thing", number(1)),
        "newobj": unknown + b")\x81",
        "newobj_ex": unknown + b")}\x92",
        "inst": b"(isome.package\nThing\n",
        "obj": b"(" + unknown + b"o",
        "called again": call("some.package", "Thing") + b")R",
    }
    for how, opcodes in made.items():
        content = opcodes + b"(" + number(1) + b"e" + number(1) + b"a"  # APPENDS, APPEND
        content += text("k") + b"Ns" + b"(" + text("k") + b"Nu" + b"(" + number(1) + b"\x90"  # SETITEM(S), ADDITEMS
        content += state + b"b" + b"N" + state + b"\x86b" + state + b"N\x86b"  # BUILD, also with states of slots
        found = read(pickle_of(content, protocol=4))
        assert type(found) is Placeholder, how
        assert set(vars(found)) == {"class_name", "state"}
        assert found.state["a"] == 1


def test_no_state_reaches_what_is_not_of_the_pickle() -> None:
    before = {key: dict(getattr(function, "__dict__", {})) for key, function in TABLE.items()}
    classes = {one: dict(vars(one)) for one in (Placeholder, PersistedModule, TensorFlowNetwork, StoredArray, Name)}
    state = dict_of({"__init__": b"N", "__dict__": b"}", "__class__": name("builtins", "object"), "load": b"N"})
    for module, attribute in [*TABLE, ("torch", "FloatStorage"), ("some.package", "Thing")]:
        content = name(module, attribute) + state + b"b" + b"N" + state + b"\x86b"
        assert read(pickle_of(content, protocol=4)) == Name(module, attribute)
    assert {key: dict(getattr(function, "__dict__", {})) for key, function in TABLE.items()} == before
    assert {one: dict(vars(one)) for one in classes} == classes
    found = read(pickle_of(call("collections", "OrderedDict") + state + b"b", protocol=4))
    assert type(found) is dict
    assert found == {}
    assert not vars(OrderedDict).keys() & {"load"}


@pytest.mark.parametrize("opcode", [b"\x82\x01", b"\x83\x01\x00", b"\x84\x01\x00\x00\x00", b"\x97"])
def test_registries_and_buffers_outside_the_file_are_refused(opcode: bytes) -> None:
    with pytest.raises(CheckpointError, match="which no checkpoint needs: refused"):
        read(pickle_of(opcode))


def test_references_outside_the_file_are_for_torchs_containers_alone() -> None:
    with pytest.raises(CheckpointError, match="a reference to something outside the file"):
        read(pickle_of(text("storage") + b"Q"))
    with pytest.raises(CheckpointError, match="PERSID"):
        read(pickle_of(b"Pstorage\n"))


@pytest.mark.parametrize(
    "value",
    [
        {"a": [1, -2, 3.5, True, None, "ü", b"b", 2**70], 3: (1, (2,), (), (1, 2, 3, 4)), None: {1, 2}, b"k": {}},
        {"shared": (shared := [1]), "again": shared, "frozen": frozenset({1, 2}), "array": bytearray(b"12")},
        OrderedDict(a=1, b=OrderedDict(c=2)),
    ],
)
@pytest.mark.parametrize("protocol", range(6))
def test_plain_data_is_read_as_python_reads_it(value: object, protocol: int) -> None:
    content = pickle.dumps(value, protocol=protocol)
    if protocol < 5 and isinstance(value, dict) and "array" in value:
        value = {key: item for key, item in value.items() if key != "array"}
        content = pickle.dumps(value, protocol=protocol)
    assert read(content) == pickle.loads(content)


def test_an_object_that_contains_itself_is_read() -> None:
    loop: list[object] = []
    loop.append(loop)
    found = read(pickle.dumps(loop))
    assert isinstance(found, list)
    assert found[0] is found


def test_bytes_that_are_referred_to_twice_are_the_same() -> None:
    large = bytes(range(256)) * 40
    assert read(pickle.dumps([large, 1, large]), size=20_000) == [large, 1, large]


def test_keys_that_are_objects_are_left_out() -> None:
    content = b"}(" + name("torch", "float32") + b")R" + number(1) + number(3) + number(4) + b"u"
    assert read(pickle_of(content)) == {3: 4}


def nested_tuples(depth: int) -> bytes:
    return b")" + b"\x85" * depth


def doubled(opcode: bytes, times: int) -> bytes:
    """A tuple that holds itself twice, that twice, ...: few bytes, 2**times items."""
    return b")" + b"".join(b"q\x00h\x00" + opcode for _ in range(times))


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"}" + nested_tuples(200_000) + b"Ns", id="a key as deep as the C stack"),
        pytest.param(b"}" + doubled(b"\x86", 200) + b"Ns", id="a key that takes for ever to hash"),
        pytest.param(b"\x8f(" + doubled(b"\x86", 200) + b"\x90", id="a set of it"),
        pytest.param(call("builtins", "set", doubled(b"\x86", 200) + b"\x85"), id="a set made of it"),
        pytest.param(nested_tuples(200_000), id="deep tuples"),
        pytest.param(b"(" * 100_000 + b"t" * 100_000, id="many marks"),
        pytest.param(b"Nr\xff\xff\xff\xff", id="a memo of four billion entries"),
        pytest.param(
            b"}(" + b"".join(number(index * (2**61 - 1)) + b"N" for index in range(20_000)) + b"u",
            id="keys that collide",
        ),
    ],
)
def test_small_files_that_would_take_for_ever_or_crash_do_neither(content: bytes) -> None:
    start = time.process_time()
    read(pickle_of(content, protocol=4), size=10**7)
    assert time.process_time() - start < 20  # Seconds of work, whatever else runs.


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"\x8e" + struct.pack("<Q", 2**40), id="bytes"),
        pytest.param(b"\x8d" + struct.pack("<Q", 2**62), id="text"),
        pytest.param(b"\x8b" + struct.pack("<i", 2**31 - 1), id="integer"),
        pytest.param(b"\x8b" + struct.pack("<i", -1), id="negative length"),
        pytest.param(b"h\x07", id="memo"),
        pytest.param(b"t", id="mark"),
        pytest.param(b"R", id="stack"),
        pytest.param(b"\xff", id="opcode"),
        pytest.param(b"", id="nothing"),
        pytest.param(b"(" + number(1) + b"Nu", id="items of nothing"),
        pytest.param(b"I" + b"9" * 5000 + b"\n", id="digits"),
    ],
)
def test_a_damaged_pickle_is_an_error_of_ours(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "network.pkl").write_bytes(pickle_of(content, protocol=4))
    with pytest.raises(CheckpointError, match=r"network\.pkl: (truncated or )?damaged"):
        sefa.load(tmp_path / "network.pkl")


def test_an_unknown_escape_sequence_is_kept_without_a_warning() -> None:
    assert read(pickle_of(b"S'\\z'\n", protocol=0)) == "\\z"


def test_work_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sefa_runtime.pickles.limits.MAX_WORK", 50_000)
    items = b"](" + number(1) * 5_000 + b"eq\x00"
    with pytest.raises(CheckpointError, match="for ever"):  # 20 copies of a list for a few bytes each.
        read(pickle_of(items + b"0" + b"".join(call("builtins", "list", b"h\x00") + b"0" for _ in range(20)) + b"N"))
    with pytest.raises(CheckpointError, match="for ever"):
        read(pickle_of(b"]0" * 30_000 + b"N"))


def test_bytes_read_once_more_are_limited() -> None:
    content = literal(bytes(5_000)) + b"q\x00" + b"h\x000" * 10
    with pytest.raises(CheckpointError, match="more bytes than the file"):
        read(pickle_of(content))


def test_a_bound_method_is_a_placeholder() -> None:
    # As the feature network in StyleGAN-XL's discriminator has one.
    content = call("builtins", "getattr", call("timm.models", "VisionTransformer"), text("forward_flex"))
    assert isinstance(read(pickle_of(content)), Placeholder)
    for hidden in (text("__class__"), number(1)):
        with pytest.raises(CheckpointError, match=r"wants to run builtins\.getattr"):
            read(pickle_of(call("builtins", "getattr", call("timm.models", "VisionTransformer"), hidden)))


def test_nothing_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    imported: list[str] = []

    def spy(module: str, *arguments: object, **options: object) -> None:
        imported.append(module)

    monkeypatch.setattr("builtins.__import__", spy)
    found = read(pickle_of(call("antigravity", "geohash") + name("this", "s") + b"\x86"))
    monkeypatch.undo()
    assert isinstance(found, tuple)
    assert imported == []


def test_names_are_looked_up_with_their_modules() -> None:
    for module in ("my_os", "osgeo", "mypackage.os", "codec"):
        assert isinstance(read(pickle_of(call(module, "system", text("x")))), Placeholder)
    runs: list[Callable[..., object]] = [os.system, subprocess.run]
    for function in runs:
        with pytest.raises(CheckpointError, match=f"{function.__name__}: refused"):
            read(pickle.dumps(function))


@pytest.mark.parametrize("module", ["code", "code.training", "commands", "profile", "trace", "timeit", "tempfile"])
def test_modules_of_ones_own_may_be_called_as_some_of_pythons(module: str) -> None:
    kept = read(
        pickle_of(dict_of({"config": name(module, "Config") + b")\x81", "run": call(module, "run", text("x"))}))
    )
    assert isinstance(kept, dict)
    assert [type(one) for one in kept.values()] == [Placeholder, Placeholder]
    assert [one.class_name for one in kept.values()] == [f"{module}.Config", f"{module}.run"]
