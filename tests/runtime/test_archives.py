"""Zip archives that are damaged or lie: whoever reads one says so in one line."""

import io
import random
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from sefa_runtime import InputError
from sefa_runtime.archives import DAMAGED_ARCHIVE, open_archive, read_member
from sefa_runtime.errors import ModelFileError
from sefa_runtime.inputs.code_files import load_codes
from sefa_runtime.model.reading import read_info
from support.pickle_files import pickle_of, storage, tensor, zip_of

DAMAGES = 300
SIGNATURES = (b"PK\1\2", b"PK\3\4", b"PK\5\6", b"PK\6\6", b"PK\6\7")


def numbers(compressed: bool) -> bytes:
    file = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(file, w=np.ones((2, 4, 5), np.float32))
    return file.getvalue()


def exported() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("constants.pkl", "code/module.py", "extra/sefa.json"):
            archive.writestr(f"model/{name}", "{}" * 50)
    return file.getvalue()


ARCHIVES: dict[str, Callable[[], bytes]] = {
    "torch": lambda: zip_of(pickle_of(tensor(storage(20), (4, 5), (5, 1)), 2), {"0": bytes(80)}),
    "npz": lambda: numbers(compressed=False),
    "compressed npz": lambda: numbers(compressed=True),
    "exported": exported,
}


def damaged(content: bytes, seed: int) -> bytes:
    """Overwrite, remove or insert something in what describes the members, mostly."""
    rng = random.Random(seed)
    changed = bytearray(content)
    heads = [at for at in range(len(content)) if content[at : at + 4] in SIGNATURES]
    for _ in range(rng.choice([1, 1, 2, 4])):
        at = min(rng.choice(heads) + rng.randrange(50), len(changed) - 1)
        kind = rng.randrange(6)
        if kind < 2:
            changed[at] = rng.choice([0, 1, 8, 9, 12, 14, 255, rng.randrange(256)])
        elif kind == 2:
            del changed[at : at + rng.choice([1, 4, 30])]
        elif kind == 3:
            changed[at:at] = rng.randbytes(4)
        elif kind == 4:
            changed[at : at + 4] = b"\xff\xff\xff\xff"
        else:
            changed[at : at + 8] = struct.pack("<Q", rng.choice([5, 2**32, 2**63, 2**64 - 1]))
    return bytes(changed)


@pytest.mark.parametrize("kind", ARCHIVES)
def test_a_damaged_archive_is_read_or_refused_by_every_reader(tmp_path: Path, kind: str) -> None:
    content = ARCHIVES[kind]()
    path = tmp_path / "archive"
    refused = 0
    for seed in range(DAMAGES):
        path.write_bytes(damaged(content, seed))
        try:
            load_codes(path, (4, 5))
        except InputError:
            refused += 1
        with pytest.raises(ModelFileError):
            read_info(path)
    assert refused > DAMAGES / 4


def test_a_directory_longer_than_any_honest_one_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "archive"
    path.write_bytes(numbers(compressed=False))
    with open_archive(path) as archive:
        assert archive.namelist() == ["w.npy"]
        assert len(archive.read("w.npy")) > 100
    monkeypatch.setattr("sefa_runtime.archives.MAX_DIRECTORY", 50)
    with pytest.raises(zipfile.BadZipFile, match="longer than any honest"), open_archive(path):
        pass


def test_a_member_is_read_as_far_as_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "archive"
    path.write_bytes(exported())
    with open_archive(path) as archive:
        assert read_member(archive, "model/constants.pkl", 100) == b"{}" * 50
        with pytest.raises(zipfile.BadZipFile, match="larger than 99 bytes"):
            read_member(archive, "model/constants.pkl", 99)
        with pytest.raises(KeyError):
            read_member(archive, "model/other", 99)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_methods_that_unpack_all_at_once_are_refused(tmp_path: Path, method: int) -> None:
    path = tmp_path / "archive"
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("a", bytes(1000))
    with open_archive(path) as archive, pytest.raises(DAMAGED_ARCHIVE):
        read_member(archive, "a", 2000)


def test_a_file_that_is_not_there_is_told_as_that(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), open_archive(tmp_path / "nothing"):
        pass
