"""Measure what keeping a latent's first layers saves: python benchmarks/same_latent.py [-o FILE]

A StyleGAN2 of 256x256 (configuration F, random weights) and the letters, float32, on the CPU, edited from some layer
on. Of each, the same file is loaded twice: as it is, and as one graph (`prefix_mb=0`). Both take turns with

- a slider's move: one more edit of a latent that was there before,
- a sweep of a new latent: 7 alphas at once,
- a new latent: one image, where keeping can only cost.

The images are compared first. Exit code 1 if a sweep over the last third of the large model's layers is less than 1.4
times as fast.
"""

import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import sefa
import sefa_runtime
from generators import make_generator
from records import Record, alternate, make_parser, p50_ms, rates_of, ratio, roofline_of
from sefa.generators import Generator
from sefa_export import export_onnx
from sefa_runtime import Editor

ALPHAS = np.linspace(-3, 3, 7).tolist()
WARM_UP, ROUNDS = 2, 15
# How many times as fast a sweep over the last third of the layers must be.
MIN_RATIO = 1.4


def main() -> None:
    """Measure, print, and write the record."""
    output: Path | None = make_parser(__doc__).parse_args().output
    record = Record(
        "p50 of edits from some layer on, with the layers before kept for each latent, and as one graph", ("torch",)
    )
    with tempfile.TemporaryDirectory() as folder:
        results = list(measure_all(Path(folder)))
    third = next(result for result in results if result["first_edited_layer"] == last_third(result["layers"]))
    times = third["sweep"]["ratio"]
    problems = [f"a sweep is {times} times as fast, {MIN_RATIO} is wanted"] if times < MIN_RATIO else []
    record.finish({"rounds": ROUNDS, "results": results}, output, problems)


def last_third(layers: int) -> int:
    """Return the first layer of the last third."""
    return -(-2 * layers // 3)


def measure_all(folder: Path) -> Iterator[dict[str, Any]]:
    """Measure both generators, each edited in the last third of its layers, and in more and fewer of them."""
    for name in ("stylegan2-256", "letters"):
        generator = make_generator(name)
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
        "new_latent": (new := compare(fresh, kept, whole)),
        "roofline_of_new_latent": roofline_of(whole, 1, new["whole_p50_ms"]),
        "rates": rates_of(whole),
    }


def compare(run: Callable[[Editor], object], kept: Editor, whole: Editor) -> dict[str, Any]:
    """Time a run with both editors, in turns."""
    times = alternate({"kept": partial(run, kept), "whole": partial(run, whole)}, ROUNDS, warm_up=WARM_UP)
    return {**{f"{name}_p50_ms": value for name, value in p50_ms(times).items()}, **ratio(times, "whole", "kept")}


if __name__ == "__main__":
    main()
