from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.linalg import subspace_angles

import sefa
from sefa import ArgumentError
from sefa.method_comparison import methods
from sefa.method_comparison.methods import MethodComparison, compare_methods
from sefa.method_comparison.plot import save_methods, seconds_in_words, times_in_words
from support.golden_checkpoints import GoldenCheckpoint


@pytest.fixture(scope="module")
def generator() -> sefa.Generator:
    return GoldenCheckpoint("sefa_stylegan2_64").generator


@pytest.fixture(scope="module")
def comparison(generator: sefa.Generator) -> MethodComparison:
    return compare_methods(generator, "2-5", top=3, samples=2000, seed=1, images=2)


def test_every_method_is_measured(comparison: MethodComparison) -> None:
    assert [(method.name, method.samples) for method in comparison.methods] == [
        ("sefa", 0),
        ("sefa, rows", 0),
        ("ganspace", 2000),
        ("random", 0),
    ]
    sefa_, _, ganspace, random = comparison.methods
    assert sefa_.seconds
    assert ganspace.seconds
    assert (random.seconds, random.runs_s) == (None, ())
    for method in (sefa_, ganspace):
        assert len(method.runs_s) == 3
        assert method.seconds == np.median(method.runs_s)
    assert len(comparison.machine["load_average"]) == len(comparison.load_average_after or ()) == 3
    assert comparison.sefa_is_faster == pytest.approx(ganspace.seconds / sefa_.seconds)


def test_agreement_is_that_of_the_spaces(generator: sefa.Generator, comparison: MethodComparison) -> None:
    one = sefa.factorize(generator, "2-5", top=3)
    other = sefa.factorize(generator, "2-5", top=3, method="ganspace", samples=2000, seed=1)
    expected = np.sort(subspace_angles(one.vectors.numpy().T, other.vectors.numpy().T))
    agreement = next(pair for pair in comparison.agreements if (pair.a, pair.b) == ("sefa", "ganspace"))
    np.testing.assert_allclose(agreement.angles_deg, np.rad2deg(expected), atol=1e-3)
    assert agreement.overlap == pytest.approx(np.mean(np.cos(expected) ** 2), abs=1e-5)
    assert comparison.chance == pytest.approx(3 / 32)


def test_the_change_is_that_of_the_images(generator: sefa.Generator, comparison: MethodComparison) -> None:
    bank = sefa.factorize(generator, "2-5", top=3)
    z = torch.randn(2, 32, generator=torch.Generator().manual_seed(1))
    ahead, behind = (generator.encode(z) for _ in range(2))
    ahead[:, 2:6] += bank.vectors[1]
    behind[:, 2:6] -= bank.vectors[1]
    images = [np.clip(generator.decode(codes).numpy(), -1, 1) * 127.5 for codes in (ahead, behind)]
    assert comparison.methods[0].change[1] == pytest.approx(np.abs(images[0] - images[1]).mean() / 2, rel=1e-5)


def test_progress_runs_to_one(generator: sefa.Generator) -> None:
    shares: list[float] = []
    compare_methods(generator, top=1, samples=1500, images=1, progress=shares.append)
    assert shares[-1] == 1
    assert shares == sorted(shares)
    assert all(0 <= share <= 1 for share in shares)


def test_where_z_is_split_and_classes_are_many_it_works_as_well() -> None:
    comparison = compare_methods(GoldenCheckpoint("biggan_hier_64").generator, top=4, samples=300, images=1)
    assert comparison.chance == pytest.approx(4 / 30)
    # The norms' layers are linear in z: samples only estimate what the weights say.
    assert next(pair for pair in comparison.agreements if pair.b == "ganspace").overlap > 0.5


@pytest.mark.parametrize("first_is_long", [False, True])
def test_methods_take_turns_and_a_short_first_run_only_warms_up(
    generator: sefa.Generator, monkeypatch: pytest.MonkeyPatch, first_is_long: bool
) -> None:
    timed: list[tuple[str, str]] = []

    def timing(generator: sefa.Generator, layers: Any, top: int, options: dict[str, Any]) -> tuple[float, Any]:
        seconds = len(timed) + (5.0 if first_is_long else 0.001)
        timed.append((options.get("method", "sefa"), options.get("normalize", "none")))
        return (seconds if first_is_long else seconds / 100), sefa.factorize(generator, layers, top=top, **options)

    monkeypatch.setattr(methods, "_timed", timing)
    comparison = compare_methods(generator, top=1, samples=300, images=1, repeats=2)
    turn = [("sefa", "none"), ("sefa", "rows"), ("ganspace", "none")]
    assert timed == turn * (2 if first_is_long else 3)
    assert [len(method.runs_s) for method in comparison.methods] == [2, 2, 2, 0]
    with pytest.raises(ArgumentError, match=r"repeats must be in 1\.\.1000, got 0"):
        compare_methods(generator, repeats=0)


def test_a_number_of_images_that_cannot_be_is_refused(generator: sefa.Generator) -> None:
    with pytest.raises(ArgumentError, match=r"images must be in 1\.\.1000, got 0"):
        compare_methods(generator, images=0)


def test_the_image_has_a_bar_and_a_line_for_each_method(comparison: MethodComparison, tmp_path: Path) -> None:
    save_methods(comparison, tmp_path / "report.png")
    with Image.open(tmp_path / "report.png") as image:
        pixels = np.asarray(image.convert("RGB")).reshape(-1, 3)
    for colour in ([31, 119, 180], [23, 190, 207], [255, 127, 14], [127, 127, 127]):
        assert (pixels == colour).all(axis=1).sum() > 100


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.00123, "1.2 ms"), (0.0456, "46 ms"), (0.345, "345 ms"), (1.26, "1.3 s"), (75.2, "75 s")]
)
def test_seconds_in_words(seconds: float, words: str) -> None:
    assert seconds_in_words(seconds) == words


@pytest.mark.parametrize(
    ("factor", "words"), [(0.456, "0.46 times"), (1.56, "1.6 times"), (12.3, "12 times"), (1234, "1,200 times")]
)
def test_times_in_words(factor: float, words: str) -> None:
    assert times_in_words(factor) == words
