"""Measure what the baked edit and the Editor cost: python benchmarks/overhead.py [-o RECORD.json]

Three comparisons on the demo's faces, a DCGAN, and letters, a StyleGAN2, at batch 1, each of two calls that alternate
run by run, in rounds with freshly built sessions:

- the edit in one session: a graph with an input that says whether to edit, as the exported graph does. If not, the
  graph takes the latent (and label) alone. Weights and buffers share the same memory, so only the edit and its inputs
  differ;
- the edit between two sessions: the exported graph against the same generator exported without directions. Where a
  session's weights happen to lie in memory changes its time by several percent, and each session finds the caches
  filled with the other's data, so this says less about the edit than about such effects;
- `Editor.run` against the bare onnxruntime call that it makes.

Exit code 1 if the first adds more than 1 % to the median, or the last more than 0.2 ms. It takes two to three minutes.
"""

import tempfile
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
from generators import make_generator
from records import Record, alternate, check_same, make_parser, rates_of, roofline_of, summary
from sefa.bank.direction_bank import DirectionBank
from sefa.generators import Generator
from sefa_export import export_onnx
from sefa_export.bake import bake, quantize
from sefa_export.onnx_graph.doubling import split_doubling
from sefa_export.onnx_graph.onnx_export import OPSET
from sefa_export.tracing import silenced
from sefa_runtime.inputs.examples import as_arguments
from sefa_runtime.latency.graph_facts import read_graph_facts
from sefa_runtime.session.session import build_session

MODELS = ("faces", "letters")
ROUNDS, WARM_UP, PAIRS = 21, 50, 300
EDIT_LIMIT_PERCENT, EDITOR_LIMIT_MS = 1.0, 0.2

Feeds = dict[str, NDArray[Any]]


class Unedited(nn.Module):
    """The generator alone: decode(encode(z, label))."""

    def __init__(self, generator: Generator) -> None:
        super().__init__()
        self.generator = generator

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        """Turn latents [batch, z_dim], and labels [batch], into images, uint8 [batch, H, W, C]."""
        return quantize(self.generator.decode(self.generator.encode(z, label)))


class Switched(nn.Module):
    """The edit graph with one more input, a boolean that says whether to edit."""

    def __init__(self, generator: Generator, bank: DirectionBank) -> None:
        super().__init__()
        self.edit_graph = bake(generator, bank)

    def forward(self, z: Tensor, direction: Tensor, alpha: Tensor, edit: Tensor, label: Tensor | None = None) -> Tensor:
        """Turn the edit graph's inputs and a switch [] into images, uint8 [batch, H, W, C]."""
        generator = self.edit_graph.generator
        codes = torch.cond(edit, self._edited, _as_they_are, (generator.encode(z, label), direction, alpha))
        return quantize(generator.decode(codes))

    def _edited(self, codes: Tensor, direction: Tensor, alpha: Tensor) -> Tensor:
        return codes + self.edit_graph.shift(codes, direction, alpha)


def _as_they_are(codes: Tensor, direction: Tensor, alpha: Tensor) -> Tensor:
    return codes.clone()


def main() -> None:
    """Measure, print, and write the record."""
    output: Path | None = make_parser(__doc__).parse_args().output
    record = Record(
        "64x64 images, batch 1, one edit, CPU; medians over the rounds of the medians of runs that alternate",
        ("torch",),
    )
    results = [measure(name) for name in MODELS]
    problems = [
        f"{result['model']}: {name} is over the limit"
        for result in results
        for name in ("edit_in_one_session", "editor")
        if not result[name]["within_limit"]
    ]
    record.finish({"rounds": ROUNDS, "pairs": PAIRS, "results": results}, output, problems)


def measure(name: str) -> dict[str, Any]:
    """Make all comparisons with one generator."""
    generator = make_generator(name)
    bank = sefa.factorize(generator)
    with tempfile.TemporaryDirectory() as folder:
        baked = export_onnx(generator, bank, Path(folder, "baked.onnx"))
        switched = export_switched(generator, bank, Path(folder, "switched.onnx"))
        alone = export_unedited(generator, Path(folder, "alone.onnx"))
        feeds = example_feeds(generator)
        results = {
            "edit_in_one_session": measure_edit_in_one_session(switched, baked, feeds),
            "edit_between_two_sessions": measure_edit_between_sessions(baked, alone, feeds),
            "editor": measure_editor(baked, feeds),
        }
        editor = sefa_runtime.load(baked, "cpu")
        reached = roofline_of(editor, 1, results["editor"]["editor_run_p50_ms"])
        return {"model": name, **results, "roofline": reached, "rates": rates_of(editor)}


def export_unedited(generator: Generator, path: Path) -> Path:
    """Export the generator as the exporter does, but without directions."""
    batch = torch.export.Dim("batch")
    inputs = {"z": torch.zeros(3, generator.z_dim)}
    if generator.num_classes:
        inputs["label"] = torch.zeros(3, dtype=torch.int64)
    return export(Unedited(generator), inputs, {name: {0: batch} for name in inputs}, path)


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
    if generator.num_classes:
        inputs["label"], shapes["label"] = torch.zeros(3, dtype=torch.int64), {0: batch}
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
    model = program.model_proto
    split_doubling(model)
    path.write_bytes(model.SerializeToString())
    return path


def measure_edit_in_one_session(switched: Path, baked: Path, feeds: Feeds) -> dict[str, Any]:
    """Time the graph with the switch on, with all inputs, against off, with latent and label alone."""
    on, off = feeds | {"edit": np.array(True)}, latents(feeds)
    rounds = []
    for _ in range(ROUNDS):
        session = build_session(switched, "cpu").inference
        rounds.append(in_turns(on=partial(session.run, None, on), off=partial(session.run, None, off)))
    exported = build_session(baked, "cpu").inference
    check_same(session.run(None, on)[0], exported.run(None, feeds)[0])
    check_same(session.run(None, off)[0], exported.run(None, unedited(feeds))[0])
    times = together(rounds)
    percent = 100 * (times["on"] / times["off"] - 1)
    return {
        **medians(times),
        **summary("added_percent", percent),
        "limit_percent": EDIT_LIMIT_PERCENT,
        "within_limit": bool(np.median(percent) <= EDIT_LIMIT_PERCENT),
    }


def measure_edit_between_sessions(baked: Path, alone: Path, feeds: Feeds) -> dict[str, Any]:
    """Time the graph with directions against the one without."""
    rounds = []
    for count in range(ROUNDS):
        # Who is built first rotates, since it finds other memory than who is built last.
        built = {path: build_session(path, "cpu").inference for path in ((baked, alone), (alone, baked))[count % 2]}
        with_edit, without = built[baked], built[alone]
        rounds.append(
            in_turns(
                with_directions=partial(with_edit.run, None, feeds),
                without=partial(without.run, None, latents(feeds)),
            )
        )
    check_same(with_edit.run(None, unedited(feeds))[0], without.run(None, latents(feeds))[0])
    times = together(rounds)
    return {
        **medians(times),
        **summary("added_percent", 100 * (times["with_directions"] / times["without"] - 1)),
        "nodes_with_directions": read_graph_facts(baked).nodes,
        "nodes_without": read_graph_facts(alone).nodes,
    }


def measure_editor(baked: Path, feeds: Feeds) -> dict[str, Any]:
    """Time `Editor.run` against the bare onnxruntime call."""
    rounds = []
    for _ in range(ROUNDS):
        editor = sefa_runtime.load(baked, "cpu")
        bare = partial(editor.session.inference.run, None, feeds)
        rounds.append(in_turns(editor_run=partial(editor.run, **as_arguments(feeds)), onnxruntime=bare))
    times = together(rounds)
    added_ms = times["editor_run"] - times["onnxruntime"]
    return {
        **medians(times),
        **summary("added_ms", added_ms),
        "limit_ms": EDITOR_LIMIT_MS,
        "within_limit": bool(np.median(added_ms) <= EDITOR_LIMIT_MS),
    }


def in_turns(**runs: Callable[[], object]) -> dict[str, float]:
    """Return the median milliseconds of two calls."""
    return {
        name: float(np.median(of_one)) for name, of_one in alternate(runs, PAIRS, warm_up=WARM_UP, pause_s=0).items()
    }


def together(rounds: list[dict[str, float]]) -> dict[str, NDArray[np.float64]]:
    """Return the medians of all rounds, by name."""
    return {name: np.array([medians[name] for medians in rounds]) for name in rounds[0]}


def medians(times: dict[str, NDArray[np.float64]]) -> dict[str, float]:
    """Return the median over the rounds of each."""
    return {f"{name}_p50_ms": round(float(np.median(of_one)), 4) for name, of_one in times.items()}


def example_feeds(generator: Generator) -> Feeds:
    """Return inputs for one latent and one edit."""
    z = sefa_runtime.latents_from_seeds([7], generator.z_dim)
    label = {"label": np.array([3])} if generator.num_classes else {}
    return {"z": z, "direction": np.array([[1]]), "alpha": np.array([[2.0]], np.float32), **label}


def latents(feeds: Feeds) -> Feeds:
    """Return the inputs without those of the edit."""
    return {name: value for name, value in feeds.items() if name not in ("direction", "alpha")}


def unedited(feeds: Feeds) -> Feeds:
    """Return the same inputs with every alpha 0."""
    return feeds | {"alpha": np.zeros_like(feeds["alpha"])}


if __name__ == "__main__":
    main()
