"""Measure where Winograd's form of a 3x3 convolution is faster: python benchmarks/winograd.py [--quick] [-o FILE]

One convolution of random images and weights, float32, through onnxruntime on the CPU: as it is, and as
`sefa export --winograd` writes it. Channels x resolution x batch, both in turn, with all cores; the results are
compared first. `--quick` takes the smallest sizes only.
"""

import os
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from onnx import ModelProto, TensorProto, helper, numpy_helper

from records import Record, alternate, make_parser, p50_ms, ratio
from sefa_export.onnx_graph.winograd import LEAST_CHANNELS, SIDES, to_winograd

CHANNELS, RESOLUTIONS, BATCHES = (128, 256, 512), (8, 16, 32, 64, 128), (1, 4)
# The first call of a turn finds other data in the caches and the threads asleep, unlike a layer within a generator.
ROUNDS, CALLS, SETTLE = 7, 3, 2
# Larger ones take long.
MOST_NUMBERS = 256 * 128 * 128


def main() -> None:
    """Measure, print, and write the record."""
    parser = make_parser(__doc__)
    parser.add_argument("--quick", action="store_true", help="the smallest sizes only")
    given = parser.parse_args()
    output: Path | None = given.output
    record = Record("p50 of a 3x3 convolution, as it is and in Winograd's form F(4x4, 3x3)")
    threads = len(os.sched_getaffinity(0))
    results = [
        measure(channels, resolution, batch, threads)
        for channels in (CHANNELS[:1] if given.quick else CHANNELS)
        for resolution in (RESOLUTIONS[:2] if given.quick else RESOLUTIONS)
        for batch in BATCHES
        if channels * resolution**2 <= MOST_NUMBERS
    ]
    chosen = {"least_channels": LEAST_CHANNELS, "resolutions": SIDES}
    record.finish({"threads": threads, "rounds": ROUNDS, "by_default": chosen, "results": results}, output)


def measure(channels: int, resolution: int, batch: int, threads: int) -> dict[str, Any]:
    """Compare both forms of one convolution."""
    random = np.random.default_rng(0)
    x = random.standard_normal((batch, channels, resolution, resolution), np.float32)
    weight = random.standard_normal((channels, channels, 3, 3), np.float32) / np.float32(np.sqrt(9 * channels))
    plain, winograd = make(weight, resolution), make(weight, resolution)
    assert to_winograd(winograd, [resolution])
    sessions = [open_session(model, threads) for model in (plain, winograd)]
    expected, image = (session.run(None, {"x": x})[0] for session in sessions)
    times = alternate(
        {
            name: partial(session.run, None, {"x": x})
            for name, session in zip(("convolution", "winograd"), sessions, strict=True)
        },
        ROUNDS,
        CALLS,
        warm_up=1,
        settle=SETTLE,
        pause_s=0.02,
    )
    return {
        "channels": channels,
        "resolution": resolution,
        "batch": batch,
        "p50_ms": p50_ms(times),
        "convolution_over_winograd": ratio(times, "convolution", "winograd"),
        "largest_difference_over_rms": float(f"{np.abs(image - expected).max() / np.sqrt((expected**2).mean()):.1e}"),
    }


def make(weight: np.ndarray[Any, Any], resolution: int) -> ModelProto:
    """Make a graph of one convolution between two activations, which fuse with it as in a generator."""
    channels = len(weight)
    shape: list[str | int | None] = ["batch", channels, resolution, resolution]
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
