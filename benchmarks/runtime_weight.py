"""Measure what the runtime costs a machine that only serves: python benchmarks/runtime_weight.py [-o RECORD.json]

Installs `.[cpu]` into a fresh virtual environment and measures there, in fresh processes, with the demo's faces: size
on disk, time to import, to load and to the first image, and memory. Also compares weights inside the model's file with
weights in a file beside it, which onnxruntime maps into memory. Times are medians, of wall-clock and of CPU time; on a
busy machine only CPU time means something.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from itertools import pairwise
from pathlib import Path
from typing import Any

from records import Record, make_parser
from sefa_runtime.session.importing import DISABLE_TELEMETRY

ROOT = Path(__file__).parents[1]
ROUNDS = 9
# Packages in a fresh environment that a server does not need.
TOOLS = ("pip", "setuptools", "pkg_resources", "_distutils_hack", "distutils-precedence.pth")
# Linux's names for peak resident memory, and for memory now resident in private pages and in mapped files.
MEMORY = {"VmHWM": "peak_mb", "RssAnon": "private_mb", "RssFile": "mapped_mb"}

STAGES = """
import json, sys, time
def note(stage):
    with open("/proc/self/status") as file:
        lines = dict(line.split(":", 1) for line in file)
    memory = {name: int(lines[key].split()[0]) / 1024 for key, name in MEMORY.items()}
    times = {"ms": (time.perf_counter_ns() - started) / 1e6, "cpu_ms": time.process_time_ns() / 1e6}
    stages[stage] = times | memory
MEMORY, stages, started = json.loads(sys.argv[2]), {}, time.perf_counter_ns()
note("start")
import numpy
note("import numpy")
import onnxruntime
note("import onnxruntime")
from sefa_runtime import Editor, load
note("import sefa_runtime")
editor = load(sys.argv[1], "cpu")
note("load")
editor.edit(seed=7, edits={0: 1.0})
note("first image")
editor.edit(seed=8, edits={0: 1.0})
note("second image")
print(json.dumps(stages))
"""

VERSIONS = "import json; from sefa_runtime.machine.packages import describe_versions as d; print(json.dumps(d()))"

WEIGHTS = """
import json, sys, time
from pathlib import Path
import numpy, onnxruntime
from sefa_runtime.session.session import build_session
started = time.perf_counter_ns()
session = build_session(Path(sys.argv[1]), "cpu", json.loads(sys.argv[3]))
load_ms = (time.perf_counter_ns() - started) / 1e6
feeds = {"z": numpy.zeros((1, session.inference.get_inputs()[0].shape[1]), numpy.float32)}
feeds |= {"direction": numpy.zeros((1, 1), numpy.int64), "alpha": numpy.zeros((1, 1), numpy.float32)}
times = []
for _ in range(30):
    began = time.perf_counter_ns()
    session.run(feeds)
    times.append((time.perf_counter_ns() - began) / 1e6)
with open("/proc/self/status") as file:
    lines = dict(line.split(":", 1) for line in file)
memory = {name: int(lines[key].split()[0]) / 1024 for key, name in json.loads(sys.argv[2]).items()}
print(json.dumps({"load_ms": load_ms, "run_ms": sorted(times)[len(times) // 2], **memory}))
"""


def main() -> None:
    """Install, measure, print, and write the record."""
    output: Path | None = make_parser(__doc__).parse_args().output

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = make_faces(folder)
        python = install(folder / "environment")
        record = Record(
            "64x64 faces on the CPU in a runtime-only environment; medians of fresh processes",
            versions=run(python, VERSIONS, model),
        )
        results = {
            "rounds": ROUNDS,
            "model_mb": megabytes(model.stat().st_size),
            "install_mb": installed_sizes(python),
            **measure(python, model, ROUNDS),
            "weights": compare_weights(python, model, put_weights_beside(model, folder / "beside"), ROUNDS),
        }
    record.finish(results, output)


def make_faces(folder: Path) -> Path:
    """Export the demo's faces generator."""
    import sefa
    import sefa_export
    from sefa.demo import find_faces

    generator = sefa.load(find_faces())
    return sefa_export.export_onnx(generator, sefa.factorize(generator), folder / "faces.onnx")


def put_weights_beside(model: Path, folder: Path) -> Path:
    """Save the same graph with its weights in a separate file (ONNX external data)."""
    import onnx

    folder.mkdir()
    path = folder / model.name
    onnx.save(onnx.load(model), path, save_as_external_data=True, location="weights.bin", size_threshold=1024)
    return path


def install(folder: Path) -> Path:
    """Make an environment with `.[cpu]` and nothing else; return its interpreter."""
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    command = [str(python), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    command += ["--constraint", str(ROOT / "constraints.txt"), f"{ROOT}[cpu]"]
    subprocess.run(command, check=True, stdout=sys.stderr)
    return python


def installed_sizes(python: Path) -> dict[str, float]:
    """Return the megabytes of each package that takes one or more, and of all packages."""
    (site,) = python.parents[1].glob("lib/python*/site-packages")
    sizes = {
        entry.name: sum(file.stat().st_size for file in [entry, *entry.rglob("*")] if file.is_file())
        for entry in site.iterdir()
        if not entry.name.startswith(TOOLS)
    }
    large = {name: megabytes(size) for name, size in sizes.items() if size >= 1e6}
    return {"total": megabytes(sum(sizes.values())), **dict(sorted(large.items(), key=lambda item: -item[1]))}


def measure(python: Path, model: Path, rounds: int) -> dict[str, Any]:
    """Measure the time that each stage, from interpreter start to second image, adds, and the memory after it."""
    walls_ms: list[float] = []
    runs: list[dict[str, dict[str, float]]] = []
    for _ in range(rounds + 1):
        started = time.perf_counter_ns()
        runs.append(run(python, STAGES, model))
        walls_ms.append((time.perf_counter_ns() - started) / 1e6)
    del runs[0], walls_ms[0]  # The first run only filled the disk cache.
    stages = list(runs[0])

    def median(stage: str, what: str) -> float:
        return statistics.median(run[stage][what] for run in runs)

    def added(what: str, interpreter: float) -> dict[str, float]:
        steps = {later: median(later, what) - median(earlier, what) for earlier, later in pairwise(stages)}
        return {name: round(value, 1) for name, value in ({"interpreter": interpreter} | steps).items()}

    # Time that the process spent outside the program: starting and ending the interpreter.
    outside = statistics.median(wall - run[stages[-1]]["ms"] for wall, run in zip(walls_ms, runs, strict=True))
    return {
        "time_to_first_image_ms": round(outside + median("first image", "ms"), 1),
        "cpu_to_first_image_ms": round(median("first image", "cpu_ms"), 1),
        "added_ms": added("ms", outside),
        "added_cpu_ms": added("cpu_ms", median("start", "cpu_ms")),
        "memory": {stage: {name: round(median(stage, name), 1) for name in MEMORY.values()} for stage in stages},
    }


def compare_weights(python: Path, inside: Path, beside: Path, rounds: int) -> dict[str, dict[str, float]]:
    """Measure load time, run time and memory for each place of the weights, alternating."""
    unpacked = {"session.disable_prepacking": "1"}
    cases: dict[str, tuple[Path, dict[str, str]]] = {
        "in the model's file": (inside, {}),
        "beside it": (beside, {}),
        # The weights stay in the file's pages, shared between processes, in the file's layout.
        "beside it, not rearranged": (beside, unpacked),
    }
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in cases}
    for _ in range(rounds):
        for name, (model, options) in cases.items():
            runs[name].append(run(python, WEIGHTS, model, json.dumps(options)))
    return {
        name: {key: round(statistics.median(sample[key] for sample in samples), 1) for key in samples[0]}
        for name, samples in runs.items()
    }


def run(python: Path, program: str, model: Path, *arguments: str) -> Any:
    """Run a program in its own process and return the JSON that it prints."""
    command = [str(python), "-c", program, str(model), json.dumps(MEMORY), *arguments]
    environment = {DISABLE_TELEMETRY: "1"} | os.environ
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout)


def megabytes(size: int) -> float:
    """Return a size in megabytes (of a million bytes)."""
    return round(size / 1e6, 1)


if __name__ == "__main__":
    main()
