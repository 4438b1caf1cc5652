"""Whatever happened to a file: it loads, or it is refused with one error of ours."""

import io
import random
import resource
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import sefa
from sefa import CheckpointError

# A plain pickle, a stream and a zip archive.
FILES = ["tf_pggan_fused_16/network.pkl", "biggan_cifar_32/G_ema.pth", "dcgan_small_64/netG.pth"]
DAMAGES = 90  # of each
HEADER = 6000  # bytes, roughly, that say what the file is


def damaged(content: bytes, seed: int) -> bytes:
    """Cut, shorten, lengthen or overwrite a file, mostly where it says what it is."""
    rng = random.Random(seed)
    changed = bytearray(content)
    kind = rng.randrange(6)
    for _ in range(rng.choice([1, 1, 2, 8])):
        end = HEADER if rng.random() < 0.7 else len(changed)
        at = rng.randrange(max(1, min(end, len(changed))))
        if kind == 0:
            del changed[at + 1 :]
        elif kind == 1:
            del changed[at : at + rng.choice([1, 2, 100])]
        elif kind == 2:
            changed[at:at] = rng.randbytes(rng.choice([1, 4, 8]))
        elif kind == 3:
            changed[at] ^= 1 << rng.randrange(8)
        else:
            changed[at] = rng.choice([0, 255, *b".Rbth(u", rng.randrange(256)])
    return bytes(changed)


def damages(path: Path) -> Iterator[bytes]:
    content = path.read_bytes()
    for seed in range(DAMAGES):
        if content.startswith(b"PK") and seed % 4:  # Its checksums would find all that is changed from outside.
            yield rezipped(content, seed)
        else:
            yield damaged(content, seed)


def rezipped(content: bytes, seed: int) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as archive, zipfile.ZipFile(file, "w") as changed:
        for member in archive.infolist():
            data = archive.read(member)
            changed.writestr(member.filename, damaged(data, seed) if member.filename.endswith("data.pkl") else data)
    return file.getvalue()


@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_loads_or_is_refused(golden: Path, tmp_path: Path, name: str) -> None:
    path = tmp_path / "damaged"
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused = 0
    for content in damages(golden / "checkpoints" / name):
        path.write_bytes(content)
        start = time.process_time()
        try:
            sefa.load(path)
        except CheckpointError:
            refused += 1
        assert time.process_time() - start < 30  # Seconds of work, whatever else runs; usually hundredths.
    assert refused > DAMAGES / 4
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < 1_000_000  # KiB


@pytest.mark.parametrize("name", FILES)
def test_a_file_cut_anywhere_is_refused(golden: Path, tmp_path: Path, name: str) -> None:
    content = (golden / "checkpoints" / name).read_bytes()
    path = tmp_path / "cut"
    for length in range(0, len(content) - 1, len(content) // 40):
        path.write_bytes(content[:length])
        with pytest.raises(CheckpointError, match=r"cut: (empty file|truncated|damaged|not a checkpoint)"):
            sefa.load(path)


def test_text_from_a_file_is_shown_as_one_line(tmp_path: Path) -> None:
    key = "\x1b[2J\nall is well\u202e" + "9" * 5000
    torch.save({key: torch.ones(2, 2)}, tmp_path / "netG.pth")
    with pytest.raises(CheckpointError) as caught:
        sefa.load(tmp_path / "netG.pth")
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 2000
