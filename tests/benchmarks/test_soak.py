"""benchmarks/soak.py notices what it is there to notice; the half hour itself is `make soak`."""

import importlib.util
from collections import Counter
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from support.paths import ROOT


@pytest.fixture(scope="module")
def soak() -> ModuleType:
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("soak", ROOT / "benchmarks" / "soak.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def steady(at: int) -> int:
    return 200_000_000 + (at * 7919) % 1_000_000  # a megabyte of noise


@pytest.mark.parametrize(
    ("size", "grows"),
    [
        (steady, False),
        (lambda at: steady(at) + (80_000_000 if at == 900 else 0), False),
        (lambda at: steady(at) + 10_000 * at, True),
        (lambda at: steady(at) + (20_000_000 if at > 1500 else 0), True),
    ],
    ids=["steady", "one peak", "a leak", "a step"],
)
def test_growth_is_told_from_noise(soak: ModuleType, size: Callable[[int], int], grows: bool) -> None:
    found = soak.growth([(float(at), size(at)) for at in range(1800)])
    worst = max(found["growth_percent"], found["trend_percent"])
    assert (worst > soak.MAX_GROWTH_PERCENT) is grows, found


METRICS = """# HELP sefa_requests_total Requests by route and status.
sefa_requests_total{model="soak",route="image",status="200"} 7.0
sefa_requests_total{model="",route="none",status="404"} 2.0
sefa_requests_total{model="soak",route="infer",status="499"} 1.0
sefa_run_images_sum{model="soak"} 9.0
sefa_run_images_sum{model="tiny"} 1.0
"""


@pytest.mark.parametrize(
    ("changes", "differs"),
    [
        ({}, []),
        ({("image", 200): 8}, ["status 200"]),
        ({("image", 200): 4}, ["status 200", "10 requests"]),
        ({("image", 404): 1}, ["status 404", "10 requests"]),
        ({("image", 500): 1}, ["status 500"]),
    ],
)
def test_counters_that_do_not_add_up_are_found(
    soak: ModuleType, changes: dict[tuple[str, int], int], differs: list[str]
) -> None:
    requests, images = soak.counted(METRICS)
    assert (requests, images) == (Counter({200: 7, 404: 2, 499: 1}), 10)
    answers = Counter({("image", 200): 6, ("image", 404): 2} | changes)
    book = soak.Book(answers, images=9, left=2, left_images=1)
    found = soak.differences(requests, images, book)
    assert len(found) == len(differs)
    assert all(line.startswith(start) for line, start in zip(found, differs, strict=True)), found
    book.images = 8
    assert any("images by the metrics" in line for line in soak.differences(requests, images, book))


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({}, []),
        (
            {"at_rest": [{"threads": 17, "descriptors": 23}, {"threads": 17, "descriptors": 24}]},
            ["descriptors at rest"],
        ),
        ({"memory": {"growth_percent": 0.1, "trend_percent": 2.1}}, ["memory: trend_percent"]),
        ({"first_errors": ["image: another image"]}, ["image: another image"]),
        ({"sums": ["part 1: status 200"]}, ["part 1"]),
        ({"last_exit_code": 1}, ["the server ended"]),
    ],
)
def test_what_does_not_hold_is_said(soak: ModuleType, change: dict[str, Any], found: list[str]) -> None:
    results = {
        "first_errors": [],
        "sums": [],
        "at_rest": [{"threads": 17, "descriptors": 23}] * 2,
        "memory": {"growth_percent": 0.1, "trend_percent": -3.0},
        "replaced_under_load": {"first_errors": [], "exit_codes": [0]},
        "last_exit_code": 0,
    }
    said = soak.problems(results | change)
    assert [line[: len(start)] for line, start in zip(said, found, strict=True)] == found
