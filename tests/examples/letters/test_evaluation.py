"""The judges of a generator, on inputs whose answers are known."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import sefa
from letters.classifier import Classifier, accuracy, ambiguous_pairs, load_classifier, train
from letters.dataset import Glyphs
from letters.evaluate import evaluate
from letters.generator import Generator, Sizes, save_generator
from letters.glyphs import CHARACTERS, Coverage
from letters.quality import Fonts, frechet_distance, nearest, neighbour_figures

COUNT = len(CHARACTERS)


def random_faces(count: int, seed: int = 0) -> Coverage:
    """Make faces whose glyphs are patterns of 8x8 blocks, one for each class, with some noise for each face."""
    random = np.random.default_rng(seed)
    patterns = np.random.default_rng(0).integers(0, 2, (COUNT, 8, 8)) * 200
    noisy = patterns + random.integers(0, 50, (count, COUNT, 8, 8))
    return noisy.astype(np.uint8).repeat(8, axis=2).repeat(8, axis=3)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    np.save(tmp_path / "glyphs.npy", random_faces(12))
    (tmp_path / "faces.json").write_text(json.dumps([{"held_out": index < 2} for index in range(12)]))
    return tmp_path


def test_accuracy_forgives_what_faces_draw_alike_and_then_case() -> None:
    labels = torch.tensor([CHARACTERS.index(character) for character in "IIlcA"])
    predicted = torch.tensor([CHARACTERS.index(character) for character in "IllCB"])
    found = accuracy(labels, predicted, {"Il": 0.3})
    assert (found.exact, found.but_for_ambiguous, found.ignoring_case) == (0.4, 0.6, 0.8)
    assert found.confusions == {"A B": 1.0, "c C": 1.0, "I l": 0.5}
    assert found.worst == {"A": 0.0, "c": 0.0, "I": 1.0, "l": 1.0}


def test_pairs_are_ambiguous_if_enough_faces_draw_them_alike() -> None:
    faces = random_faces(24)
    capital_i, small_l, one = (CHARACTERS.index(character) for character in "Il1")
    faces[:6, small_l] = faces[:6, capital_i]
    faces[:1, one] = faces[:1, capital_i]
    assert ambiguous_pairs(faces) == {"Il": 0.25}


def test_the_classifier_learns_and_is_read_again(data: Path, tmp_path: Path) -> None:
    np.save(data / "glyphs.npy", random_faces(12)[:, :6])
    model = train(Glyphs(data, held_out=False), epochs=20, batch=20)
    images, labels = Glyphs(data, held_out=True).all()
    assert (model(images).argmax(dim=1) == labels).float().mean() > 0.9
    save_file(model.state_dict(), tmp_path / "classifier.safetensors")
    torch.testing.assert_close(load_classifier(tmp_path / "classifier.safetensors")(images), model(images))


def test_the_frechet_distance_of_gaussians() -> None:
    random = torch.Generator().manual_seed(0)
    a = torch.randn(200_000, 2, generator=random)
    assert frechet_distance(a[::2], a[1::2]) == pytest.approx(0, abs=1e-3)
    # Means 3 apart; deviations 1 and 2 along one axis: |μ|² + (2 - 1)².
    b = torch.randn(200_000, 2, generator=random) * torch.tensor([2.0, 1.0]) + torch.tensor([0.0, 3.0])
    assert frechet_distance(a, b) == pytest.approx(10, rel=0.01)


def test_a_copy_is_found_and_counted() -> None:
    seen = Fonts(random_faces(5))
    others = random_faces(3, seed=1)
    others[1] = seen.coverage[3]
    index, distance = nearest(Fonts(others), seen)
    assert index[1].tolist() == [3] * COUNT
    assert distance[1].max() == 0
    assert distance[0].min() > 1.5
    figures = neighbour_figures(distance)
    assert (figures["copied_fonts"], figures["copied_glyphs"]) == pytest.approx((1 / 3, 1 / 3), abs=1e-3)


@pytest.fixture
def generator_file(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    path = tmp_path / "letters.safetensors"
    save_generator(Generator(Sizes(channels=(8, 8, 8, 4, 4), z_dim=4, embed_dim=4, w_dim=8, mapping_layers=2)), path)
    return path


def test_a_generator_is_judged(generator_file: Path, data: Path, tmp_path: Path) -> None:
    save_file(Classifier().state_dict(), tmp_path / "classifier.safetensors")
    out = tmp_path / "out"
    record = evaluate(generator_file, data, tmp_path / "classifier.safetensors", out, fonts=3, samples=4)
    json.dumps(record, allow_nan=False)
    assert record["quality"]["accuracy"]["generated"]["exact"] < 0.2
    assert set(record["directions"]) == {"all", "coarse", "middle", "fine"}
    assert len(sefa.DirectionBank.load(out / "bank.safetensors")) == 32
    assert {path.name for path in out.iterdir()} >= {"fonts.png", "nearest.png", "directions-fine.png"}
