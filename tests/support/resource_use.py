"""What reading a hostile file takes, measured in a process of its own."""

import json
import resource
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

# What any file that is refused may take, however slow the machine: a file of a few MB needs tenths of a second.
MAX_CPU_S = 5.0
MAX_MB = 700  # beyond the libraries, which take 300 of the 1000 that are allowed

PROGRAM = """
import json, sys, time
from pathlib import Path

{imports}

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")

def resident(name):
    return next(int(line.split()[1]) / 1e3 for line in STATUS.read_text().splitlines() if line.startswith(name))

for argument in sys.argv[1:]:
    path = Path(argument)
    if CLEAR.exists():
        CLEAR.write_text("5")
    before, started = resident("VmRSS:") if CLEAR.exists() else 0.0, time.process_time()
    try:
        {call}
        kind, message = "", ""
    except Exception as error:
        kind, message = type(error).__name__, str(error)
    taken = resident("VmHWM:") - before if CLEAR.exists() else 0.0
    print(json.dumps([kind, message, time.process_time() - started, taken]), flush=True)
"""


@dataclass(frozen=True)
class Reading:
    """What became of reading one file.

    Attributes:
        error: Class of the error; empty if it was read.
        message: Of the error.
        cpu_s: Processor time it took.
        peak_mb: Memory it took at its peak; 0 where the system does not tell.
    """

    error: str
    message: str
    cpu_s: float
    peak_mb: float


def readings(imports: str, call: str, paths: Sequence[Path]) -> list[Reading]:
    """Run `call`, Python text that reads the file at `path`, for each file.

    The process has 16 GB of addresses: what would fill the machine's memory ends it instead.
    """
    program = PROGRAM.format(imports=imports, call=call)
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, paths)],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (16 * 2**30, 16 * 2**30)),
    )
    found = [Reading(*json.loads(line)) for line in done.stdout.splitlines()]
    assert len(found) == len(paths), f"{paths[len(found)].name}: the process ended\n{done.stderr[-2000:]}"
    return found


def check_refused(reading: Reading, error: str) -> None:
    """Fail unless a file was refused with one line, and soon."""
    assert reading.error == error, reading
    assert "\n" not in reading.message
    assert reading.cpu_s < MAX_CPU_S, reading
    assert reading.peak_mb < MAX_MB, reading
