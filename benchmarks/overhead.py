"""What the baked edit and the Editor cost: python benchmarks/overhead.py [-o RECORD.json]

On the faces generator of the demo, at batch 1, two comparisons, each of two calls that alternate run by run, in rounds
with freshly built sessions, since where a session's weights happen to lie in memory changes its time by a percent:

- the exported graph with its directions against the same generator exported without them, both called bare;
- `Editor.run` against the bare onnxruntime call that it makes.

Exit code 1 if the first adds more than 1 % to the median, or the second more than 0.2 ms.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import sefa
import sefa_runtime
from sefa.demo import find_faces
from sefa.generators import Generator
from sefa_export import export_onnx
from sefa_export.bake import quantize
from sefa_export.onnx_export import OPSET
from sefa_export.tracing import silenced
from sefa_runtime.files import write_whole
from sefa_runtime.latency.graph import read_graph_facts
from sefa_runtime.machine import describe_machine, describe_versions
from sefa_runtime.session import build_session

ROUNDS, WARM_UP, PAIRS = 21, 50, 300
EDIT_LIMIT_PERCENT, EDITOR_LIMIT_MS = 1.0, 0.2

Feeds = dict[str, NDArray[Any]]


class Unedited(torch.nn.Module):
    """The generator alone: decode(encode(z))."""

    def __init__(self, generator: Generator) -> None:
        super().__init__()
        self.generator = generator

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        """Latents [batch, z_dim] to images, uint8 [batch, H, W, C]."""
        return quantize(self.generator.decode(self.generator.encode(z)))


def main() -> None:
    """Measure, print, and write the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path)
    output: Path | None = parser.parse_args().output

    generator = sefa.load(find_faces())
    with tempfile.TemporaryDirectory() as folder:
        baked = export_onnx(generator, sefa.factorize(generator), Path(folder, "faces.onnx"))
        alone = export_unedited(generator, Path(folder, "alone.onnx"))
        edit = measure_edit(baked, alone)
        editor = measure_editor(baked)
    record = {
        "what": "64x64 faces, batch 1, one edit, CPU; medians over the rounds of the medians of runs that alternate",
        "rounds": ROUNDS,
        "pairs": PAIRS,
        "baked_edit": edit,
        "editor": editor,
        "machine": describe_machine(),
        "versions": describe_versions() | {"torch": str(torch.__version__)},
    }
    print(json.dumps(record, indent=2))
    if output is not None:
        write_whole(output, (json.dumps(record, indent=2) + "\n").encode())
    sys.exit(not (edit["within_limit"] and editor["within_limit"]))


def export_unedited(generator: Generator, path: Path) -> Path:
    """Export the generator as the exporter does, but without directions."""
    with silenced():
        program = torch.onnx.export(
            Unedited(generator).eval(),
            (torch.zeros(3, generator.z_dim),),
            dynamo=True,
            opset_version=OPSET,
            input_names=["z"],
            output_names=["image"],
            dynamic_shapes={"z": {0: torch.export.Dim("batch")}},
            verbose=False,
        )
    assert program is not None
    path.write_bytes(program.model_proto.SerializeToString())
    return path


def measure_edit(baked: Path, alone: Path) -> dict[str, Any]:
    """The graph with directions against the one without."""
    feeds = example_feeds()
    latent = {"z": feeds["z"]}
    medians = []
    for _ in range(ROUNDS):
        with_edit, without = (build_session(path, "cpu").inference for path in (baked, alone))
        medians.append(alternate(partial(with_edit.run, None, feeds), partial(without.run, None, latent)))
    unedited = feeds | {"alpha": np.zeros_like(feeds["alpha"])}
    difference = np.abs(with_edit.run(None, unedited)[0].astype(int) - without.run(None, latent)[0]).max()
    assert difference <= 1, f"the pictures differ by {difference} levels"
    with_ms, without_ms = np.array(medians).T
    percent = 100 * (with_ms / without_ms - 1)
    return {
        "with_directions_p50_ms": round(float(np.median(with_ms)), 4),
        "without_p50_ms": round(float(np.median(without_ms)), 4),
        **summary("added_percent", percent),
        "limit_percent": EDIT_LIMIT_PERCENT,
        "within_limit": bool(np.median(percent) <= EDIT_LIMIT_PERCENT),
        "nodes_with_directions": read_graph_facts(baked).nodes,
        "nodes_without": read_graph_facts(alone).nodes,
    }


def measure_editor(baked: Path) -> dict[str, Any]:
    """`Editor.run` against the bare call."""
    feeds = example_feeds()
    medians = []
    for _ in range(ROUNDS):
        editor = sefa_runtime.load(baked, "cpu")
        medians.append(alternate(partial(editor.run, **feeds), partial(editor.session.inference.run, None, feeds)))
    editor_ms, bare_ms = np.array(medians).T
    added_ms = editor_ms - bare_ms
    return {
        "editor_run_p50_ms": round(float(np.median(editor_ms)), 4),
        "onnxruntime_p50_ms": round(float(np.median(bare_ms)), 4),
        **summary("added_ms", added_ms),
        "limit_ms": EDITOR_LIMIT_MS,
        "within_limit": bool(np.median(added_ms) <= EDITOR_LIMIT_MS),
    }


def summary(name: str, values: NDArray[np.float64]) -> dict[str, Any]:
    """Median and quartiles over the rounds."""
    low, middle, high = np.percentile(values, (25, 50, 75))
    return {name: round(float(middle), 3), f"{name}_quartiles": [round(float(low), 3), round(float(high), 3)]}


def example_feeds() -> Feeds:
    """One latent, one edit."""
    z = sefa_runtime.latents_from_seeds([7], 100)
    return {"z": z, "direction": np.array([[1]]), "alpha": np.array([[2.0]], np.float32)}


def alternate(a: Callable[[], object], b: Callable[[], object]) -> NDArray[np.float64]:
    """Median milliseconds of either, [2]; which one goes first changes from pair to pair."""
    times = np.empty((WARM_UP + PAIRS, 2))
    for pair in range(len(times)):
        for side, run in ((0, a), (1, b)) if pair % 2 else ((1, b), (0, a)):
            started = time.perf_counter_ns()
            run()
            times[pair, side] = (time.perf_counter_ns() - started) / 1e6
    return np.asarray(np.median(times[WARM_UP:], axis=0))


if __name__ == "__main__":
    main()
