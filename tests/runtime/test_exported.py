import zipfile
from pathlib import Path

import pytest

import sefa_runtime
from sefa_runtime import ModelFileError
from sefa_runtime.exported import check_payload, is_onnx, is_torchscript, read_info


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
    probe = Path(sefa_runtime.__file__).parent / "probe.onnx"
    with pytest.raises(ModelFileError, match="not one exported by `sefa export`"):
        sefa_runtime.load(probe)


def test_a_file_cut_anywhere_is_refused(golden: Path, tmp_path: Path) -> None:
    content = (golden / "tiny.onnx").read_bytes()
    path = tmp_path / "cut.onnx"
    for length in range(0, len(content), 97):
        path.write_bytes(content[:length])
        with pytest.raises(ModelFileError, match=r"cut\.onnx"):
            sefa_runtime.load(path, provider="cpu")


def test_a_flipped_bit_anywhere_is_refused(golden: Path, tmp_path: Path) -> None:
    content = (golden / "tiny.onnx").read_bytes()
    info = read_info(golden / "tiny.onnx")
    path = tmp_path / "flipped.onnx"
    for position in range(0, info.payload_bytes, 53):
        path.write_bytes(content[:position] + bytes([content[position] ^ 0x10]) + content[position + 1 :])
        with pytest.raises(ModelFileError, match=r"flipped\.onnx"):
            check_payload(path, read_info(path))


def test_a_description_of_a_newer_format_is_refused(golden: Path, tmp_path: Path) -> None:
    content = (golden / "tiny.onnx").read_bytes()
    path = tmp_path / "newer.onnx"
    path.write_bytes(content.replace(b'"format_version":1', b'"format_version":9'))
    with pytest.raises(ModelFileError, match="version 9, this sefa reads version 1"):
        sefa_runtime.load(path)


@pytest.mark.parametrize(
    ("old", "new"), [(b'"family"', b'"famili"'), (b'{"format', b'["format'), (b'"z_dim":6', b'"z_dim":x')]
)
def test_a_damaged_description_is_refused(golden: Path, tmp_path: Path, old: bytes, new: bytes) -> None:
    path = tmp_path / "damaged.onnx"
    path.write_bytes((golden / "tiny.onnx").read_bytes().replace(old, new))
    with pytest.raises(ModelFileError, match="metadata is damaged"):
        sefa_runtime.load(path)


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
