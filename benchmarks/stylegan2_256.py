"""Compare an exported StyleGAN2 with the released arithmetic in PyTorch: python benchmarks/stylegan2_256.py [-o FILE]

Configuration F for 256x256 with random weights, float32, on the CPU. The released PyTorch generators scale the weights
for every sample, convolve each sample with its own weights, and filter every channel as a separate image; the first
PyTorch form here does the same. The second filters all channels in one convolution with as many groups. (Both are the
reference of the tests; the images are compared first.) The exported graph also edits. All take latents and run in turn,
with the same number of threads.

Exit code 1 if the exported graph is less than twice as fast as the released form.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import sefa
import sefa_runtime
from sefa_export import export_onnx
from sefa_export.bake import quantize
from sefa_runtime.files import write_whole
from sefa_runtime.machine.description import describe_machine
from sefa_runtime.machine.packages import describe_versions

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from support.stylegan2_files import (
    CONFIG_F_256,
    Convolve,
    convolve_apart,
    convolve_grouped,
    genforce_state,
    random_tensors,
    reference_image,
    reference_w,
)

BATCHES = (1, 4)
WARM_UP, ROUNDS = 2, 15
# How many times as fast as the released form the exported graph must be.
MIN_RATIO = 2.0


def main() -> None:
    """Measure, print, and write the record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path)
    output: Path | None = parser.parse_args().output

    tensors = random_tensors(CONFIG_F_256)
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(folder, "generator.pth")
        torch.save({"generator_smooth": genforce_state(CONFIG_F_256, tensors)}, checkpoint)
        generator = sefa.load(checkpoint)
        path = export_onnx(generator, sefa.factorize(generator), Path(folder, "stylegan2.onnx"))
        editor = sefa_runtime.load(path, "cpu")
        torch.set_num_threads(editor.session.threads)
        results = [measure(editor, tensors, batch) for batch in BATCHES]
    record = {
        "what": "p50 of one batch of StyleGAN2 (configuration F, 256x256, random weights), from latents to pixels",
        "threads": editor.session.threads,
        "rounds": ROUNDS,
        "provider": editor.provider,
        "results": results,
        "machine": describe_machine(),
        "versions": describe_versions() | {"torch": str(torch.__version__)},
    }
    print(json.dumps(record, indent=2))
    if output is not None:
        write_whole(output, (json.dumps(record, indent=2) + "\n").encode())
    sys.exit(any(result["released_form_over_onnxruntime"] < MIN_RATIO for result in results))


def measure(editor: sefa_runtime.Editor, tensors: dict[str, torch.Tensor], batch: int) -> dict[str, Any]:
    """Time all with one batch size; which one goes first changes from round to round."""
    z = sefa_runtime.latents_from_seeds(range(batch), editor.info.z_dim)

    def run_onnx() -> NDArray[np.uint8]:
        return editor.run(z, 1, 0.0)

    def run_torch(convolve: Convolve) -> NDArray[np.uint8]:
        with torch.inference_mode():
            w = reference_w(CONFIG_F_256, tensors, torch.from_numpy(z))
            codes = w[:, None].repeat(1, CONFIG_F_256.num_layers, 1)
            return np.asarray(quantize(reference_image(CONFIG_F_256, tensors, codes, convolve=convolve)))

    runs: list[Callable[[], NDArray[np.uint8]]] = [
        run_onnx,
        partial(run_torch, convolve_apart),
        partial(run_torch, convolve_grouped),
    ]
    expected, *others = (run().astype(int) for run in runs)
    difference = max(np.abs(image - expected).max() for image in others)
    assert difference <= 1, f"the images differ by {difference} levels"
    times_ms = np.empty((WARM_UP + ROUNDS, len(runs)))
    for index in range(len(times_ms)):
        for side in np.roll(np.arange(len(runs)), index):
            time.sleep(0.05)  # The other side's threads spin for a while after their last run.
            started = time.perf_counter_ns()
            runs[side]()
            times_ms[index, side] = (time.perf_counter_ns() - started) / 1e6
    times_ms = times_ms[WARM_UP:]
    ratios = times_ms[:, 1:] / times_ms[:, :1]
    onnx_ms, released_ms, grouped_ms = np.median(times_ms, axis=0)
    return {
        "batch": batch,
        "onnxruntime_p50_ms": round(float(onnx_ms), 1),
        "pytorch_released_form_p50_ms": round(float(released_ms), 1),
        "pytorch_grouped_filter_p50_ms": round(float(grouped_ms), 1),
        "released_form_over_onnxruntime": round(float(np.median(ratios[:, 0])), 2),
        "released_form_over_onnxruntime_quartiles": np.percentile(ratios[:, 0], (25, 75)).round(2).tolist(),
        "grouped_filter_over_onnxruntime": round(float(np.median(ratios[:, 1])), 2),
    }


if __name__ == "__main__":
    main()
