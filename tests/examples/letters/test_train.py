"""Training: its batches, its schedules, and that it goes on where it stopped."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from letters.dataset import Glyphs, balanced_labels
from letters.generator import Sizes
from letters.train import Settings, Training, run
from support.paths import ROOT

SMALL = Sizes(num_classes=4, channels=(8, 8, 8, 4, 4), z_dim=4, embed_dim=4, w_dim=8, mapping_layers=2)
SETTINGS = Settings(images=64, batch=8)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Three faces of four characters; the second is held out."""
    glyphs = np.random.default_rng(0).integers(0, 256, (3, 4, 64, 64), np.uint8)
    np.save(tmp_path / "glyphs.npy", glyphs)
    (tmp_path / "faces.json").write_text(json.dumps([{"held_out": index == 1} for index in range(3)]))
    return tmp_path


def test_faces_held_out_are_in_no_batch(data: Path) -> None:
    seen, others = Glyphs(data, held_out=False), Glyphs(data, held_out=True)
    labels = torch.arange(4).repeat(8)
    batch = seen.batch(labels, np.random.default_rng(0))
    held_out, held_out_labels = others.all()
    assert held_out_labels.tolist() == [0, 1, 2, 3]
    for image, label in zip(batch, labels, strict=True):
        assert not torch.equal(image, held_out[label])
        assert any(torch.equal(image, seen.images([face], [int(label)])[0]) for face in (0, 1))


def test_all_classes_come_equally_often_and_in_groups() -> None:
    labels = torch.cat([balanced_labels(12, 4, step, 62, seed=0) for step in range(62)]).view(-1, 4)
    assert (labels == labels[:, :1]).all()
    assert torch.bincount(labels[:, 0]).tolist() == [3] * 62
    assert not torch.equal(labels[:62], labels[62:124])


def test_rate_and_average_follow_their_schedules() -> None:
    settings = Settings(images=1000, batch=10, rate=1.0, final_rate=0.5, decay=0.4, ema_images=100, ema_rampup=0.5)
    assert [settings.rate_at(images) for images in (0, 600, 800, 1000)] == pytest.approx([1, 1, 0.75, 0.5])
    kept = (1 - settings.ema_weight(1000)) ** 10  # of what the average was a half-life, ten steps, ago
    assert kept == pytest.approx(0.5)
    assert settings.ema_weight(20) == pytest.approx(0.5)


def test_a_run_that_stopped_goes_on_as_if_it_had_not(data: Path, tmp_path: Path) -> None:
    glyphs = Glyphs(data, held_out=False)
    device = torch.device("cpu")
    whole, first, second = (Training(SETTINGS, SMALL, device) for _ in range(3))
    for _ in range(4):
        whole.advance(glyphs)
    for _ in range(2):
        first.advance(glyphs)
    first.save(tmp_path / "state.pt")
    second.load(tmp_path / "state.pt")
    for _ in range(2):
        second.advance(glyphs)
    assert second.images == whole.images == 32
    expected = whole.average.state_dict()
    for name, tensor in second.average.state_dict().items():
        torch.testing.assert_close(tensor, expected[name], rtol=0, atol=1e-6)


def test_the_penalty_is_the_squared_gradient(data: Path) -> None:
    training = Training(SETTINGS, SMALL, torch.device("cpu"))
    label = torch.arange(2).repeat_interleave(4)
    real = Glyphs(data, held_out=False).batch(label, np.random.default_rng(0)).requires_grad_(True)
    penalty = training.gradient_penalty(real, label)
    logits = training.discriminator(real, label, torch.float32)
    (gradient,) = torch.autograd.grad(logits, real, torch.ones(len(real)))
    expected = np.mean([float(torch.linalg.vector_norm(image)) ** 2 for image in gradient])
    assert penalty.item() == pytest.approx(expected, rel=1e-4)
    assert penalty.requires_grad  # of the discriminator's weights


def test_a_run_leaves_a_state_figures_a_sheet_and_a_generator(data: Path, tmp_path: Path) -> None:
    run(data, tmp_path / "run", Settings(images=16, batch=8), torch.device("cpu"))
    (line,) = (tmp_path / "run/log.jsonl").read_text().splitlines()
    assert json.loads(line)["images"] == 16
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert names == {"log.jsonl", "state.pt", "sheet-000000k.png", "letters-000000k.safetensors"}


def test_processes_average_their_gradients(tmp_path: Path) -> None:
    script = """
import sys, torch
from torch import distributed
from letters.train import average_gradients
rank = int(sys.argv[1])
distributed.init_process_group("gloo", init_method="file://" + sys.argv[2], rank=rank, world_size=2)
a, b, unused = (torch.nn.Parameter(torch.zeros(size)) for size in (3, (2, 2), 1))
a.grad, b.grad = torch.full((3,), rank * 2.0), torch.full((2, 2), 1.0 - rank)
average_gradients([a, unused, b])
assert a.grad.tolist() == [1.0] * 3 and b.grad.tolist() == [[0.5] * 2] * 2 and unused.grad is None
distributed.destroy_process_group()
"""
    environment = os.environ | {"PYTHONPATH": str(ROOT / "examples"), "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen([sys.executable, "-c", script, str(rank), str(tmp_path / "meeting")], env=environment)
        for rank in range(2)
    ]
    assert [process.wait(timeout=600) for process in processes] == [0, 0]
