"""Measure how long the command line and the runtime take to start: python benchmarks/startup.py [-o RECORD.json]

Every number is the median over fresh processes. They alternate with a bare interpreter and with the packages that are
imported anyway, so that a busy machine slows all of them alike.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

from sefa_runtime.files import write_whole
from sefa_runtime.machine.description import describe_machine
from sefa_runtime.machine.packages import describe_versions, installed_version
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
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path)
    output: Path | None = parser.parse_args().output

    times_ms: dict[str, list[float]] = {name: [] for name in COMMANDS}
    environment = {DISABLE_TELEMETRY: "1"} | os.environ
    for _ in range(ROUNDS + 1):
        for name, command in COMMANDS.items():
            started = time.perf_counter_ns()
            subprocess.run(command, stdout=subprocess.DEVNULL, check=True, env=environment)
            times_ms[name].append((time.perf_counter_ns() - started) / 1e6)
    medians = {name: round(statistics.median(values[1:]), 1) for name, values in times_ms.items()}
    runtime_beyond = medians["import numpy, onnxruntime, sefa_runtime.Editor"] - medians["import numpy, onnxruntime"]
    record = {
        "rounds": ROUNDS,
        "median_ms": medians,
        "max_ms": {name: round(max(values[1:]), 1) for name, values in times_ms.items()},
        "sefa_runtime_beyond_numpy_and_onnxruntime_ms": round(runtime_beyond, 1),
        "machine": describe_machine(),
        "versions": describe_versions() | {"typer": installed_version("typer"), "rich": installed_version("rich")},
    }
    print(json.dumps(record, indent=2))
    assert medians["sefa --help"] < 500, "sefa --help takes over half a second"
    assert runtime_beyond < 200, "sefa_runtime takes over 0.2 s beyond numpy and onnxruntime"
    if output is not None:
        write_whole(output, (json.dumps(record, indent=2) + "\n").encode())


if __name__ == "__main__":
    main()
