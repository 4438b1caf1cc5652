import io
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sefa_runtime
from sefa_runtime import InputError, ModelFileError
from sefa_runtime.json_text import MAX_JSON
from sefa_runtime.model import graph_check
from sefa_runtime.model.description_entries import without_description
from sefa_runtime.model.info import ModelInfo, Payload
from sefa_runtime.model.protobuf import bytes_field
from sefa_runtime.model.reading import check_payload, files_of, is_onnx, is_torchscript, read_info, weights_path
from sefa_runtime.session import session
from support.descriptions import change_description, replace_description
from support.paths import GOLDEN, TINY


def test_the_description_is_read_without_loading_the_model(golden: Path) -> None:
    info = read_info(golden / "tiny.onnx")
    assert info.family == "dcgan"
    assert (info.z_dim, info.resolution, info.channels) == (6, (8, 4), 3)
    assert len(info.source_sha256) == 0  # It was made from weights in memory.


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty file"),
        (b"<!DOCTYPE html><html></html>", "not an ONNX model"),
        (b"\x00" * 100, "not an ONNX model"),
        (b"\x08\x08", "not an ONNX model"),
        (b"\x08\x0aplainly not protobuf", "truncated or damaged"),
        (b"\x80\x04K*.", "not an ONNX model"),
        (b"\xff" * 64, "not an ONNX model"),
    ],
)
def test_what_is_no_model_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelFileError, match=f"model.onnx: {message}"):
        sefa_runtime.load(path)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="no such file"):
        sefa_runtime.load(tmp_path / "missing.onnx")
    with pytest.raises(ModelFileError, match="is a folder"):
        sefa_runtime.load(tmp_path)


def test_a_model_of_another_tool_is_refused() -> None:
    probe = Path(sefa_runtime.__file__).parent / "session" / "probe.onnx"
    with pytest.raises(ModelFileError, match="not one exported by `sefa export`"):
        sefa_runtime.load(probe)


def test_a_file_cut_anywhere_is_refused(golden: Path, tmp_path: Path) -> None:
    content = (golden / "tiny.onnx").read_bytes()
    path = tmp_path / "cut.onnx"
    for length in range(0, len(content), 97):
        path.write_bytes(content[:length])
        with pytest.raises(ModelFileError, match=r"cut\.onnx"):
            sefa_runtime.load(path, provider="cpu")


def payload_of(info: ModelInfo) -> Payload:
    assert info.payload is not None
    return info.payload


def test_a_flipped_bit_anywhere_is_refused(golden: Path, tmp_path: Path) -> None:
    content = (golden / "tiny.onnx").read_bytes()
    info = read_info(golden / "tiny.onnx")
    path = tmp_path / "flipped.onnx"
    for position in range(0, payload_of(info).bytes, 53):
        path.write_bytes(content[:position] + bytes([content[position] ^ 0x10]) + content[position + 1 :])
        with pytest.raises(ModelFileError, match=r"flipped\.onnx"):
            check_payload(path, read_info(path))


def test_a_flipped_bit_in_the_description_is_refused(golden: Path, tmp_path: Path) -> None:
    content = (golden / "tiny.onnx").read_bytes()
    path = tmp_path / "flipped.onnx"
    for position in range(payload_of(read_info(golden / "tiny.onnx")).bytes, len(content), 31):
        path.write_bytes(content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :])
        with pytest.raises(ModelFileError, match=r"flipped\.onnx"):
            read_info(path)


def test_a_description_of_a_newer_format_is_refused(golden: Path, tmp_path: Path) -> None:
    replace_description(golden / "tiny.onnx", tmp_path / "new.onnx", '"format_version":4', '"format_version":9')
    with pytest.raises(ModelFileError, match="version 9, this sefa reads version 4"):
        sefa_runtime.load(tmp_path / "new.onnx")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"family"', '"famili"'),
        ('"z_dim":6', '"z_dim":x'),
        ('"z_dim":6', '"z_dim":""'[:9]),
        ('"resolution":[8,4]', '"resolution":[8]'),
        ('"alpha_range":[-3.0,3.0]', '"alpha_range":[-3.0]'),
        ('"channels":3', '"channels":{}'[:12]),
        ('"max_abs_error":', '"max_abs_errar":'),
        ('"batches":[1,2,7]', '"batches":[1,2,""]'[:17]),
    ],
)
def test_a_description_that_was_edited_wrongly_is_refused(golden: Path, tmp_path: Path, old: str, new: str) -> None:
    replace_description(golden / "tiny.onnx", tmp_path / "edited.onnx", old, new)
    with pytest.raises(ModelFileError, match=r"edited\.onnx: its sefa metadata is damaged"):
        sefa_runtime.load(tmp_path / "edited.onnx")


def test_kinds_are_told_from_contents(golden: Path, tmp_path: Path) -> None:
    archive = tmp_path / "weights.tar"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("weights/data.pkl", b"")
    assert is_onnx(golden / "tiny.onnx")
    assert not is_onnx(archive)
    assert not is_torchscript(archive)
    assert not is_torchscript(golden / "tiny.onnx")
    assert not is_onnx(tmp_path / "missing")


def test_a_torchscript_archive_is_sent_to_torch(tmp_path: Path) -> None:
    archive = tmp_path / "model.ts"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("model/constants.pkl", b"")
    with pytest.raises(ModelFileError, match="carries no sefa metadata"):
        sefa_runtime.load(archive)


def test_a_damaged_description_in_an_archive_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.ts"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("model/constants.pkl", b"")
        file.writestr("model/extra/sefa.json", b"{a description}")
    path.write_bytes(path.read_bytes().replace(b"{a desc", b"{a dXsc"))
    with pytest.raises(ModelFileError, match=r"model\.ts: truncated or damaged"):
        read_info(path)


@pytest.fixture
def shared(golden: Path, tmp_path: Path) -> Path:
    """A copy of a model whose weights are in a file beside it."""
    for name in ("style_w.onnx", "style.safetensors"):
        shutil.copy(golden / name, tmp_path / name)
    return tmp_path / "style_w.onnx"


def test_weights_beside_the_model_are_checked(shared: Path) -> None:
    weights = weights_path(shared, read_info(shared))
    assert weights == shared.with_name("style.safetensors")
    sefa_runtime.load(shared, "cpu")
    whole = weights.read_bytes()
    damaged = bytearray(whole)
    damaged[len(damaged) // 2] ^= 1
    for content in (bytes(damaged), whole[:-1], whole + b"1", b""):
        weights.write_bytes(content)
        with pytest.raises(
            ModelFileError, match=r"style\.safetensors: damaged, or not the weights that style_w\.onnx was"
        ):
            sefa_runtime.load(shared, "cpu")


def test_weights_that_are_missing_are_named(shared: Path) -> None:
    shared.with_name("style.safetensors").unlink()
    with pytest.raises(ModelFileError, match=r"style\.safetensors: no such file; style_w\.onnx has its weights in it"):
        sefa_runtime.load(shared, "cpu")


def test_weights_are_not_looked_for_in_other_folders(shared: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.onnx"
    replace_description(shared, other, '"name":"style.safetensors"', '"name":"../style.safetens"')
    with pytest.raises(
        ModelFileError, match=r"its weights are said to be in '\.\./style\.safetens', not in a file beside"
    ):
        sefa_runtime.load(other, "cpu")


USED = """
import sys
from pathlib import Path
import numpy as np
import sefa_runtime
model = Path(sys.argv[1])
editor = sefa_runtime.load(model, "cpu", {"session.disable_prepacking": 1})
w = np.linspace(-1, 1, 24, dtype=np.float32)
before = editor.run(w=w, direction=1, alpha=2.0)
for file in (model, model.with_name("style.safetensors")):
    size = file.stat().st_size
    for content in (b"\\xff" * size, b""):
        with file.open("r+b") as opened:
            opened.write(content)
            opened.truncate(len(content))
        assert np.array_equal(editor.run(w=w, direction=1, alpha=2.0), before)
"""


def test_what_becomes_of_the_files_is_nothing_to_a_loaded_model(shared: Path) -> None:
    # A process of its own: one that has mapped a file dies of SIGBUS when that is emptied.
    subprocess.run([sys.executable, "-c", USED, shared], check=True)


def test_files_that_change_between_check_and_use_are_not_used(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = sefa_runtime.load(shared, "cpu").run(w=np.zeros(24))
    build = session.build_session

    def build_late(*arguments: Any, **options: Any) -> Any:
        for file in (shared, shared.with_name("style.safetensors")):
            file.write_bytes(b"")
        return build(*arguments, **options)

    monkeypatch.setattr("sefa_runtime.editor.build_session", build_late)
    np.testing.assert_array_equal(sefa_runtime.load(shared, "cpu").run(w=np.zeros(24)), expected)


@pytest.mark.parametrize("action", ["open", "stat"])
def test_a_file_that_may_not_be_read_is_a_model_error(
    tmp_path: Path, golden: Path, monkeypatch: pytest.MonkeyPatch, action: str
) -> None:
    # Permissions do not bind root, as whom containers run their tests.
    real = getattr(Path, action)

    def refuse(self: Path, *arguments: Any, **options: Any) -> Any:
        if self.name == "model.onnx":
            raise PermissionError(13, "Permission denied", str(self))
        return real(self, *arguments, **options)

    model = Path(shutil.copy(golden / "tiny.onnx", tmp_path / "model.onnx"))
    monkeypatch.setattr(Path, action, refuse)
    with pytest.raises(ModelFileError, match=r"model\.onnx: cannot be read: Permission denied"):
        sefa_runtime.load(model, "cpu")


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="only Linux has such files")
def test_a_file_whose_reading_fails_is_named() -> None:
    with pytest.raises(ModelFileError, match=r"/proc/self/mem: (empty|cannot be read)"):
        read_info(Path("/proc/self/mem"))


def test_files_of_a_model(shared: Path, golden: Path) -> None:
    assert files_of(shared) == (shared, shared.with_name("style.safetensors"))
    assert files_of(golden / "tiny.onnx") == (golden / "tiny.onnx",)
    assert files_of(golden / "missing") == (golden / "missing",)


def test_a_description_beyond_all_size_is_not_read(tmp_path: Path, golden: Path) -> None:
    path = tmp_path / "model.ts"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("model/constants.pkl", b"")
        with file.open("model/extra/sefa.json", "w") as document:
            for _ in range(MAX_JSON >> 20):
                document.write(b" " * (1 << 20))
            document.write(b"{}")
    with pytest.raises(ModelFileError, match=r"model\.ts: truncated or damaged"):
        read_info(path)
    model = tmp_path / "long.onnx"
    change_description(golden / "tiny.onnx", model, lambda document: document.update(family="x" * MAX_JSON))
    with pytest.raises(ModelFileError, match=r"long\.onnx: truncated or damaged"):
        read_info(model)


def test_a_model_of_countless_fields_is_refused_at_once(tmp_path: Path, golden: Path) -> None:
    path = tmp_path / "fields.onnx"
    path.write_bytes((golden / "tiny.onnx").read_bytes() + b"\x08\x08" * (graph_check.MAX_MODEL_FIELDS + 1))
    with pytest.raises(ModelFileError, match=r"fields\.onnx: truncated or damaged"):
        read_info(path)
    graph = bytes_field(graph_check.GRAPH, b"\x08\x08" * (graph_check.MAX_GRAPH_FIELDS + 1))
    assert "more parts than are read" in (graph_check.graph_problem(graph, 1, set()) or "")


@pytest.mark.parametrize(
    "given",
    [
        Path.read_bytes,
        lambda path: bytearray(path.read_bytes()),
        lambda path: memoryview(path.read_bytes()),
        lambda path: io.BytesIO(path.read_bytes()),
        lambda path: path.open("rb"),
    ],
    ids=["bytes", "bytearray", "memoryview", "BytesIO", "file"],
)
def test_a_model_may_be_given_as_its_contents(given: Callable[[Path], Any]) -> None:
    source = given(TINY)
    editor, expected = sefa_runtime.load(source, "cpu"), sefa_runtime.load(TINY, "cpu")
    if isinstance(source, io.IOBase):
        source.close()
    assert (editor.path, editor.name, editor.info) == (None, "the given bytes", expected.info)
    np.testing.assert_array_equal(editor.edit(seed=7, edits={1: 2.0}), expected.edit(seed=7, edits={1: 2.0}))


def damaged(content: bytes) -> bytes:
    changed = bytearray(content)
    changed[3000] ^= 1
    return bytes(changed)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (b"", "the given bytes: empty; a model made by"),
        (b"PK\x03\x04", "the given bytes: not an ONNX model"),
        (TINY.read_bytes()[:-1], "the given bytes: truncated or damaged"),
        (damaged(TINY.read_bytes()), r"the given bytes: damaged, or .* `sefa seal FILE --like ORIGINAL\.onnx`"),
        (without_description(TINY.read_bytes()), "the given bytes: a model, but not one exported by"),
        ((GOLDEN / "style_w.onnx").read_bytes(), r"the weights are in style\.safetensors, .* load it by its path"),
    ],
    ids=["empty", "zip", "truncated", "damaged", "bare", "weights beside"],
)
def test_what_is_wrong_with_given_bytes(given: bytes, message: str) -> None:
    with pytest.raises(ModelFileError, match=message):
        sefa_runtime.load(given, "cpu")


@pytest.mark.parametrize("given", [io.StringIO("text"), 7, None])
def test_what_is_no_model_at_all(given: Any) -> None:
    with pytest.raises(InputError, match="a model is its path, its contents as bytes, or a file opened in binary mode"):
        sefa_runtime.load(given, "cpu")
