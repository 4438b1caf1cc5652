"""Check and time a model on a GPU machine: python benchmarks/gpu.py [MODEL.onnx] [--provider cuda] [-o RECORD.json]

With `--all`: everything that is to be known of the machine in at most 8 minutes, in a record that is kept as it grows,
so that a run that is cut off leaves what it has done. See gpu_all/. `--report RECORD.json` prints a record's tables.

With a model, or without:

Runs a model on the provider in every available way (plain, with IO binding, with CUDA graphs). Checks that all ways and
the CPU give the same images, and that many threads get the same answers as one; then measures latency, alternating
between the ways. Without a model it exports the demo's faces generator, which needs the extra `export`.

Exit code 1 if images differ: between the ways at all, or from the CPU's by more than one grey level (40 dB for a model
in half precision). With the default options it takes two to five minutes.
"""

import argparse
import json
import math
import os
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import sefa_runtime
from gpu_all.report import write_report
from gpu_all.suite import run_all
from records import Record, make_parser
from sefa_runtime.files import sha256_of
from sefa_runtime.latency.statistics import percentile

BATCHES = (1, 4, 16)
EDITS = 2
SEEDS = 4  # different inputs of each shape; the first run of a shape differs from later ones
THREADS = 8
WARM_UP = 5
ROUNDS = 5  # every way has its turn in each round
LEAST_DB = 40.0

Feeds = dict[str, NDArray[Any]]


def main() -> None:
    """Check, measure, print, and write the record."""
    parser = make_parser(__doc__)
    parser.add_argument("model", type=Path, nargs="?")
    parser.add_argument("--provider", default="cuda")
    parser.add_argument("--seconds", type=float, help="for each way and batch size (default: 10; 0.5 with --all)")
    parser.add_argument("--all", action="store_true", help="measure everything")
    parser.add_argument("--small", action="store_true", help="with --all: small models, for a rehearsal")
    parser.add_argument("--minutes", type=float, default=8.0, help="with --all: when to stop")
    parser.add_argument("--peers", type=Path, help="with --all: folder with clones of other people's generators")
    parser.add_argument(
        "--only", nargs="+", default=[], help="with --all: these items, by the beginning of their names"
    )
    parser.add_argument("--report", type=Path, metavar="RECORD.json", help="print this record's tables")
    parser.add_argument("--item", nargs="+", help=argparse.SUPPRESS)  # of --all, in its own process
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()

    if arguments.item:
        return print_entries(arguments)
    if arguments.report:
        return print(write_report(json.loads(arguments.report.read_text())), end="")
    if arguments.all:
        return measure_all(arguments)
    record = Record("p50 and the like of one run, from arrays to uint8 images, in milliseconds")
    with tempfile.TemporaryDirectory() as folder:
        found = examine(arguments.model or make_faces(Path(folder)), arguments.provider, arguments.seconds or 10.0)
    return record.finish(found, arguments.output, found["faults"])


def measure_all(arguments: argparse.Namespace) -> None:
    """Run all measurements, and print their tables."""
    record = run_all(
        arguments.provider,
        arguments.output,
        small=arguments.small,
        minutes=arguments.minutes,
        seconds=arguments.seconds or 0.5,
        peers=arguments.peers,
        only=tuple(arguments.only),
    )
    print(write_report(record), end="")


def print_entries(arguments: argparse.Namespace) -> None:
    """Measure one item, and print each entry as a line of JSON; whatever else is printed goes to stderr."""
    entries = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    from gpu_all import items

    context = items.Context(arguments.folder, arguments.provider, arguments.small, arguments.seconds, arguments.peers)
    for entry in items.entries_of(context, *arguments.item):
        print(json.dumps(entry), file=entries, flush=True)


def make_faces(folder: Path) -> Path:
    """Export the demo's faces generator."""
    import sefa
    import sefa_export
    from sefa.demo import find_faces

    generator = sefa.load(find_faces())
    return sefa_export.export_onnx(generator, sefa.factorize(generator), folder / "faces.onnx")


def examine(model: Path, provider: str, seconds: float) -> dict[str, Any]:
    """Check and measure a model on a provider.

    Raises:
        ProviderError: If the provider cannot run here.
    """
    ways = {name: sefa_runtime.load(model, provider, binding=name == "bound") for name in ("plain", "bound")}
    if ways["plain"].provider == "cuda":
        ways["cuda graph"] = sefa_runtime.load(model, provider, cuda_graph=True)
    cpu = sefa_runtime.load(model, "cpu")
    info = cpu.info
    batches = BATCHES if info.batch is None else (info.batch,)
    faults: list[str] = []
    parity = [check(ways, cpu, batch, faults) for batch in batches]
    check_threads(ways, batches, faults)
    session = ways["bound"].session
    return {
        "model": {
            "file": model.name,
            "sha256": sha256_of(model),
            "family": info.family,
            "resolution": list(info.resolution),
            "precision": info.precision,
        },
        "provider": session.provider,
        "options": session.options,
        "placement": {"nodes": session.placement.nodes, "convolutions": session.placement.convolutions},
        "load_ms": {name: round(editor.session.load_ms, 1) for name, editor in ways.items()},
        "warm_up_ms": {name: round(editor.session.warm_up_ms or 0.0, 1) for name, editor in ways.items()},
        "edits": EDITS,
        "parity": parity,
        "threads_that_agree": THREADS,
        "faults": faults,
        "latency": [measure(ways, batch, seconds) for batch in batches],
    }


def make_feeds(editor: sefa_runtime.Editor, batch: int, seed: int) -> Feeds:
    """Make random inputs for the graph, whatever kind of latent it takes."""
    random = np.random.default_rng(seed)
    edits = EDITS if editor.info.num_edits is None else editor.info.num_edits
    feeds: Feeds = {}
    for value in editor.session.inference.get_inputs():
        shape = [batch, *(size if isinstance(size, int) else edits for size in value.shape[1:])]
        match value.name:
            case "direction":
                feeds[value.name] = random.integers(len(editor.info.directions), size=shape)
            case "label":
                feeds[value.name] = random.integers(editor.info.num_classes, size=shape)
            case "truncation":
                feeds[value.name] = np.full(shape, 0.7, np.float32)
            case _:
                feeds[value.name] = random.standard_normal(shape, np.float32)
    return feeds


def check(
    ways: dict[str, sefa_runtime.Editor], cpu: sefa_runtime.Editor, batch: int, faults: list[str]
) -> dict[str, Any]:
    """Compare the images of all ways with those of the plain way, and these with the CPU's."""
    same = dict.fromkeys(ways, True)
    levels: list[NDArray[Any]] = []
    for seed in range(SEEDS):
        feeds = make_feeds(cpu, batch, seed)
        images = {name: editor.session.run(feeds) for name, editor in ways.items()}
        for name, image in images.items():
            same[name] &= bool(np.array_equal(image, images["plain"]))
        expected = cpu.session.run(feeds).astype(np.float64)
        levels.append((images["plain"] - expected) * (1 if cpu.info.output_type == "uint8" else 127.5))
    difference = np.stack(levels)
    largest = float(np.abs(difference).max())
    error = float(np.square(difference).mean())
    decibels = float(10 * np.log10(255**2 / error)) if error else math.inf
    faults += [f"batch {batch}: {name} gives other images than plain" for name, right in same.items() if not right]
    close = largest <= 1 if cpu.info.precision == "fp32" else decibels >= LEAST_DB
    if not close:
        faults.append(f"batch {batch}: up to {largest:.1f} grey levels ({decibels:.1f} dB) from the CPU's images")
    return {
        "batch": batch,
        "images": SEEDS * batch,
        "same_as_plain": same,
        "grey_levels_from_cpu": round(largest, 3),
        "changed_fraction": float((np.abs(difference) > 0.5).mean()),
        "psnr_db": round(decibels, 1) if error else None,  # None: no difference
    }


def check_threads(ways: dict[str, sefa_runtime.Editor], batches: tuple[int, ...], faults: list[str]) -> None:
    """Compare the images that many threads get, with mixed shapes, with those that one thread gets."""
    for name, editor in ways.items():
        jobs = [make_feeds(editor, batches[seed % len(batches)], seed) for seed in range(4 * THREADS)]
        expected = [editor.session.run(feeds) for feeds in jobs]
        with ThreadPoolExecutor(THREADS) as pool:
            answers = list(pool.map(editor.session.run, jobs))
        if not all(map(np.array_equal, answers, expected)):
            faults.append(f"{name}: {THREADS} threads get other images than one")


def measure(ways: dict[str, sefa_runtime.Editor], batch: int, seconds: float) -> dict[str, Any]:
    """Time all ways with one batch size, alternating."""
    times_ms: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, editor in ways.items():
            feeds = make_feeds(editor, batch, seed=0)
            for _ in range(WARM_UP):
                editor.session.run(feeds)
            until = time.perf_counter() + seconds / ROUNDS
            while time.perf_counter() < until:
                started = time.perf_counter_ns()
                editor.session.run(feeds)
                times_ms[name].append((time.perf_counter_ns() - started) / 1e6)
    result: dict[str, Any] = {"batch": batch}
    for name, samples in times_ms.items():
        result[name] = {"runs": len(samples), "images_per_second": round(batch * 1000 / float(np.mean(samples)), 1)}
        for percent in (50, 90, 99):
            value = percentile(samples, percent)
            result[name][f"p{percent}_ms"] = None if value is None else round(value, 3)
    return result


if __name__ == "__main__":
    main()
