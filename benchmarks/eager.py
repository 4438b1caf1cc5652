"""Compare the exported graph with the same generator in PyTorch: python benchmarks/eager.py [--model faces] [-o FILE]

Both edit the same latents along the same directions, in alternating blocks of runs, with the same number of threads.
The generator is one of the demo's, letters or faces; the images of both are compared first.
"""

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

import sefa
import sefa_runtime
from sefa.demo import find_faces
from sefa_export import bake, export_onnx
from sefa_runtime.files import write_whole
from sefa_runtime.machine.description import describe_machine
from sefa_runtime.machine.packages import describe_versions

BATCHES = (1, 8)
ROUNDS, WARM_UP, RUNS = 10, 5, 30


def main() -> None:
    """Measure, print, and write the record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--model", choices=("letters", "faces"), default="letters")
    given = parser.parse_args()
    output: Path | None = given.output

    threads = len(os.sched_getaffinity(0))
    torch.set_num_threads(threads)
    generator = sefa.load(find_faces() if given.model == "faces" else "letters")
    bank = sefa.factorize(generator)
    graph = bake(generator, bank)
    with tempfile.TemporaryDirectory() as folder:
        path = export_onnx(generator, bank, Path(folder, "model.onnx"))
        editor = sefa_runtime.load(path, "cpu", threads=threads)
        results = [measure(editor, graph, batch) for batch in BATCHES]
    record = {
        "what": f"p50 of one edited batch, from arrays to uint8 images, 64x64 {given.model}",
        "threads": threads,
        "runs": ROUNDS * RUNS,
        "provider": editor.provider,
        "results": results,
        "machine": describe_machine(),
        "versions": describe_versions() | {"torch": str(torch.__version__)},
    }
    print(json.dumps(record, indent=2))
    if output is not None:
        write_whole(output, (json.dumps(record, indent=2) + "\n").encode())


def measure(editor: sefa_runtime.Editor, graph: torch.nn.Module, batch: int) -> dict[str, float]:
    """Time both with one batch size, alternating."""
    z = sefa_runtime.latents_from_seeds(range(batch), editor.info.z_dim)
    direction, alpha = np.ones((batch, 1), np.int64), np.full((batch, 1), 2.0, np.float32)
    inputs: list[np.ndarray[Any, Any]] = [z, direction, alpha, *([np.arange(batch)] if editor.info.takes_label else [])]

    def run_onnx() -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
        return editor.run(*inputs)

    def run_torch() -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
        with torch.inference_mode():
            image: torch.Tensor = graph(*map(torch.from_numpy, inputs))
        return image.numpy()

    difference = np.abs(run_onnx().astype(int) - run_torch()).max()
    assert difference <= 1, f"the images differ by {difference} levels"
    times_ms: dict[str, list[float]] = {"onnxruntime": [], "pytorch": []}
    for _ in range(ROUNDS):
        for name, run in (("onnxruntime", run_onnx), ("pytorch", run_torch)):
            time.sleep(0.05)  # The other side's threads spin for a while after their last run.
            for index in range(WARM_UP + RUNS):
                started = time.perf_counter_ns()
                run()
                if index >= WARM_UP:
                    times_ms[name].append((time.perf_counter_ns() - started) / 1e6)
    p50 = {name: float(np.median(values)) for name, values in times_ms.items()}
    return {
        "batch": batch,
        "onnxruntime_p50_ms": round(p50["onnxruntime"], 3),
        "pytorch_p50_ms": round(p50["pytorch"], 3),
        "pytorch_over_onnxruntime": round(p50["pytorch"] / p50["onnxruntime"], 2),
    }


if __name__ == "__main__":
    main()
