"""Measure how time and memory grow: python benchmarks/scaling.py [-o RECORD.json] [--chart FILE.webp] [--quick]

Of generators with random weights, edited on the CPU: by resolution, a StyleGAN2 of configuration F from 64x64 to
1024x1024 pixels; by threads, the one of 256x256; by batch size, by directions in the bank and by edits per image, a
small StyleGAN2 of 64x64 with codes of length 512. The times of one curve are measured in turns, and the peak of memory
in a fresh process for each point.

`--quick` is a rehearsal with small generators. `--chart` draws the curves, with `--of RECORD.json` those of that record
and without a measurement; it needs matplotlib. Exit code 1 if 512 directions take more than 5 % longer than one.

It takes about three minutes on two cores.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import sefa_runtime
from records import Record, alternate, digits, make_parser, p50_ms, rates_of, roofline_of
from sefa_runtime.files import replacing
from sefa_runtime.inputs.examples import random_inputs
from sefa_runtime.machine.cores import usable_cores
from sefa_runtime.machine.description import machine_in_words

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    import sefa

RESOLUTIONS = (64, 128, 256, 512, 1024)
BATCHES = (1, 2, 4, 8, 16, 32)
DIRECTIONS = (1, 8, 64, 512)
EDITS = (0, 1, 2, 4, 8, 16, 32)
CODE = 512
SMALL = (128, 128, 128, 64, 32)  # channels of the small generator, by level
# Rounds of large and of small generators, and calls in each round of the latter.
ROUNDS, SMALL_ROUNDS, CALLS = 9, 15, 10
MAX_DIRECTIONS_RATIO = 1.05
RUNS_FOR_MEMORY = 3

Point = dict[str, Any]


def main() -> None:
    """Measure, print, write the record and draw the chart."""
    parser = make_parser(__doc__)
    parser.add_argument("--chart", type=Path, metavar="FILE.webp")
    parser.add_argument("--of", type=Path, metavar="RECORD.json", help="draw this record's curves")
    parser.add_argument("--quick", action="store_true", help="small generators, for a rehearsal")
    parser.add_argument("--memory", metavar="JSON", help=argparse.SUPPRESS)  # one point, in its own process
    arguments = parser.parse_args()
    if arguments.memory is not None:
        return print(json.dumps(measure_memory(**json.loads(arguments.memory))))
    if arguments.of is not None:
        return draw(json.loads(arguments.of.read_text()), arguments.chart)

    record = Record(
        "time of a run and peak memory of a process that loads the model and renders, on the CPU", ("torch",)
    )
    with tempfile.TemporaryDirectory() as folder:
        results = measure(Path(folder), arguments.quick)
    if arguments.chart is not None:
        draw(record.contents(results), arguments.chart)
    first, *_, last = results["curves"]["directions"]
    slower = last["p50_ms"] / first["p50_ms"]
    problems = (
        [f"{last['directions']} directions take {slower:.2f} times as long as {first['directions']}"]
        if slower > MAX_DIRECTIONS_RATIO
        else []
    )
    return record.finish(results, arguments.output, problems)


def measure(folder: Path, quick: bool) -> dict[str, Any]:
    """Measure all curves."""
    resolutions = RESOLUTIONS[:2] if quick else RESOLUTIONS
    large = {
        resolution: export(make_large(resolution, quick), folder / f"{resolution}.onnx", top=8, batch=1)
        for resolution in resolutions
    }
    small = make_small(quick)
    banks = {count: export(small, folder / f"bank{count}.onnx", top=count, batch=1) for count in DIRECTIONS}
    batched = export(small, folder / "batched.onnx", top=8)
    rounds = 3 if quick else ROUNDS
    small_rounds = 3 if quick else SMALL_ROUNDS
    threads = [1 << power for power in range(10) if 1 << power <= usable_cores()]
    middle = large[min(256, resolutions[-1])]
    curves = {
        "resolution": curve("resolution", {size: {"model": path} for size, path in large.items()}, rounds, 1),
        "threads": curve("threads", {count: {"model": middle, "threads": count} for count in threads}, rounds, 1),
        "batch": curve("batch", {count: {"model": batched, "batch": count} for count in BATCHES}, small_rounds, CALLS),
        "directions": curve(
            "directions", {count: {"model": path} for count, path in banks.items()}, small_rounds, CALLS
        ),
        "edits": curve("edits", {count: {"model": banks[8], "edits": count} for count in EDITS}, small_rounds, CALLS),
    }
    editor = sefa_runtime.load(banks[8], "cpu")
    return {
        "quick": quick,
        "threads": editor.session.threads,
        "memory_of_an_empty_process_mb": in_process(model=None)["peak_mb"],
        "curves": curves,
        "rates": rates_of(editor),
    }


def make_large(resolution: int, quick: bool) -> "sefa.Generator":
    """Make a StyleGAN2 by configuration F's rule: 512 channels, from 128x128 on half as many at each level."""
    import torch

    from generators import random_stylegan2
    from support.stylegan2_files import Spec

    if quick:  # As when others use the machine, too.
        torch.set_num_threads(1)
    levels = resolution.bit_length() - 2
    channels = tuple(min(512, 2**15 // (4 << level)) // (16 if quick else 1) for level in range(levels))
    return random_stylegan2(Spec(channels, CODE, CODE, (CODE,) * 8, clamp=256.0))


def make_small(quick: bool) -> "sefa.Generator":
    """Make the small StyleGAN2."""
    from generators import random_stylegan2
    from support.stylegan2_files import Spec

    return random_stylegan2(
        Spec(tuple(width // (8 if quick else 1) for width in SMALL), CODE, CODE, (CODE,) * 2, clamp=256.0)
    )


def export(generator: "sefa.Generator", path: Path, top: int, batch: int | None = None) -> Path:
    """Export a generator with its first directions."""
    import sefa
    from sefa_export import export_onnx

    report(f"exporting {path.stem}")
    return export_onnx(generator, sefa.factorize(generator, top=top), path, batch=batch)


def report(line: str) -> None:
    """Say what is done now."""
    print(f"{time.process_time():5.0f} s of processor time: {line}", file=sys.stderr, flush=True)


def curve(name: str, settings: Mapping[int, Mapping[str, Any]], rounds: int, calls: int) -> list[Point]:
    """Measure one curve: the times of all points in turns, the memory of each in its own process."""
    report(f"measuring by {name}")
    prepared = {str(value): prepare(**setting) for value, setting in settings.items()}
    runs = {key: partial(editor.infer, feeds) for key, (editor, feeds) in prepared.items()}
    p50 = p50_ms(alternate(runs, rounds, calls, settle=int(calls > 1)))
    points = []
    for value, setting in settings.items():
        editor, milliseconds = prepared[str(value)][0], p50[str(value)]
        batch, edits = setting.get("batch", 1), setting.get("edits", 1)
        points.append(
            {
                name: value,
                "p50_ms": milliseconds,
                "ms_per_image": digits(milliseconds / batch),
                **in_process(**setting),
                "roofline": roofline_of(editor, batch, milliseconds, edits),
            }
        )
    return points


def prepare(
    model: Path, batch: int = 1, edits: int = 1, threads: int | None = None
) -> tuple[sefa_runtime.Editor, dict[str, Any]]:
    """Load a model and make its inputs."""
    editor = sefa_runtime.load(model, "cpu", threads=threads)
    return editor, random_inputs(editor.info.signature, np.random.default_rng(0), batch, edits)


def in_process(**setting: Any) -> dict[str, float]:
    """Measure a point's memory in a fresh process."""
    given = json.dumps({key: str(value) if isinstance(value, Path) else value for key, value in setting.items()})
    done = subprocess.run([sys.executable, __file__, "--memory", given], stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def measure_memory(model: str | None, **setting: Any) -> dict[str, float]:
    """Load a model, render a few times, and return this process's peak of memory; without a model, only import."""
    if model is not None:
        editor, feeds = prepare(Path(model), **setting)
        for _ in range(RUNS_FOR_MEMORY):
            editor.infer(feeds)
    # Not getrusage's: that includes the memory of the process that this one was forked from.
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {"peak_mb": round(int(status["VmHWM"].split()[0]) * 1024 / 1e6, 1)}


def draw(record: Mapping[str, Any], path: Path) -> None:
    """Draw the curves as small multiples."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 12.5), layout="constrained", facecolor="white")
    figure.get_layout_engine().set(h_pad=0.15, w_pad=0.08)  # type: ignore[union-attr, call-arg]
    cells = list(figure.subplots(4, 2).flat)
    for axes, (title, name, what, subtitle) in zip(cells, panels(), strict=False):
        plot(axes, record["curves"][name], name, what)
        axes.set_title(title, loc="left", fontsize=14, fontweight="bold")
        axes.set_xlabel(subtitle, fontsize=12)
    words = cells[-1]
    words.axis("off")
    machine = machine_in_words(record["machine"]).replace(", ", ",\n", 1)
    runtime = f"onnxruntime {record['versions']['onnxruntime']}, CPU"
    lines = [machine, runtime, "float32, random weights", "medians; axes begin at 0"]
    note = "\n".join([*lines, "", "A REHEARSAL:", "small generators, few runs"] if record["quick"] else lines)
    words.text(0, 0.95, note, fontsize=12, va="top", linespacing=1.5, transform=words.transAxes)
    with replacing(path) as partial_file:
        figure.savefig(partial_file, format="webp", dpi=150)


def panels() -> Iterator[tuple[str, str, str, str]]:
    """Yield title, curve, what is shown, and the label of the x axis."""
    yield "Resolution: ms", "resolution", "p50_ms", "pixels a side, StyleGAN2-F"
    yield "Resolution: MB", "resolution", "peak_mb", "pixels a side, StyleGAN2-F"
    yield "Batch: ms an image", "batch", "ms_per_image", "images in a batch, small model"
    yield "Batch: MB", "batch", "peak_mb", "images in a batch, small model"
    yield "Threads: ms", "threads", "p50_ms", "threads, StyleGAN2-F of 256x256"
    yield "Directions: ms", "directions", "p50_ms", "directions in the file, small model"
    yield "Edits: ms", "edits", "p50_ms", "edits of one image, small model"


def plot(axes: "Axes", points: Sequence[Point], name: str, what: str) -> None:
    """Plot one curve with the values of its points."""
    values = [point[what] for point in points]
    places = range(len(points))
    axes.plot(places, values, marker="o", markersize=6, linewidth=2.4, color="#2b6cb0")
    axes.set_xticks(list(places), [str(point[name]) for point in points])
    axes.set_xlim(-0.5, len(points) - 0.5)
    axes.set_ylim(0, 1.3 * max(values))
    axes.tick_params(labelsize=12)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e5e5e5", linewidth=0.8)
    axes.set_axisbelow(True)
    marked = places if len(points) <= 5 else (0, len(points) - 1)
    for place in marked:
        axes.annotate(
            f"{values[place]:.3g}" if values[place] < 1000 else f"{values[place]:.0f}",
            (place, values[place]),
            xytext=(0, 8),
            textcoords="offset points",
            ha="center",
            fontsize=12,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 1, "alpha": 0.8},
        )


if __name__ == "__main__":
    main()
