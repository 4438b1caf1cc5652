"""A process that renders a model in one way, takes its turns on request, and measures itself.

It reads a task, then requests, one JSON object a line, and answers each with one line. What others' code prints goes to
standard error. Everything but numpy and sefa_runtime is imported where it is needed, since an environment for one
provider may have nothing else.
"""

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray

import sefa_runtime
from sefa_runtime.machine.memory import give_back_memory
from sefa_runtime.machine.packages import onnxruntime_wheels

Image = NDArray[np.uint8]
# Latents [N, z_dim] and classes [N] or None -> uint8 images [N, H, W, C].
Way = Callable[[NDArray[np.float32], NDArray[np.int64] | None], Image]
Facts = dict[str, Any]

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
RESET_PEAK = "5"  # Source: Linux, Documentation/filesystems/proc.rst.


def main() -> None:
    """Get ready, then serve requests until there are no more."""
    answers = take_standard_output()
    task = json.loads(sys.stdin.readline())
    try:
        way, facts = MAKERS[task["way"]](task)
    except Exception as error:
        answer(answers, {"error": one_line(error)})
        return
    answer(answers, facts)
    for line in sys.stdin:
        try:
            answer(answers, serve(json.loads(line), way, task))
        except Exception as error:
            answer(answers, {"error": one_line(error)})


def take_standard_output() -> TextIO:
    """Return a file for the answers; what is printed goes to standard error from now on."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return answers


def answer(answers: TextIO, facts: Facts) -> None:
    answers.write(json.dumps(facts) + "\n")
    answers.flush()


def one_line(error: Exception) -> str:
    """Return an error as one line of at most 300 characters."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]


def serve(request: Facts, way: Way, task: Facts) -> Facts:
    """Render once: keep the image in a file, or time it."""
    inputs = inputs_of(task, request["batch"])
    started = time.perf_counter_ns()
    image = way(*inputs)
    elapsed_ms = (time.perf_counter_ns() - started) / 1e6
    if "file" in request:
        np.save(request["file"], image)
        reset_peak()
    return {"ms": elapsed_ms, "peak_mib": peak_mib()}


def inputs_of(task: Facts, batch: int) -> tuple[NDArray[np.float32], NDArray[np.int64] | None]:
    """Return the latents, and the classes if the model has any; the same in every process."""
    z = sefa_runtime.latents_from_seeds(range(batch), task["z_dim"])
    return z, np.arange(batch) if task["num_classes"] else None


def reset_peak() -> None:
    """Count the peak of memory from here on, if the system can."""
    give_back_memory()
    with contextlib.suppress(OSError):
        CLEAR.write_text(RESET_PEAK)


def peak_mib() -> int | None:
    """Return the largest resident memory since `reset_peak`, in MiB; None if the system does not say."""
    try:
        lines = dict(line.split(":", 1) for line in STATUS.read_text().splitlines() if ":" in line)
        return int(lines["VmHWM"].split()[0]) // 1024
    except (OSError, KeyError):
        return None


# The ways. Each returns how it renders, and what is to be known of it.


def make(task: Facts) -> tuple[Way, Facts]:
    """Make the weights and export the model; there is nothing to render."""
    from peer_comparison.models import export

    set_threads(task)
    started = time.perf_counter()
    path, generator = export(task["model"], Path(task["folder"]), clone_of(task), task["quick"])
    facts = {
        "z_dim": generator.z_dim,
        "num_classes": generator.num_classes,
        "resolution": list(generator.resolution),
        "mib": round(path.stat().st_size / 2**20, 1),
        "seconds": round(time.perf_counter() - started, 1),
    }
    return lambda z, label: np.zeros((0, 0, 0, 0), np.uint8), facts


def load_export(task: Facts) -> tuple[Way, Facts]:
    """Load our export on a provider; one that compiles gets static shapes.

    Nothing is kept between runs, although the latents are the same.
    """
    path = Path(task["folder"], "model.onnx")
    options = {key: task[key] for key in ("provider_options", "styles_on_cpu") if key in task}
    loaded: dict[int | None, sefa_runtime.Editor] = {}

    def editor_for(batch: int) -> sefa_runtime.Editor:
        static = None if task["provider"] == "cpu" else batch
        if static not in loaded:
            loaded.clear()
            loaded[static] = sefa_runtime.load(
                path, task["provider"], threads=task["threads"], prefix_mb=0, batch=static, **options
            )
        return loaded[static]

    def run(z: NDArray[np.float32], label: NDArray[np.int64] | None) -> Image:
        return editor_for(len(z)).run(z, 1, 0.0, *([] if label is None else [label]))

    session = editor_for(1).session
    return run, {"provider": session.provider, "options": session.options, "versions": onnxruntime_wheels()}


def load_module(task: Facts) -> tuple[Way, Facts]:
    """Bake our module, as the exported graph has it; compile it if asked to."""
    import torch

    import sefa
    from peer_comparison.models import TOP, checkpoint_of
    from sefa_export import bake

    set_threads(task)
    generator = sefa.load(checkpoint_of(task["model"], Path(task["folder"])))
    graph: Any = bake(generator, sefa.factorize(generator, top=TOP)).eval()
    if task.get("compile"):
        graph = torch.compile(graph, dynamic=False)

    def run(z: NDArray[np.float32], label: NDArray[np.int64] | None) -> Image:
        edits = (np.ones((len(z), 1), np.int64), np.zeros((len(z), 1), np.float32))
        with torch.inference_mode():
            image: Image = graph(*map(torch.from_numpy, (z, *edits, *([] if label is None else [label])))).numpy()
        return image

    return run, {"versions": {"torch": version("torch")}}


def load_peer(task: Facts) -> tuple[Way, Facts]:
    """Build other people's generator."""
    import torch

    from peer_comparison import models
    from peer_comparison.networks import NOTES, PACKAGES
    from sefa_export.bake import quantize

    set_threads(task)
    clone = clone_of(task)
    network = models.load_peer(task["model"], task["peer"], Path(task["folder"]), clone, task["quick"])

    def run(z: NDArray[np.float32], label: NDArray[np.int64] | None) -> Image:
        with torch.inference_mode():
            image = network(torch.from_numpy(z), None if label is None else torch.from_numpy(label))
            return np.asarray(quantize(image))

    package = {} if clone else {name: version(name) for name in [PACKAGES[task["peer"]]]}
    note = {"note": NOTES[task["peer"]]} if task["peer"] in NOTES else {}
    return run, {"versions": {"torch": version("torch")} | package, **note}


def set_threads(task: Facts) -> None:
    import torch

    torch.set_num_threads(task["threads"])


def clone_of(task: Facts) -> Path | None:
    return Path(task["clone"]) if task.get("clone") else None


MAKERS: dict[str, Callable[[Facts], tuple[Way, Facts]]] = {
    "make": make,
    "export": load_export,
    "module": load_module,
    "peer": load_peer,
}

if __name__ == "__main__":
    main()
