"""Measure what keeping a latent's first layers saves: python benchmarks/same_latent.py [-o FILE]

A StyleGAN2 of 256x256 (configuration F, random weights) and the letters, float32, on the CPU, edited from some layer
on. Of each, the same file is loaded twice: as it is, and as one graph (`prefix_mb=0`). Both take turns with

- a slider's move: one more edit of a latent that was there before,
- a sweep of a new latent: 7 alphas at once,
- a new latent: one image, where keeping can only cost.

The images are compared first. Exit code 1 if a sweep over the last third of the large model's layers is less than 1.4
times as fast.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

import sefa
import sefa_runtime
from sefa.generators import Generator
from sefa_export import export_onnx
from sefa_runtime import Editor
from sefa_runtime.files import write_whole
from sefa_runtime.machine.description import describe_machine
from sefa_runtime.machine.packages import describe_versions

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from support.stylegan2_files import CONFIG_F_256, genforce_state, random_tensors

ALPHAS = np.linspace(-3, 3, 7).tolist()
WARM_UP, ROUNDS = 2, 15
# How many times as fast a sweep over the last third of the layers must be.
MIN_RATIO = 1.4


def main() -> None:
    """Measure, print, and write the record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path)
    output: Path | None = parser.parse_args().output
    with tempfile.TemporaryDirectory() as folder:
        results = list(measure_all(Path(folder)))
    record = {
        "what": "p50 of edits from some layer on, with the layers before kept for each latent, and as one graph",
        "rounds": ROUNDS,
        "results": results,
        "machine": describe_machine(),
        "versions": describe_versions() | {"torch": str(torch.__version__)},
    }
    print(json.dumps(record, indent=2))
    if output is not None:
        write_whole(output, (json.dumps(record, indent=2) + "\n").encode())
    third = next(result for result in results if result["first_edited_layer"] == last_third(result["layers"]))
    sys.exit(third["sweep"]["ratio"] < MIN_RATIO)


def last_third(layers: int) -> int:
    """Return the first layer of the last third."""
    return -(-2 * layers // 3)


def measure_all(folder: Path) -> Iterator[dict[str, Any]]:
    """Measure both generators, each edited in the last third of its layers, and in more and fewer of them."""
    checkpoint = folder / "generator.pth"
    torch.save({"generator_smooth": genforce_state(CONFIG_F_256, random_tensors(CONFIG_F_256))}, checkpoint)
    for name, generator in (("stylegan2-256", sefa.load(checkpoint)), ("letters", sefa.load("letters"))):
        third = last_third(generator.num_layers)
        for first in (third - 2, third, generator.num_layers - 2):
            yield {"model": name} | measure(generator, first, folder / "model.onnx")


def measure(generator: Generator, first: int, path: Path) -> dict[str, Any]:
    """Export a generator that is edited from layer `first` on, and time both ways to run it."""
    bank = sefa.factorize(generator, layers=range(first, generator.num_layers), top=4)
    export_onnx(generator, bank, path)
    kept, whole = sefa_runtime.load(path, "cpu"), sefa_runtime.load(path, "cpu", prefix_mb=0)
    prefix = kept.info.prefix
    assert prefix is not None
    label = 0 if kept.info.takes_label else None
    turn = iter(range(10**9))

    def move(editor: Editor) -> object:
        return editor.edit(seed=7, edits={1: ALPHAS[next(turn) % len(ALPHAS)]}, label=label)

    def sweep(editor: Editor) -> object:
        return editor.sweep(seed=next(turn), direction=1, alphas=ALPHAS, label=label)

    def fresh(editor: Editor) -> object:
        return editor.edit(seed=next(turn), edits={1: 2.0}, label=label)

    one, other = (editor.sweep(seed=[1, 2], direction=1, alphas=ALPHAS, label=label) for editor in (kept, whole))
    return {
        "layers": generator.num_layers,
        "first_edited_layer": first,
        "prefix_share": round(prefix.share, 3),
        "bytes_per_latent": sum(tensor.bytes for tensor in prefix.tensors),
        "threads": kept.session.threads,
        "largest_difference_in_levels": int(np.abs(one.astype(int) - other).max()),
        "slider": compare(move, kept, whole),
        "sweep": compare(sweep, kept, whole),
        "new_latent": compare(fresh, kept, whole),
    }


def compare(run: Callable[[Editor], object], kept: Editor, whole: Editor) -> dict[str, Any]:
    """Time a run with both editors, which take turns in going first."""
    times_ms = np.empty((WARM_UP + ROUNDS, 2))
    for index in range(len(times_ms)):
        for side, editor in ((0, kept), (1, whole)) if index % 2 else ((1, whole), (0, kept)):
            time.sleep(0.05)  # The other's threads spin for a while after their last run.
            started = time.perf_counter_ns()
            run(editor)
            times_ms[index, side] = (time.perf_counter_ns() - started) / 1e6
    times_ms = times_ms[WARM_UP:]
    ratios = times_ms[:, 1] / times_ms[:, 0]
    kept_ms, whole_ms = np.median(times_ms, axis=0)
    return {
        "kept_p50_ms": round(float(kept_ms), 2),
        "whole_p50_ms": round(float(whole_ms), 2),
        "ratio": round(float(np.median(ratios)), 2),
        "ratio_quartiles": np.percentile(ratios, (25, 75)).round(2).tolist(),
    }


if __name__ == "__main__":
    main()
