"""Measure reading and factorizing a 1024x1024 StyleGAN2: python benchmarks/stylegan2_1024.py [-o RECORD.json]

The checkpoints have the sizes of configuration F (30 million parameters) and random weights, in three formats. Each is
read in fresh processes, alternating. They hold only the averaged generator: files in circulation also hold other
networks, and for them peak memory is a smaller multiple of the file.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

import sefa
from records import Record, make_parser

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from support.stylegan2_files import Spec, genforce_state, nvidia_network, random_tensors, rosinality_state, write_nvidia

CONFIG_F = Spec(
    channels=(512, 512, 512, 512, 512, 256, 128, 64, 32), w_dim=512, z_dim=512, widths=(512,) * 8, clamp=256.0
)
ROUNDS = 5
# Limits for reading and factorizing.
MAX_READ_S, MAX_PEAK_OVER_FILE, MAX_FACTORIZE_S = 3.0, 3.0, 0.5


def main() -> None:
    """Measure, print, and write the record."""
    parser = make_parser(__doc__)
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)  # for the fresh processes
    arguments = parser.parse_args()
    if arguments.measure is not None:
        print(json.dumps(measure(arguments.measure)))
        return
    record = Record("reading a StyleGAN2 of configuration F for 1024x1024, and factorizing all its layers", ("torch",))
    with tempfile.TemporaryDirectory() as folder:
        files = write_checkpoints(Path(folder))
        runs: dict[str, list[dict[str, Any]]] = {name: [] for name in files}
        for _ in range(ROUNDS):
            for name, path in files.items():
                command = [sys.executable, __file__, "--measure", str(path)]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                runs[name].append(json.loads(done.stdout))
        sizes = {name: path.stat().st_size for name, path in files.items()}
    results = {name: summarize(sizes[name], of_one) for name, of_one in runs.items()}
    figures = {
        "parameters_million": round(runs["genforce .pth"][0]["parameters"] / 1e6, 1),
        "rounds": ROUNDS,
        "threads": len(os.sched_getaffinity(0)),
        "results": results,
    }
    limits = {"read_s": MAX_READ_S, "peak_over_file": MAX_PEAK_OVER_FILE, "factorize_s": MAX_FACTORIZE_S}
    problems = [
        f"{name}: {key} is {result[key]}, under {limit:g} is wanted"
        for name, result in results.items()
        for key, limit in limits.items()
        if result[key] >= limit
    ]
    record.finish(figures, arguments.output, problems)


def write_checkpoints(folder: Path) -> dict[str, Path]:
    """Write the same generator in each format; return the files by format."""
    tensors = random_tensors(CONFIG_F)
    files = {name: folder / name.replace(" ", "") for name in ("genforce .pth", "rosinality .pt", "NVlabs .pkl")}
    torch.save({"generator_smooth": genforce_state(CONFIG_F, tensors)}, files["genforce .pth"])
    rosinality = {"g_ema": rosinality_state(CONFIG_F, tensors), "latent_avg": tensors["mapping.w_avg"]}
    torch.save(rosinality, files["rosinality .pt"])
    write_nvidia(files["NVlabs .pkl"], nvidia_network(CONFIG_F, tensors))
    return files


def measure(path: Path) -> dict[str, Any]:
    """Read and factorize once, in this process."""
    sefa.factorize  # noqa: B018 - imported on first use, as is sefa.load
    load = sefa.load
    before = resident_bytes()
    started, cpu_started = time.perf_counter(), time.process_time()
    generator = load(path)
    read_s, read_cpu_s = time.perf_counter() - started, time.process_time() - cpu_started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
    started, cpu_started = time.perf_counter(), time.process_time()
    bank = sefa.factorize(generator)
    factorize_s, factorize_cpu_s = time.perf_counter() - started, time.process_time() - cpu_started
    assert bank.source.rank == generator.code_dim
    return {
        "read_s": read_s,
        "read_cpu_s": read_cpu_s,
        "peak": peak,
        "factorize_s": factorize_s,
        "factorize_cpu_s": factorize_cpu_s,
        "parameters": sum(parameter.numel() for parameter in generator.parameters()),
    }


def resident_bytes() -> int:
    """Return the memory that this process holds now; on Linux only."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def summarize(size: int, runs: list[dict[str, Any]]) -> dict[str, float]:
    """Return the median times and the largest peak; CPU times show whether the machine was busy."""
    return {
        "file_mib": round(size / 2**20, 1),
        "read_s": round(statistics.median(run["read_s"] for run in runs), 2),
        "read_cpu_s": round(statistics.median(run["read_cpu_s"] for run in runs), 2),
        "peak_over_file": round(max(run["peak"] for run in runs) / size, 2),
        "factorize_s": round(statistics.median(run["factorize_s"] for run in runs), 2),
        "factorize_cpu_s": round(statistics.median(run["factorize_cpu_s"] for run in runs), 2),
    }


if __name__ == "__main__":
    main()
