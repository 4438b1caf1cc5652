"""Whatever happened to a file: it loads, or it is refused with one error of ours."""

import random
import resource
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import sefa
from sefa import CheckpointError
from sefa.checkpoints.contents import read_contents
from sefa.checkpoints.pickled_networks import PersistedModule, TensorFlowNetwork
from sefa_runtime.pickles.placeholders import Placeholder
from support.damage import damaged, rezipped

# A plain pickle, a stream and a zip archive.
FILES = ["tf_pggan_fused_16/network.pkl", "biggan_cifar_32/G_ema.pth", "dcgan_small_64/netG.pth"]
DAMAGES = 90  # of each


def damages(path: Path) -> Iterator[bytes]:
    content = path.read_bytes()
    for seed in range(DAMAGES):
        if content.startswith(b"PK") and seed % 4:  # Its checksums would find all that is changed from outside.
            yield rezipped(content, seed)
        else:
            yield damaged(content, seed)


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


# A zip archive and pickles of NVlabs' code, and what its parts may be changed into.
CONTENTS = [
    "fb_pgan_32/checkpoint.pt",
    "lucidrains_32/model_5.pt",
    "nv_ada_cond_map2_32/network.pkl",
    "nv_sg3_r_cond_32/network.pkl",
    "sefa_stylegan2_cond_32/checkpoint.pth",
    "tf_stylegan_32/network.pkl",
]
VALUES: list[Any] = [
    None,
    "x",
    -1,
    0,
    1,
    3,
    2**70,
    0.5,
    float("nan"),
    True,
    [],
    [1, 2, 3],
    {},
    (4, 4),
    "lrelu",
    torch.ones(2),
]


def places(content: Any) -> list[tuple[Any, Any]]:
    """Containers in a file's contents, and the keys in them."""
    found, seen, pending = [], set(), [content]
    while pending:
        one = pending.pop()
        if isinstance(one, PersistedModule):
            pending += [one.attributes, one.parameters, one.modules]
        elif isinstance(one, TensorFlowNetwork | Placeholder):
            pending.append(one.state)
        elif isinstance(one, dict | list) and id(one) not in seen:
            seen.add(id(one))
            found += [(one, key) for key in (one if isinstance(one, dict) else range(len(one)))]
            pending += one.values() if isinstance(one, dict) else one
        elif isinstance(one, tuple):
            pending += one
    return found


def changed(value: Any, rng: random.Random) -> Any:
    """Something else of the same kind, mostly."""
    if not isinstance(value, Tensor):
        return rng.choice(VALUES)
    shapes = [(), (1,), (3,), (2,) * 6, value.shape[::-1], (2 * value.numel(),), (1, *value.shape)]
    return torch.ones(rng.choice(shapes), dtype=rng.choice([torch.float32, torch.float32, torch.int64]))


@pytest.mark.parametrize("name", CONTENTS)
def test_contents_that_do_not_fit_together_are_refused(
    golden: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    path = golden / "checkpoints" / name
    content = read_contents(path)
    monkeypatch.setattr("sefa.checkpoints.loading.read_contents", lambda path: content)
    rng = random.Random(0)
    refused = 0
    for container, key in rng.choices(places(content), k=100):
        before = container[key]
        container[key] = changed(before, rng)
        try:
            sefa.load(path)
        except CheckpointError:
            refused += 1
        container[key] = before
    assert refused > 5


def test_text_from_a_file_is_shown_as_one_line(tmp_path: Path) -> None:
    key = "\x1b[2J\nall is well\u202e" + "9" * 5000
    torch.save({key: torch.ones(2, 2)}, tmp_path / "netG.pth")
    with pytest.raises(CheckpointError) as caught:
        sefa.load(tmp_path / "netG.pth")
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 2000
