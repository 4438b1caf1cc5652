"""Measure what the baked edit and the Editor cost: python benchmarks/overhead.py [-o RECORD.json]

Three comparisons on the demo's faces generator at batch 1, each of two calls that alternate run by run, in rounds with
freshly built sessions:

- the edit in one session: a graph with an input that says whether to edit, as the exported graph does. If not, the
  graph takes the latent alone. Weights and buffers share the same memory, so only the edit and its inputs differ;
- the edit between two sessions: the exported graph against the same generator exported without directions. Where a
  session's weights happen to lie in memory changes its time by several percent, and each session finds the caches
  filled with the other's data, so this says less about the edit than about such effects;
- `Editor.run` against the bare onnxruntime call that it makes.

Exit code 1 if the first adds more than 1 % to the median, or the last more than 0.2 ms.
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
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

import sefa
import sefa_runtime
from sefa.bank.direction_bank import DirectionBank
from sefa.demo import find_faces
from sefa.generators import Generator
from sefa_export import export_onnx
from sefa_export.bake import bake, quantize
from sefa_export.onnx_graph.onnx_export import OPSET
from sefa_export.tracing import silenced
from sefa_runtime.files import write_whole
from sefa_runtime.latency.graph_facts import read_graph_facts
from sefa_runtime.machine.description import describe_machine
from sefa_runtime.machine.packages import describe_versions
from sefa_runtime.session.session import build_session

ROUNDS, WARM_UP, PAIRS = 21, 50, 300
EDIT_LIMIT_PERCENT, EDITOR_LIMIT_MS = 1.0, 0.2

Feeds = dict[str, NDArray[Any]]


class Unedited(nn.Module):
    """The generator alone: decode(encode(z))."""

    def __init__(self, generator: Generator) -> None:
        super().__init__()
        self.generator = generator

    def forward(self, z: Tensor) -> Tensor:
        """Turn latents [batch, z_dim] into images, uint8 [batch, H, W, C]."""
        return quantize(self.generator.decode(self.generator.encode(z)))


class Switched(nn.Module):
    """The edit graph with one more input, a boolean that says whether to edit."""

    def __init__(self, generator: Generator, bank: DirectionBank) -> None:
        super().__init__()
        self.edit_graph = bake(generator, bank)

    def forward(self, z: Tensor, direction: Tensor, alpha: Tensor, edit: Tensor) -> Tensor:
        """Turn the edit graph's inputs and a switch [] into images, uint8 [batch, H, W, C]."""
        generator = self.edit_graph.generator
        codes = torch.cond(edit, self._edited, _as_they_are, (generator.encode(z), direction, alpha))
        return quantize(generator.decode(codes))

    def _edited(self, codes: Tensor, direction: Tensor, alpha: Tensor) -> Tensor:
        return codes + self.edit_graph.shift(codes, direction, alpha)


def _as_they_are(codes: Tensor, direction: Tensor, alpha: Tensor) -> Tensor:
    return codes.clone()


def main() -> None:
    """Measure, print, and write the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path)
    output: Path | None = parser.parse_args().output

    generator = sefa.load(find_faces())
    bank = sefa.factorize(generator)
    with tempfile.TemporaryDirectory() as folder:
        baked = export_onnx(generator, bank, Path(folder, "faces.onnx"))
        switched = export_switched(generator, bank, Path(folder, "switched.onnx"))
        alone = export_unedited(generator, Path(folder, "alone.onnx"))
        edit = measure_edit_in_one_session(switched, baked)
        between = measure_edit_between_sessions(baked, alone)
        editor = measure_editor(baked)
    record = {
        "what": "64x64 faces, batch 1, one edit, CPU; medians over the rounds of the medians of runs that alternate",
        "rounds": ROUNDS,
        "pairs": PAIRS,
        "edit_in_one_session": edit,
        "edit_between_two_sessions": between,
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
    batch = torch.export.Dim("batch")
    return export(Unedited(generator), {"z": torch.zeros(3, generator.z_dim)}, {"z": {0: batch}}, path)


def export_switched(generator: Generator, bank: DirectionBank, path: Path) -> Path:
    """Export a generator with directions so that it also takes latents alone, and then does not edit."""
    batch, edits = torch.export.Dim("batch"), torch.export.Dim("edits")
    inputs = {
        "z": torch.zeros(3, generator.z_dim),
        "direction": torch.zeros(3, 2, dtype=torch.int64),
        "alpha": torch.zeros(3, 2),
        "edit": torch.tensor(True),
    }
    shapes = {"z": {0: batch}, "direction": {0: batch, 1: edits}, "alpha": {0: batch, 1: edits}, "edit": None}
    export(Switched(generator, bank), inputs, shapes, path)
    model = onnx.load(path)
    # An input that has an initializer of the same name may be left out.
    defaults: Feeds = {
        "direction": np.zeros((1, 1), np.int64),
        "alpha": np.zeros((1, 1), np.float32),
        "edit": np.array(False),
    }
    model.graph.initializer.extend(onnx.numpy_helper.from_array(value, name) for name, value in defaults.items())
    onnx.save(model, path)
    return path


def export(module: nn.Module, inputs: dict[str, Tensor], shapes: dict[str, Any], path: Path) -> Path:
    """Export a module to ONNX, as the exporter does."""
    with silenced():
        program = torch.onnx.export(
            module.eval(),
            tuple(inputs.values()),
            dynamo=True,
            opset_version=OPSET,
            input_names=list(inputs),
            output_names=["image"],
            dynamic_shapes=shapes,
            verbose=False,
        )
    assert program is not None
    path.write_bytes(program.model_proto.SerializeToString())
    return path


def measure_edit_in_one_session(switched: Path, baked: Path) -> dict[str, Any]:
    """Time the graph with the switch on, with all inputs, against off, with the latent alone."""
    feeds = example_feeds()
    on, off = feeds | {"edit": np.array(True)}, {"z": feeds["z"]}
    medians = []
    for _ in range(ROUNDS):
        session = build_session(switched, "cpu").inference
        medians.append(alternate(partial(session.run, None, on), partial(session.run, None, off)))
    exported = build_session(baked, "cpu").inference
    check_same(session.run(None, on)[0], exported.run(None, feeds)[0])
    check_same(session.run(None, off)[0], exported.run(None, unedited(feeds))[0])
    on_ms, off_ms = np.array(medians).T
    percent = 100 * (on_ms / off_ms - 1)
    return {
        "on_p50_ms": round(float(np.median(on_ms)), 4),
        "off_p50_ms": round(float(np.median(off_ms)), 4),
        **summary("added_percent", percent),
        "limit_percent": EDIT_LIMIT_PERCENT,
        "within_limit": bool(np.median(percent) <= EDIT_LIMIT_PERCENT),
    }


def measure_edit_between_sessions(baked: Path, alone: Path) -> dict[str, Any]:
    """Time the graph with directions against the one without."""
    feeds = example_feeds()
    latent = {"z": feeds["z"]}
    medians = []
    for _ in range(ROUNDS):
        with_edit, without = (build_session(path, "cpu").inference for path in (baked, alone))
        medians.append(alternate(partial(with_edit.run, None, feeds), partial(without.run, None, latent)))
    check_same(with_edit.run(None, unedited(feeds))[0], without.run(None, latent)[0])
    with_ms, without_ms = np.array(medians).T
    return {
        "with_directions_p50_ms": round(float(np.median(with_ms)), 4),
        "without_p50_ms": round(float(np.median(without_ms)), 4),
        **summary("added_percent", 100 * (with_ms / without_ms - 1)),
        "nodes_with_directions": read_graph_facts(baked).nodes,
        "nodes_without": read_graph_facts(alone).nodes,
    }


def measure_editor(baked: Path) -> dict[str, Any]:
    """Time `Editor.run` against the bare onnxruntime call."""
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
    """Return the median and quartiles over the rounds."""
    low, middle, high = np.percentile(values, (25, 50, 75))
    return {name: round(float(middle), 3), f"{name}_quartiles": [round(float(low), 3), round(float(high), 3)]}


def example_feeds() -> Feeds:
    """Return inputs for one latent and one edit."""
    z = sefa_runtime.latents_from_seeds([7], 100)
    return {"z": z, "direction": np.array([[1]]), "alpha": np.array([[2.0]], np.float32)}


def unedited(feeds: Feeds) -> Feeds:
    """Return the same inputs with every alpha 0."""
    return feeds | {"alpha": np.zeros_like(feeds["alpha"])}


def check_same(images: NDArray[np.uint8], others: NDArray[np.uint8]) -> None:
    """Check that two calls timed against each other render the same images, to within one level."""
    difference = np.abs(images.astype(int) - others).max()
    assert difference <= 1, f"the images differ by {difference} levels"


def alternate(a: Callable[[], object], b: Callable[[], object]) -> NDArray[np.float64]:
    """Return the median milliseconds of both calls, [2]; they take turns in going first."""
    times = np.empty((WARM_UP + PAIRS, 2))
    for pair in range(len(times)):
        for side, run in ((0, a), (1, b)) if pair % 2 else ((1, b), (0, a)):
            started = time.perf_counter_ns()
            run()
            times[pair, side] = (time.perf_counter_ns() - started) / 1e6
    return np.asarray(np.median(times[WARM_UP:], axis=0))


if __name__ == "__main__":
    main()
