"""Measure where Winograd's form of a 3x3 convolution is faster: python benchmarks/winograd.py [--quick] [-o FILE]

One convolution of random images and weights, float32, through onnxruntime on the CPU: as it is, and as
`sefa export --winograd` writes it. Channels x resolution x batch, both in turn, with all cores; the results are
compared first. `--quick` takes the smallest sizes only.
"""

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from onnx import ModelProto, TensorProto, helper, numpy_helper

from sefa_export.onnx_graph.winograd import LEAST_CHANNELS, SIDES, to_winograd
from sefa_runtime.files import write_whole
from sefa_runtime.machine.description import describe_machine
from sefa_runtime.machine.packages import describe_versions

CHANNELS, RESOLUTIONS, BATCHES = (128, 256, 512), (8, 16, 32, 64, 128), (1, 4)
WARM_UP, ROUNDS = 1, 7
# Larger ones take long and win nothing.
MOST_NUMBERS = 512 * 64 * 64


def main() -> None:
    """Measure, print, and write the record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--quick", action="store_true")
    given = parser.parse_args()
    threads = len(os.sched_getaffinity(0))
    results = [
        measure(channels, resolution, batch, threads)
        for channels in (CHANNELS[:1] if given.quick else CHANNELS)
        for resolution in (RESOLUTIONS[:2] if given.quick else RESOLUTIONS)
        for batch in BATCHES
        if channels * resolution**2 <= MOST_NUMBERS
    ]
    record = {
        "what": "p50 of a 3x3 convolution, as it is and in Winograd's form F(4x4, 3x3)",
        "threads": threads,
        "rounds": ROUNDS,
        "default": {"least_channels": LEAST_CHANNELS, "resolutions": list(SIDES)},
        "results": results,
        "machine": describe_machine(),
        "versions": describe_versions(),
    }
    text = json.dumps(record, indent=2) + "\n"
    print(text, end="")
    if given.output is not None:
        write_whole(given.output, text.encode())


def measure(channels: int, resolution: int, batch: int, threads: int) -> dict[str, Any]:
    """Compare both forms of one convolution."""
    random = np.random.default_rng(0)
    x = random.standard_normal((batch, channels, resolution, resolution), np.float32)
    weight = random.standard_normal((channels, channels, 3, 3), np.float32) / np.float32(np.sqrt(9 * channels))
    plain, winograd = make(weight, resolution), make(weight, resolution)
    assert to_winograd(winograd, [resolution])
    sessions = [open_session(model, threads) for model in (plain, winograd)]
    expected, image = (session.run(None, {"x": x})[0] for session in sessions)
    times_ms = np.empty((WARM_UP + ROUNDS, 2))
    for index in range(len(times_ms)):
        for side in (0, 1) if index % 2 else (1, 0):
            time.sleep(0.02)  # The other side's threads spin for a while after their last run.
            started = time.perf_counter_ns()
            sessions[side].run(None, {"x": x})
            times_ms[index, side] = (time.perf_counter_ns() - started) / 1e6
    times_ms = times_ms[WARM_UP:]
    ratios = times_ms[:, 0] / times_ms[:, 1]
    plain_ms, winograd_ms = np.median(times_ms, axis=0)
    return {
        "channels": channels,
        "resolution": resolution,
        "batch": batch,
        "convolution_p50_ms": round(float(plain_ms), 2),
        "winograd_p50_ms": round(float(winograd_ms), 2),
        "convolution_over_winograd": round(float(np.median(ratios)), 2),
        "convolution_over_winograd_quartiles": np.percentile(ratios, (25, 75)).round(2).tolist(),
        "largest_difference_over_rms": float(f"{np.abs(image - expected).max() / np.sqrt((expected**2).mean()):.1e}"),
    }


def make(weight: np.ndarray[Any, Any], resolution: int) -> ModelProto:
    """Make a graph of one convolution between two activations, which fuse with it as in a generator."""
    channels = len(weight)
    shape = ["batch", channels, resolution, resolution]
    nodes = [
        helper.make_node("LeakyRelu", ["x"], ["a"], alpha=0.2),
        helper.make_node("Conv", ["a", "w"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("LeakyRelu", ["c"], ["y"], alpha=0.2),
    ]
    image, result = (helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("x", "y"))
    graph = helper.make_graph(nodes, "convolution", [image], [result], [numpy_helper.from_array(weight, "w")])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def open_session(model: ModelProto, threads: int) -> onnxruntime.InferenceSession:
    """Open a session on the CPU."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])


if __name__ == "__main__":
    main()
