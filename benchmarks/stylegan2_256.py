"""Compare an exported StyleGAN2 with the released arithmetic in PyTorch: python benchmarks/stylegan2_256.py [-o FILE]

Configuration F for 256x256 with random weights, float32, on the CPU. The released PyTorch generators scale the weights
for every sample, convolve each sample with its own weights, and filter every channel as a separate image; the first
PyTorch form here does the same. The second filters all channels in one convolution with as many groups. (Both are the
reference of the tests; the images are compared first.) The exported graphs, as they are by default and in Winograd's
form (`sefa export --winograd`), also edit. All take latents and run in turn, with the same number of threads, in three
processes one after the other: PyTorch's time differs by up to a sixth from one process to the next.

Exit code 1 if the default graph is less than twice as fast as the released form.
"""

import multiprocessing
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import sefa
import sefa_runtime
from generators import make_generator, stylegan2_spec
from records import Record, Times, alternate, check_same, make_parser, p50_ms, rates_of, roofline_of, summary
from sefa_export import export_onnx
from sefa_export.bake import quantize
from support.stylegan2_files import (
    Convolve,
    convolve_apart,
    convolve_grouped,
    random_tensors,
    reference_image,
    reference_w,
)

NAME = "stylegan2-256"
SPEC = stylegan2_spec(NAME)
FORMS = ("onnxruntime", "winograd")
BATCHES = (1, 4)
PROCESSES, WARM_UP, ROUNDS = 3, 2, 5
# How many times as fast as the released form the exported graph must be.
MIN_RATIO = 2.0


def main() -> None:
    """Measure, print, and write the record."""
    output: Path | None = make_parser(__doc__).parse_args().output
    record = Record(
        "p50 of one batch of StyleGAN2 (configuration F, 256x256, random weights), from latents to pixels", ("torch",)
    )

    generator = make_generator(NAME)
    with tempfile.TemporaryDirectory() as folder:
        bank = sefa.factorize(generator)
        for form in FORMS:
            export_onnx(generator, bank, Path(folder, f"{form}.onnx"), winograd=form == "winograd")
        spawn = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, spawn, max_tasks_per_child=1) as pool:
            times = list(pool.map(time_all, [folder] * PROCESSES))
        editor = sefa_runtime.load(Path(folder, "onnxruntime.onnx"), "cpu")
        results = [summarize(editor, batch, [of_process[batch] for of_process in times]) for batch in BATCHES]
        figures = {
            "threads": editor.session.threads,
            "processes": PROCESSES,
            "rounds": ROUNDS,
            "provider": editor.provider,
            "results": results,
            "rates": rates_of(editor),
        }
    problems = [
        f"batch {result['batch']}: {times} times as fast as the released form, {MIN_RATIO} is wanted"
        for result in results
        if (times := result["released_form_over_onnxruntime"]) < MIN_RATIO
    ]
    record.finish(figures, output, problems)


def time_all(folder: str) -> dict[int, Times]:
    """Time all with every batch size, in milliseconds, [rounds, 1]; who goes first changes from round to round."""
    editors = {form: sefa_runtime.load(Path(folder, f"{form}.onnx"), "cpu") for form in FORMS}
    default = editors["onnxruntime"]
    torch.set_num_threads(default.session.threads)
    tensors = random_tensors(SPEC)
    times: dict[int, Times] = {}
    for batch in BATCHES:
        z = sefa_runtime.latents_from_seeds(range(batch), default.info.z_dim)

        def run_torch(convolve: Convolve, z: NDArray[np.float32] = z) -> NDArray[np.uint8]:
            with torch.inference_mode():
                w = reference_w(SPEC, tensors, torch.from_numpy(z))
                codes = w[:, None].repeat(1, SPEC.num_layers, 1)
                return np.asarray(quantize(reference_image(SPEC, tensors, codes, convolve=convolve)))

        runs: dict[str, Callable[[], NDArray[np.uint8]]] = {
            **{form: partial(editor.run, z, 1, 0.0) for form, editor in editors.items()},
            "pytorch_released_form": partial(run_torch, convolve_apart),
            "pytorch_grouped_filter": partial(run_torch, convolve_grouped),
        }
        for run in runs.values():
            check_same(run(), default.run(z, 1, 0.0))
        times[batch] = alternate(runs, ROUNDS, warm_up=WARM_UP)
    return times


def summarize(editor: sefa_runtime.Editor, batch: int, processes: Sequence[Times]) -> dict[str, Any]:
    """Return medians over the rounds of all processes, and of each."""
    times = {name: np.concatenate([of_process[name] for of_process in processes]) for name in processes[0]}
    p50 = p50_ms(times)
    default_ms, winograd_ms, released_ms, grouped_ms = (of_one[:, 0] for of_one in times.values())
    return {
        "batch": batch,
        **{f"{name}_p50_ms": value for name, value in p50.items()},
        "p50_ms_by_process": [p50_ms(of_process) for of_process in processes],
        "roofline": roofline_of(editor, batch, p50["onnxruntime"]),
        **summary("released_form_over_onnxruntime", released_ms / default_ms, 2),
        **summary("released_form_over_winograd", released_ms / winograd_ms, 2),
        **summary("grouped_filter_over_onnxruntime", grouped_ms / default_ms, 2),
    }


if __name__ == "__main__":
    main()
