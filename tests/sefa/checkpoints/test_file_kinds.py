import io
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import sefa
from sefa import CheckpointError


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty file"),
        (b"  <!DOCTYPE html>\n<html>", "a web page"),
        (b"<html><body>Sign in</body></html>", "a web page"),
        (b"\xef\xbb\xbf<html>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "a Git LFS pointer"),
        (b"\x10\x00\x00\x00\x00\x00\x00\x00" + b'{"a":{}}' * 2, "a safetensors file"),
        (b'{"image_size": 32}', "not a checkpoint file but a JSON text"),
        (b"import torch\n", "not a checkpoint file but a program's text"),
        (b"hello", "not a checkpoint file;"),
        (b"configuration\nof something\n", "not a checkpoint file;"),
        (b"(see below)", "not a checkpoint file;"),
        (b"\x00" * 1000, "not a checkpoint file;"),
        (b"\x1f\x8b\x08compressed", "not a checkpoint file but a gzip archive: unpack it first"),
        (b"BZh91AY", "not a checkpoint file but a bzip2 archive: unpack it first"),
        (b"7z\xbc\xaf\x27\x1c\x00\x04", "not a checkpoint file but a 7z archive: unpack it first"),
        (b"\x89HDF\r\n\x1a\n\x00", "not a checkpoint file but an HDF5 file, as Keras writes"),
        (b"\x08\x01\x12\xf3\xa3\x01\x0a", "a TensorFlow SavedModel"),
        (b"\x08\x08\x12\x07pytorch", "an ONNX model, already exported"),
        (b"\x00\x01" * 50 + bytes.fromhex("57fb808b247547db"), "the index of a TensorFlow checkpoint"),
        (b"PK\x03\x04 and no archive", "truncated or damaged"),
        (b"\x80\x04 no pickle", "truncated or damaged"),
    ],
)
def test_a_file_that_is_no_checkpoint_is_called_what_it_is(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "netG.pth"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"netG\.pth: {message}"):
        sefa.load(path)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such file"):
        sefa.load(tmp_path / "missing.pth")
    with pytest.raises(CheckpointError, match="is a folder"):
        sefa.load(tmp_path)


def test_what_other_libraries_write_is_called_that(golden: Path, tmp_path: Path) -> None:
    path = tmp_path / "file"
    Image.new("RGB", (8, 8)).save(path, "PNG")
    with pytest.raises(CheckpointError, match="but a PNG image"):
        sefa.load(path)
    Image.new("RGB", (8, 8)).save(path, "JPEG")
    with pytest.raises(CheckpointError, match="but a JPEG image"):
        sefa.load(path)
    with path.open("wb") as file:
        np.save(file, np.ones(3))
    with pytest.raises(CheckpointError, match="but a numpy array"):
        sefa.load(path)
    with path.open("wb") as file:
        np.savez(file, a=np.ones(3))
    with pytest.raises(CheckpointError, match="a numpy archive"):
        sefa.load(path)
    with pytest.raises(CheckpointError, match="an ONNX model, already exported"):
        sefa.load(golden / "tiny.onnx")


def test_what_torch_exports_is_called_that(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "model.pt", "w") as archive:
        archive.writestr("model/data.pkl", b"")
        archive.writestr("model/constants.pkl", b"")
    with pytest.raises(CheckpointError, match="a TorchScript archive"):
        sefa.load(tmp_path / "model.pt")
    with zipfile.ZipFile(tmp_path / "model.pt2", "w") as archive:
        archive.writestr("model/archive_format", b"pt2")
    with pytest.raises(CheckpointError, match=r"a program that torch\.export wrote"):
        sefa.load(tmp_path / "model.pt2")


def test_other_archives_are_called_that(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "holiday.zip", "w") as archive:
        archive.writestr("beach.jpg", b"")
    with pytest.raises(CheckpointError, match="a zip archive that torch did not write"):
        sefa.load(tmp_path / "holiday.zip")
    for first, message in [("beach.jpg", "but a tar archive: unpack it first"), ("sys_info", "wrote before 2017")]:
        with tarfile.open(tmp_path / "archive.tar", "w") as tar:
            tar.addfile(tarfile.TarInfo(first), io.BytesIO())
        with pytest.raises(CheckpointError, match=message):
            sefa.load(tmp_path / "archive.tar")
