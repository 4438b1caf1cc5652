"""benchmarks/peers.py: whose images are compared, who is timed, and what happens to those who cannot run."""

import json
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from peer_comparison import contest
from peer_comparison.contest import Image, Turn, WorkerError, compete
from support.paths import ROOT

SCRIPT = ROOT / "benchmarks" / "peers.py"


@dataclass
class Fake:
    """Renders the same noise as all others, changed by some levels, in so many milliseconds."""

    name: str
    levels: int = 0
    ms: float = 1.0
    contrast: int = 200
    least_db: float | None = None
    runs: list[int] = field(default_factory=list)

    def render(self, batch: int) -> tuple[Image, Turn]:
        noise = np.random.default_rng(batch).integers(20, 21 + self.contrast, (batch, 8, 8, 3))
        noise[0, 0, 0, 0] += self.levels
        return noise.astype(np.uint8), Turn(50.0)

    def run(self, batch: int) -> Turn:
        self.runs.append(batch)
        return Turn(self.ms, 100)


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contest, "PAUSE_S", 0.0)


def test_who_gives_other_images_is_reported_and_not_timed() -> None:
    ours, near, far = Fake("ours"), Fake("near", levels=1, ms=3.0), Fake("far", levels=2)
    first, second, third = compete([ours, near, far], batch=2, seconds=0.0)
    assert (first["ratio"], second["ratio"]) == (1.0, 3.0)
    assert (second["ms_per_image"], second["largest_difference"]) == (1.5, 1)
    assert far.runs == []
    assert third["status"] == "other images"
    assert third["reason"].startswith("up to 2 of 255 levels")
    assert "ratio" not in third
    assert ours.runs == near.runs == [2] * (contest.WARM_UP + contest.LEAST_ROUNDS)


def test_reduced_precision_is_judged_by_decibels() -> None:
    # One of 192 values differs by 20 or 30 levels: 44.9 and 41.4 dB.
    near, far = Fake("near", levels=20, least_db=42.0), Fake("far", levels=30, least_db=42.0)
    _, first, second = compete([Fake("ours"), near, far], batch=1, seconds=0.0)
    assert (first["status"], first["psnr_db"], first["ratio"]) == ("ok", 44.9, 1.0)
    assert (second["status"], second["reason"]) == ("other images", "41.4 dB from ours, at least 42 are wanted")
    assert far.runs == []


def test_images_of_another_shape_are_other_images() -> None:
    class Grey(Fake):
        def render(self, batch: int) -> tuple[Image, Turn]:
            image, turn = super().render(batch)
            return image[..., :1], turn

    *_, grey = compete([Fake("ours"), Grey("grey")], batch=1, seconds=0.0)
    assert (grey["status"], grey["reason"]) == ("other images", "shape (1, 8, 8, 1) instead of (1, 8, 8, 3)")


def test_who_fails_is_reported_and_the_others_go_on() -> None:
    class Failing(Fake):
        def render(self, batch: int) -> tuple[Image, Turn]:
            raise WorkerError("out of memory")

    failed, *timed = sorted(compete([Fake("ours"), Failing("failing")], 1, 0.0), key=lambda entry: entry["name"])
    assert (failed["status"], failed["reason"]) == ("failed", "out of memory")
    assert [entry["name"] for entry in timed if "ratio" in entry] == ["ours"]


def test_nearly_flat_images_are_no_comparison() -> None:
    with pytest.raises(WorkerError, match="are no comparison"):
        list(compete([Fake("ours", contrast=1), Fake("other", contrast=1)], 1, 0.0))


# A clone of genforce as the command takes it, whose generator is ours, with or without a fault.
CLONE = """
import tempfile, torch, sefa

class StyleGAN2Generator(torch.nn.Module):
    def __init__(self, **sizes):
        super().__init__()

    def load_state_dict(self, state):
        with tempfile.NamedTemporaryFile(suffix=".pth") as file:
            torch.save({"generator_smooth": state}, file.name)
            self.generator = sefa.load(file.name)

    def forward(self, z):
        return {"image": FACTOR * self.generator.decode(self.generator.encode(z))}
"""


@pytest.mark.slow
@pytest.mark.parametrize(("factor", "status"), [("1.0", "ok"), ("0.9", "other images")])
def test_a_clone_is_timed_if_its_images_are_ours(factor: str, status: str, tmp_path: Path) -> None:
    module = tmp_path / "genforce" / "models" / "stylegan2_generator.py"
    module.parent.mkdir(parents=True)
    module.write_text(CLONE.replace("FACTOR", factor))
    record = tmp_path / "record.json"
    command = [sys.executable, str(SCRIPT), "--quick", "--models", "stylegan2-256", "--clones", str(tmp_path)]
    done = subprocess.run([*command, "-o", str(record)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (model,) = json.loads(record.read_text())["models"]
    found = {(result["name"], result["status"]) for result in model["results"]}
    assert found == {("SeFa, onnxruntime", "ok"), ("SeFa in PyTorch", "ok"), ("genforce", status)}
    assert all(("ratio" in result) == (result["status"] == "ok") for result in model["results"])
    left_out = {entry["name"]: entry["reason"] for entry in model["not_run"]}
    assert left_out["NVlabs"].endswith("stylegan2-ada-pytorch: no such folder")
