"""The roofline: bounds by hand, and rates that hold together."""

from pathlib import Path

import pytest

from sefa_runtime import load
from sefa_runtime.latency.roofline import Rates, least_bytes, measure_rates, rates_for, roofline
from sefa_runtime.model.reading import read_info

# A hundred billion operations and ten billion bytes per second.
RATES = Rates(convolution_gflops=100.0, convolution="3x3", matrix_gflops=200.0, copy_gb_per_s=10.0)


def test_a_run_held_against_the_rates() -> None:
    # A 3x3 convolution of 64 to 32 channels on 10x10 pixels, by hand, and its numbers of four bytes.
    macs = 32 * 64 * 9 * 10 * 10
    moved = 4 * (32 * 64 * 9 + 64 * 100 + 32 * 100)
    found = roofline(macs, moved, 0.1, RATES)
    assert macs == 1_843_200
    assert found.bound == "convolution"
    assert found.gflops == pytest.approx(36.9)  # 3.6864 million operations in 0.1 ms
    assert (found.of_convolution, found.of_matrix) == (0.369, 0.184)
    assert found.least_ms == pytest.approx(0.0369)
    assert found.of_copy == pytest.approx(moved / 0.1e-3 / 10e9, rel=0.01)


def test_little_arithmetic_on_many_bytes_is_bound_by_copying() -> None:
    found = roofline(macs=1_000_000, moved=100_000_000, milliseconds=20.0, rates=RATES)
    assert (found.bound, found.least_ms, found.of_copy) == ("copy", 10.0, 0.5)


def test_the_least_bytes_are_weights_inputs_and_images(golden: Path) -> None:
    info = read_info(golden / "tiny.onnx")
    height, width = info.resolution
    # z in float32, an index of 8 and an alpha of 4 bytes for each edit, and the image's bytes.
    image = info.z_dim * 4 + 5 * (8 + 4) + height * width * 3
    assert least_bytes(info, parameter_bytes=1000, batch=3, edits=5) == 1000 + 3 * image


def test_rates_are_measured_with_the_editors_threads(golden: Path) -> None:
    editor = load(golden / "tiny.onnx", "cpu", threads=1)
    rates = rates_for(editor, seconds=0.0)
    assert rates is measure_rates(1, 0.0)  # once in a process
    assert rates.convolution.startswith("3x3, ")
    assert 0.01 < rates.convolution_gflops / rates.matrix_gflops < 100
    assert rates.copy_gb_per_s > 0
