"""Damages files of every kind that is read, over and over, and reads them: `make fuzz SECONDS=600`.

    PYTHONPATH=tests python tests/fuzz.py --seconds 600 -o record.json

Each file must be read, or refused with one line of an error of ours, within MAX_CPU_S and MAX_MB; nothing in it may
start a process, reach the network, import or find a class as Python's pickle does, or write. A process that dies or
hangs is noticed by its parent. What failed is kept in the folder `fuzz-failures`, with the way to read it again:

    PYTHONPATH=tests python tests/fuzz.py --again checkpoint fuzz-failures/checkpoint-17
"""

import argparse
import json
import multiprocessing
import os
import pickle
import random
import resource
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from sefa.errors import SefaError
from sefa_runtime.errors import SefaRuntimeError
from sefa_runtime.files import write_whole
from sefa_runtime.machine.description import describe_machine
from sefa_runtime.machine.packages import describe_versions
from support.damage import damaged, rezipped
from support.paths import CHECKPOINTS, GOLDEN, ROOT
from support.tuned_files import tuned_document

MAX_CPU_S = 5.0
MAX_MB = 1000
MAX_MESSAGE = 4000  # characters: some list the keys that are missing
SILENCE_S = 120  # after which a process hangs, however busy the machine
ADDRESSES = 16 * 2**30  # of a process: what would fill the memory ends there
FAILURES = Path("fuzz-failures")
# `sefa explore` keeps the model of a checkpoint in a folder of its own there, which it removes.
TEMPORARY = str(Path(tempfile.gettempdir(), "sefa-"))
FORBIDDEN = (
    "pickle.find_class",
    "os.system",
    "os.exec",
    "os.fork",
    "os.posix_spawn",
    "subprocess.Popen",
    "socket.connect",
)
WRITES = ("os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.truncate", "os.chmod", "shutil.rmtree")


def _tuned(path: Path) -> None:
    from sefa_runtime.session.tuned import choose

    choose(path, GOLDEN / "tiny.onnx")


def _checkpoint(path: Path) -> None:
    import sefa

    sefa.load(path)


def _bank(path: Path) -> None:
    from sefa.bank.direction_bank import DirectionBank

    DirectionBank.load(path)


def _directions(path: Path) -> None:
    import sefa
    from sefa.bank_files import import_bank

    import_bank(path, sefa.load(CHECKPOINTS / "rosi_convert_32" / "checkpoint.pt"))


def _model(path: Path) -> None:
    import sefa_runtime

    sefa_runtime.load(path, provider="cpu", threads=1).edit(seed=1)


def _codes(path: Path) -> None:
    from sefa_runtime.inputs.code_files import load_codes

    load_codes(path, (4, 5))


def _latents(path: Path) -> None:
    from sefa_runtime.inputs.code_files import load_latents

    load_latents(path)


def _record(path: Path) -> None:
    from sefa_runtime.latency.compare import compare_records
    from sefa_runtime.latency.record import read_record

    record = read_record(path)
    compare_records(record, record)


READERS: dict[str, Callable[[Path], None]] = {
    "checkpoint": _checkpoint,
    "bank": _bank,
    "directions": _directions,
    "model": _model,
    "codes": _codes,
    "latents": _latents,
    "record": _record,
    "tuned": _tuned,
}


def sources(folder: Path) -> list[tuple[str, bytes]]:
    """Return what is damaged: names of readers, and whole files."""
    import torch
    from safetensors.torch import save_file

    import sefa

    found = [("checkpoint", path) for path in CHECKPOINTS.glob("*/*") if path.suffix in (".pt", ".pth", ".pkl", ".bin")]
    found += [("model", path) for path in GOLDEN.glob("*.onnx")]
    found += [("record", path) for path in (ROOT / "benchmarks" / "results").glob("*latency.json")]
    (folder / "tuned.json").write_text(json.dumps(tuned_document()))
    found.append(("tuned", folder / "tuned.json"))
    state = torch.load(CHECKPOINTS / "dcgan_small_64" / "netG.pth", weights_only=True)
    save_file({key: value.contiguous() for key, value in state.items()}, folder / "netG.safetensors")
    found.append(("checkpoint", folder / "netG.safetensors"))
    sefa.factorize(sefa.load(folder / "netG.safetensors"), top=3).save(folder / "bank.safetensors")
    found.append(("bank", folder / "bank.safetensors"))
    w = np.random.default_rng(0).standard_normal((2, 4, 5), np.float32)
    np.savez(folder / "w.npz", w=w)
    np.save(folder / "w.npy", w)
    torch.save({"latents": torch.from_numpy(w)}, folder / "w.pt")
    np.save(folder / "n.npy", w[0, :1])
    images = {"a.jpg": [w[0], w[1]], "b.jpg": w[0].tolist()}
    np.save(folder / "latents.npy", np.array(images, object))
    (folder / "latents.pkl").write_bytes(pickle.dumps(images))
    torch.save(torch.from_numpy(w).bfloat16(), folder / "old.pt", _use_new_zipfile_serialization=False)
    save_file({"w": torch.from_numpy(w).half()}, folder / "w.safetensors")
    codes = ("w.npz", "w.npy", "w.pt", "latents.npy", "latents.pkl", "old.pt", "w.safetensors")
    found += [("codes", folder / name) for name in codes] + [("latents", folder / "n.npy")]
    rows = np.random.default_rng(1).standard_normal((3, 8, 28), np.float32)  # for 8 layers and codes of 28
    np.save(folder / "boundary.npy", rows[0, :1])
    torch.save({"age": torch.from_numpy(rows[0, :1]), "pose": torch.from_numpy(rows)}, folder / "named.pt")
    save_file({"x": torch.from_numpy(rows)}, folder / "rows.safetensors")
    torch.save({"comp": torch.from_numpy(rows[:, :1]), "std": torch.ones(3) * 2}, folder / "pca.pt")
    np.savez(folder / "pca.npz", lat_comp=rows[:, :1], lat_stdev=np.arange(2, 5.0), act_stdev=np.arange(2, 5.0))
    component = {"lat_comp": rows[0, :1], "lat_stdev": 2.0, "act_stdev": 2.0, "edit_start": 1, "edit_end": 4}
    (folder / "pose.pkl").write_bytes(pickle.dumps({**component, "name": "pose", "sigma_range": 3.0}))
    torch.save({"eigvec": torch.eye(28), "ckpt": "x.pt"}, folder / "factor.pt")
    directions = ("boundary.npy", "named.pt", "rows.safetensors", "pca.pt", "pca.npz", "pose.pkl", "factor.pt")
    found += [("directions", folder / name) for name in directions]
    return [(reader, path.read_bytes()) for reader, path in found]


def mutated(content: bytes, other: bytes, seed: int) -> bytes:
    """Return a damaged file: its bytes, the members of its archive, or parts of another file in it."""
    rng = random.Random(seed)
    if content.startswith(b"PK") and rng.random() < 0.6:
        return rezipped(content, seed, rng.choice([("data.pkl",), (".npy",), ("",)]))
    if rng.random() < 0.1 and other:
        at, length = rng.randrange(len(content)), rng.randrange(1, 4096)
        start = rng.randrange(len(other))
        return content[:at] + other[start : start + length] + content[at + rng.choice([0, length]) :]
    return damaged(content, seed)


class Watch:
    """Notices what a reader must not do; an audit hook cannot be removed, hence the switch."""

    def __init__(self) -> None:
        self.on = False
        self.seen: list[str] = []
        sys.addaudithook(self)

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Take an event of Python's."""
        if not self.on:
            return
        if arguments and str(arguments[0]).startswith(TEMPORARY):
            return
        writes = event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+")
        if writes or event in WRITES or event.startswith(FORBIDDEN):
            self.seen.append(f"{event} {arguments!r}"[:300])


@dataclass(frozen=True)
class Outcome:
    """What became of one file: "read", "refused", or what is wrong."""

    verdict: str
    cpu_s: float
    peak_mb: float


def _resident(name: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1e3 for line in lines if line.startswith(name))


def _descriptors() -> set[str]:
    found = set()
    for link in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # That of the folder itself is closed by now.
            found.add(f"{link.name} {link.readlink()}")
    return found


def attempt(reader: str, path: Path, watch: Watch) -> Outcome:
    """Read one file."""
    Path("/proc/self/clear_refs").write_text("5")
    before, opened, started = _resident("VmRSS:"), _descriptors(), time.process_time()
    watch.seen.clear()
    watch.on = True
    try:
        READERS[reader](path)
        verdict = "read"
    except (SefaError, SefaRuntimeError) as error:
        message = str(error)
        verdict = "refused" if "\n" not in message else f"more than one line: {message[:300]!r}"
        if len(message) > MAX_MESSAGE:
            verdict = f"a message of {len(message)} characters: {message[:300]!r}"
    except Exception as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        verdict = f"{type(error).__name__} at {Path(frame.filename).name}:{frame.lineno}: {str(error)[:200]}"
    finally:
        watch.on = False
    cpu_s, peak_mb = time.process_time() - started, _resident("VmHWM:") - before
    if watch.seen:
        verdict = f"did {watch.seen[0]}"
    elif cpu_s > MAX_CPU_S:
        verdict = f"took {cpu_s:.1f} s"
    elif peak_mb > MAX_MB:
        verdict = f"took {peak_mb:.0f} MB"
    elif left := _descriptors() - opened:
        verdict = f"left open {', '.join(sorted(left))}"
    return Outcome(verdict, cpu_s, peak_mb)


def work(pipe: Connection, seed: int) -> None:
    """Damage and read until told to stop, and tell of each file before and after."""
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESSES, ADDRESSES))
    sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115 # warnings of damaged numbers
    import torch

    torch.set_num_threads(1)
    watch = Watch()
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = sources(folder)
        path = folder / "damaged"
        readers = sorted({reader for reader, _ in files})
        for reader, content in files:  # Whole: imports what it needs, and must be read.
            path.write_bytes(content)
            outcome = attempt(reader, path, watch)
            if (
                reader != "latents"
                and outcome.verdict not in ("read", "refused")
                and not outcome.verdict.startswith("did")
            ):
                pipe.send((reader, "whole", outcome.verdict, 0.0, 0.0))
        while True:
            reader = rng.choice(readers)
            content = rng.choice([content for kind, content in files if kind == reader])
            other = rng.choice(files)[1]
            path.write_bytes(mutated(content, other, rng.randrange(2**32)))
            pipe.send((reader, str(path), None, 0.0, 0.0))
            outcome = attempt(reader, path, watch)
            pipe.send((reader, str(path), outcome.verdict, outcome.cpu_s, outcome.peak_mb))
            pipe.recv()


def fuzz(seconds: float, seed: int) -> dict[str, Any]:
    """Fuzz with one process for each core, and return the record."""
    first = seed
    counts: Counter[tuple[str, str]] = Counter()
    worst = dict.fromkeys(("cpu_s", "peak_mb"), 0.0)
    failures: list[str] = []
    started = time.monotonic()
    spawn = multiprocessing.get_context("spawn")
    processes: list[tuple[Any, Connection]] = []
    FAILURES.mkdir(exist_ok=True)

    def begin() -> None:
        nonlocal seed
        seed += 1
        ours, theirs = spawn.Pipe()
        process = spawn.Process(target=work, args=(theirs, seed), daemon=True)
        process.start()
        theirs.close()
        processes.append((process, ours))

    def keep(reader: str, path: str, verdict: str) -> None:
        kept = FAILURES / f"{reader}-{len(failures)}"
        if Path(path).exists():
            kept.write_bytes(Path(path).read_bytes())
        failures.append(f"{kept}: {verdict}")
        print(failures[-1], flush=True)

    for _ in range(os.cpu_count() or 1):
        begin()
    at_work: dict[int, tuple[str, str]] = {}
    heard = dict.fromkeys(range(len(processes)), time.monotonic())
    while time.monotonic() - started < seconds:
        for index, (process, pipe) in enumerate(processes):
            try:
                while pipe.poll(0.02):
                    reader, path, verdict, cpu_s, peak_mb = pipe.recv()
                    heard[index] = time.monotonic()
                    if verdict is None:
                        at_work[index] = reader, path
                        continue
                    worst = {"cpu_s": max(worst["cpu_s"], cpu_s), "peak_mb": max(worst["peak_mb"], peak_mb)}
                    counts[reader, verdict if verdict in ("read", "refused") else "failed"] += 1
                    if verdict not in ("read", "refused"):
                        keep(reader, path, verdict)
                    if path != "whole":
                        pipe.send("go on")
            except (EOFError, OSError):
                heard[index] = 0.0
            if heard[index] < time.monotonic() - SILENCE_S:
                reader, path = at_work.get(index, ("checkpoint", ""))
                keep(
                    reader,
                    path,
                    "the process hangs" if process.is_alive() else f"the process ended: {process.exitcode}",
                )
                counts[reader, "failed"] += 1
                process.kill()
                begin()
                processes[index] = processes.pop()
                heard[index] = time.monotonic()
    for process, _ in processes:
        process.kill()
        process.join()
    readers = {
        reader: {verdict: counts[reader, verdict] for verdict in ("read", "refused", "failed")} for reader in READERS
    }
    return {
        "what": "damaged files of every kind, read over and over, in a process for each core",
        "seed": first,
        "seconds": round(time.monotonic() - started),
        "files": sum(counts.values()),
        "readers": readers,
        "worst": {"cpu_s": round(worst["cpu_s"], 2), "peak_mb": round(worst["peak_mb"])},
        "failures": failures,
        "machine": describe_machine(),
        "versions": describe_versions(),
    }


def main() -> None:
    """Run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--again", nargs=2, metavar=("READER", "FILE"))
    options = parser.parse_args()
    if options.again:
        READERS[options.again[0]](Path(options.again[1]))
        return
    record = fuzz(options.seconds, options.seed)
    text = json.dumps(record, indent=2)
    print(text)
    if options.output:
        write_whole(options.output, f"{text}\n".encode())
    sys.exit(bool(record["failures"]))


if __name__ == "__main__":
    main()
