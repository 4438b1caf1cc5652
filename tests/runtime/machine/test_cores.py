import os
from pathlib import Path

import pytest

from sefa_runtime.machine import cores
from sefa_runtime.machine.cgroup import Limits
from sefa_runtime.machine.cores import usable_cores


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Four cores of two logical processors each: 0 and 4 are one, 1 and 5, ...; no limits."""
    for processor in range(8):
        folder = tmp_path / f"cpu{processor}" / "topology"
        folder.mkdir(parents=True)
        (folder / "thread_siblings_list").write_text(f"{processor % 4},{processor % 4 + 4}\n")
    monkeypatch.setattr(cores, "read_limits", lambda: Limits(None, None))
    return tmp_path


@pytest.mark.parametrize(
    ("processors", "limit", "expected"),
    [
        (range(8), None, 4),
        ({0, 4}, None, 1),
        ({0, 1, 5}, None, 2),
        (range(8), 1.5, 2),
        (range(8), 0.5, 1),
        (range(8), 64.0, 4),
    ],
)
def test_cores_are_physical_and_allowed(
    system: Path, monkeypatch: pytest.MonkeyPatch, processors: range | set[int], limit: float | None, expected: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(processors))
    monkeypatch.setattr(cores, "read_limits", lambda: Limits(limit, None))
    assert usable_cores(system) == expected


def test_a_system_that_does_not_describe_its_processors(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1, 2})
    monkeypatch.setattr(cores, "read_limits", lambda: Limits(None, None))
    assert usable_cores(tmp_path) == 3


def test_a_system_without_affinity(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert usable_cores() == 6
