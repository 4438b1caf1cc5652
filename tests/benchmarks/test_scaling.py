"""benchmarks/scaling.py: the memory of a process, a curve of a small model, and the chart of the record."""

import json
import sys
from pathlib import Path

import pytest
from PIL import Image

import scaling
from support.paths import ROOT


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_curve_has_times_memory_and_the_roofline(golden: Path) -> None:
    model = golden / "tiny.onnx"
    empty = scaling.in_process(model=None)
    points = scaling.curve("batch", {1: {"model": model}, 256: {"model": model, "batch": 256}}, rounds=2, calls=1)
    assert [point["batch"] for point in points] == [1, 256]
    small, large = points
    assert empty["peak_mb"] < small["peak_mb"] < large["peak_mb"]
    assert min(large["p50_ms"], small["p50_ms"]) > 0
    assert large["ms_per_image"] == pytest.approx(large["p50_ms"] / 256, rel=1e-3)
    assert small["roofline"] is None  # The file does not say its multiply-adds.


def test_the_chart(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    record = json.loads((ROOT / "benchmarks" / "results" / "scaling.json").read_text())
    scaling.draw(record, tmp_path / "scaling.webp")
    with Image.open(tmp_path / "scaling.webp") as image:
        assert image.format == "WEBP"
        assert image.size[0] >= 1000
