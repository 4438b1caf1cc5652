"""Compare the exported graph with the same generator in PyTorch: python benchmarks/eager.py [--model faces] [-o FILE]

Both edit the same latents along the same directions, in turns, with the same number of threads. Letters and faces are
the demo's trained ones; BigGAN-128 and PGGAN-256 have their papers' sizes and random weights, and are also exported in
Winograd's form (`sefa export --winograd`), which has its turn beside the two. The images are compared first.

Exit code 1 if the default graph is not as many times as fast as is wanted. One model takes half a minute to two
minutes.
"""

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import sefa
import sefa_runtime
from generators import make_generator
from records import Record, alternate, check_same, digits, make_parser, p50_ms, rates_of, roofline_of, summary
from sefa_export import bake, export_onnx
from sefa_runtime.inputs.examples import random_inputs


@dataclass(frozen=True)
class Plan:
    """How a generator is measured."""

    least: dict[int, float]  # how many times as fast the graph must be, by batch size; 0: whatever it is
    rounds: int
    calls: int
    settle: int
    winograd: bool = False  # whether Winograd's form is measured, too


MODELS = {
    "letters": Plan({1: 0.0, 8: 0.0}, rounds=10, calls=30, settle=5),
    "faces": Plan({1: 3.0, 8: 1.3}, rounds=10, calls=30, settle=5),
    "biggan-128": Plan({1: 1.5, 4: 1.5}, rounds=15, calls=1, settle=0, winograd=True),
    "pggan-256": Plan({1: 1.5, 4: 1.5}, rounds=15, calls=1, settle=0, winograd=True),
}


def main() -> None:
    """Measure, print, and write the record."""
    parser = make_parser(__doc__)
    parser.add_argument("--model", choices=list(MODELS), default="letters")
    arguments = parser.parse_args()
    name: str = arguments.model
    plan = MODELS[name]

    record = Record(f"p50 of one edited batch, from arrays to uint8 images, {name}", ("torch",))
    threads = len(os.sched_getaffinity(0))
    torch.set_num_threads(threads)
    generator = make_generator(name)
    bank = sefa.factorize(generator)
    graph = bake(generator, bank)
    with tempfile.TemporaryDirectory() as folder:
        paths = {"onnxruntime": export_onnx(generator, bank, Path(folder, "model.onnx"))}
        if plan.winograd:
            paths["winograd"] = export_onnx(generator, bank, Path(folder, "winograd.onnx"), winograd=True)
        editors = {form: sefa_runtime.load(path, "cpu", threads=threads) for form, path in paths.items()}
        editor = editors["onnxruntime"]
        results = [measure(editors, graph, batch, plan) for batch in plan.least]
        sizes = {form: digits(path.stat().st_size / 1e6) for form, path in paths.items()}
    figures = {
        "model": name,
        "threads": threads,
        "runs": plan.rounds * plan.calls,
        "provider": editor.provider,
        "file_mb": sizes,
        "results": results,
        "rates": rates_of(editor),
    }
    problems = [
        f"{name}, batch {result['batch']}: {times} times as fast, {least} is wanted"
        for result, least in zip(results, plan.least.values(), strict=True)
        if (times := result["pytorch_over_onnxruntime"]) < least
    ]
    record.finish(figures, arguments.output, problems)


def measure(
    editors: Mapping[str, sefa_runtime.Editor], graph: torch.nn.Module, batch: int, plan: Plan
) -> dict[str, Any]:
    """Time the exported graphs, by form, and the module with one batch size, in turns."""
    default = editors["onnxruntime"]
    feeds = random_inputs(default.info.signature, np.random.default_rng(0), batch, 1)

    def run_torch() -> NDArray[np.uint8]:
        with torch.inference_mode():
            image: torch.Tensor = graph(**{name: torch.from_numpy(value) for name, value in feeds.items()})
        return image.numpy()

    runs = {form: partial(editor.infer, feeds) for form, editor in editors.items()}
    for run in runs.values():
        check_same(run(), run_torch())
    times = alternate({**runs, "pytorch": run_torch}, plan.rounds, plan.calls, warm_up=1, settle=plan.settle)
    p50 = p50_ms(times)
    medians = {name: np.median(of_one, axis=1) for name, of_one in times.items()}
    ratios = [summary(f"pytorch_over_{form}", medians["pytorch"] / medians[form], 2) for form in runs]
    return {
        "batch": batch,
        **{f"{name}_p50_ms": value for name, value in p50.items()},
        "roofline": roofline_of(default, batch, p50["onnxruntime"]),
        **{name: value for of_one in ratios for name, value in of_one.items()},
    }


if __name__ == "__main__":
    main()
