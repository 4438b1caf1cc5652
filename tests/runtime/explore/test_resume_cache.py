import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sefa_runtime
from sefa_runtime import Editor
from sefa_runtime.explore import exploration, explore
from sefa_runtime.explore.effects import measure
from sefa_runtime.explore.resume_cache import ResumeCache
from support.paths import TINY


def test_an_interrupted_exploration_goes_on_where_it_was(
    tiny: Editor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "sheet.html"
    whole = explore(tiny, samples=5)
    measured: list[int] = []

    def interrupted(samples: Any, direction: int, *arguments: Any) -> Any:
        if direction == 2 and 2 not in measured:
            measured.append(direction)
            raise KeyboardInterrupt
        measured.append(direction)
        return measure(samples, direction, *arguments)

    monkeypatch.setattr(exploration, "measure", interrupted)
    cache = ResumeCache(output)
    with pytest.raises(KeyboardInterrupt):
        explore(tiny, samples=5, resume_cache=cache)
    assert cache.folder == tmp_path / "sheet.html.measured"
    assert sorted(path.name for path in cache.folder.iterdir()) == [
        "direction-0.npz",
        "direction-1.npz",
        "settings.json",
        "unedited.npz",
    ]
    resumed = explore(tiny, samples=5, resume_cache=ResumeCache(output))
    assert measured == [0, 1, 2, 2, 3]
    assert resumed.to_dict() == whole.to_dict()
    np.testing.assert_array_equal(resumed.frames, whole.frames)
    np.testing.assert_array_equal(resumed.change_maps, whole.change_maps)
    cache.remove()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("change", [{"samples": 6}, {"seeds": [7]}, {"alpha_range": (-1.0, 1.0)}])
def test_what_was_measured_with_other_settings_is_not_taken(
    tiny: Editor, tmp_path: Path, change: dict[str, Any]
) -> None:
    arguments = {"samples": 5} | change
    explore(tiny, samples=5, resume_cache=ResumeCache(tmp_path / "a"))
    found = explore(tiny, **arguments, resume_cache=ResumeCache(tmp_path / "a"))
    assert found.to_dict() == explore(tiny, **arguments).to_dict()


def test_what_was_measured_of_another_model_or_is_damaged_is_not_taken(
    tiny: Editor, golden: Path, tmp_path: Path
) -> None:
    cache = ResumeCache(tmp_path / "a")
    explore(sefa_runtime.load(golden / "tiny_float32.onnx", provider="cpu"), samples=5, resume_cache=cache)
    whole = explore(tiny, samples=5).to_dict()
    assert explore(tiny, samples=5, resume_cache=cache).to_dict() == whole
    (cache.folder / "direction-1.npz").write_bytes((cache.folder / "direction-1.npz").read_bytes()[:99])
    (cache.folder / "direction-2.npz").write_bytes(b"")
    assert explore(tiny, samples=5, resume_cache=cache).to_dict() == whole


def effect_with(**fields: Any) -> Callable[[dict[str, Any]], object]:
    """Change the numbers of a direction that are kept as JSON."""
    return lambda arrays: arrays.update(effect=np.array(json.dumps(json.loads(str(arrays["effect"])) | fields)))


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("unedited", lambda arrays: arrays.pop("mean")),
        ("unedited", lambda arrays: arrays.update(reference=np.array("x"))),
        ("unedited", lambda arrays: arrays.update(reference=np.array(np.nan))),
        ("unedited", lambda arrays: arrays.update(error=np.array([1.0, 2.0]))),
        ("unedited", lambda arrays: arrays.update(mean=arrays["mean"].astype(float))),
        ("unedited", lambda arrays: arrays.update(mean=np.zeros((5000, 4, 3), np.uint8))),
        ("direction-1", lambda arrays: arrays.clear()),
        ("direction-1", lambda arrays: arrays.update(effect=np.array("[" * 100_000))),
        ("direction-1", lambda arrays: arrays.update(effect=np.array("{}"))),
        ("direction-1", lambda arrays: arrays.update(effect=np.array("7"))),
        ("direction-1", effect_with(direction=3)),
        ("direction-1", effect_with(alpha_range=[1])),
        ("direction-1", effect_with(alpha_range=["a", "b"])),
        ("direction-1", effect_with(strength=float("nan"))),
        ("direction-1", effect_with(ends=["<script>", "x"])),
        ("direction-1", effect_with(more=1)),
        ("direction-1", effect_with(images=6)),
        ("direction-1", effect_with(images="5")),
        ("direction-1", effect_with(errors={})),
        ("direction-1", effect_with(errors=[1])),
        ("direction-1", lambda arrays: arrays.update(change_map=arrays["change_map"][:2])),
        ("direction-1", lambda arrays: arrays.update(change_map=arrays["change_map"] * np.inf)),
        ("direction-1", lambda arrays: arrays.update(signature=arrays["signature"][:1])),
        ("direction-1", lambda arrays: arrays.update(signature=np.array("x"))),
        ("direction-1", lambda arrays: arrays.update(frames=arrays["frames"][:, :1])),
        ("direction-1", lambda arrays: arrays.update(frames=arrays["frames"].astype(np.int64))),
    ],
)  # fmt: skip
def test_what_cannot_have_been_measured_is_not_taken(
    kept: Path,
    whole: dict[str, Any],
    tiny: Editor,
    tmp_path: Path,
    name: str,
    change: Callable[[dict[str, Any]], object],
) -> None:
    cache = ResumeCache(tmp_path / "page")
    shutil.copytree(kept, cache.folder)
    file = cache.folder / f"{name}.npz"
    with np.load(file) as stored:
        arrays = dict(stored)
    change(arrays)
    np.savez(file, **arrays)
    assert explore(tiny, samples=5, resume_cache=cache).to_dict() == whole


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that an exploration of `tiny` left."""
    cache = ResumeCache(tmp_path_factory.mktemp("kept") / "page")
    explore(sefa_runtime.load(TINY, provider="cpu"), samples=5, resume_cache=cache)
    return cache.folder


@pytest.fixture(scope="module")
def whole() -> dict[str, Any]:
    """What it found."""
    return explore(sefa_runtime.load(TINY, provider="cpu"), samples=5).to_dict()


def test_a_folder_that_others_use_stays(tmp_path: Path) -> None:
    cache = ResumeCache(tmp_path / "a.html")
    cache.open({})
    cache.put("direction-0", effect=np.zeros(1))
    (cache.folder / "mine.txt").write_text("mine")
    cache.remove()
    assert [path.name for path in cache.folder.iterdir()] == ["mine.txt"]


def test_what_a_killed_exploration_left_goes_altogether(tmp_path: Path) -> None:
    program = """
import os, sys
from pathlib import Path
from sefa_runtime.explore.resume_cache import ResumeCache
from sefa_runtime.files import replacing
cache = ResumeCache(Path(sys.argv[1]))
cache.open({"samples": 4})
cache.put("unedited", mean=[1.0])
with replacing(cache.folder / "settings.json") as settings, replacing(cache.folder / "direction-0.npz") as arrays:
    settings.write_bytes(b"{")
    arrays.write_bytes(b"PK")
    os.kill(os.getpid(), 9)
"""
    output = tmp_path / "page.html"
    subprocess.run([sys.executable, "-c", program, output], check=False)
    cache = ResumeCache(output)
    assert len(list(cache.folder.iterdir())) == 4
    cache.remove()
    assert not cache.folder.exists()
