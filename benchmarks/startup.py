"""Measure how long the command line and the runtime take to start: python benchmarks/startup.py [-o RECORD.json]

Every number is the median over fresh processes. They alternate with a bare interpreter and with the packages that are
imported anyway, so that a busy machine slows all of them alike.
"""

import os
import statistics
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

from records import Record, make_parser
from sefa_runtime.session.importing import DISABLE_TELEMETRY

ROUNDS = 21
PYTHON = sys.executable
SEFA = str(Path(sysconfig.get_path("scripts")) / "sefa")
COMMANDS = {
    "python": [PYTHON, "-c", "pass"],
    "import numpy, onnxruntime": [PYTHON, "-c", "import numpy, onnxruntime"],
    "import sefa_runtime": [PYTHON, "-c", "import sefa_runtime"],
    "import numpy, onnxruntime, sefa_runtime.Editor": [
        PYTHON,
        "-c",
        "import numpy, onnxruntime; from sefa_runtime import Editor",
    ],
    "sefa --help": [SEFA, "--help"],
}


def main() -> None:
    """Measure, print, and write the record."""
    output: Path | None = make_parser(__doc__).parse_args().output
    record = Record("milliseconds from the start of a fresh process to its end", ("typer", "rich"))

    times_ms: dict[str, list[float]] = {name: [] for name in COMMANDS}
    environment = {DISABLE_TELEMETRY: "1"} | os.environ
    for _ in range(ROUNDS + 1):
        for name, command in COMMANDS.items():
            started = time.perf_counter_ns()
            subprocess.run(command, stdout=subprocess.DEVNULL, check=True, env=environment)
            times_ms[name].append((time.perf_counter_ns() - started) / 1e6)
    medians = {name: round(statistics.median(values[1:]), 1) for name, values in times_ms.items()}
    runtime_beyond = medians["import numpy, onnxruntime, sefa_runtime.Editor"] - medians["import numpy, onnxruntime"]
    results = {
        "rounds": ROUNDS,
        "median_ms": medians,
        "max_ms": {name: round(max(values[1:]), 1) for name, values in times_ms.items()},
        "sefa_runtime_beyond_numpy_and_onnxruntime_ms": round(runtime_beyond, 1),
    }
    problems = []
    if medians["sefa --help"] >= 500:
        problems.append("sefa --help takes over half a second")
    if runtime_beyond >= 200:
        problems.append("sefa_runtime takes over 0.2 s beyond numpy and onnxruntime")
    record.finish(results, output, problems)


if __name__ == "__main__":
    main()
