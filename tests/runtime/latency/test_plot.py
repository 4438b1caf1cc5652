import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sefa_runtime import InputError
from sefa_runtime.latency import LatencyRecord
from sefa_runtime.latency.plot import check_plot, plot, save_plot

Quick = Callable[..., LatencyRecord]


@pytest.mark.parametrize("arguments", [{"batches": (1, 2)}, {"scenario": "server", "rate": 1e6}])
def test_a_plot_is_an_image(quick: Quick, tmp_path: Path, arguments: dict[str, Any]) -> None:
    save_plot(quick(**arguments), tmp_path / "plot.png")
    with Image.open(tmp_path / "plot.png") as image:
        assert image.format == "PNG"
        assert image.width > image.height > 400
    assert [path.name for path in tmp_path.iterdir()] == ["plot.png"]


def test_it_shows_the_samples_and_the_throughput(quick: Quick) -> None:
    record = quick(batches=(1, 2))
    latency, throughput = plot(record).axes
    ticks = dict(zip((text.get_text() for text in latency.get_xticklabels()), latency.get_xticks(), strict=True))
    for result, line in zip(record.results, latency.lines[1::2], strict=True):
        x, y = (np.asarray(values, float) for values in line.get_data())
        assert y.tolist() == sorted(result.samples_ms or ())  # type: ignore[type-var]
        # Half of the samples lie to the left of where the axis says 50.
        assert (x < ticks["50"]).sum() == pytest.approx(len(x) / 2, abs=1)
        assert (x < ticks["90"]).sum() == pytest.approx(len(x) * 0.9, abs=1)
    heights = [bar.get_height() for bar in throughput.patches]  # type: ignore[attr-defined]
    assert heights == [result.images_per_second for result in record.results]


def test_only_png(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"plot.pdf: a plot is a .png file"):
        check_plot(tmp_path / "plot.pdf")


def test_without_matplotlib_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(InputError, match=r"a plot needs matplotlib, .* pip install matplotlib"):
        check_plot(tmp_path / "plot.png")
