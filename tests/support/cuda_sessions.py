"""Build and run sessions of models on CUDA's provider: python cuda_sessions.py MODEL...

Runs where onnxruntime-gpu is installed and LD_LIBRARY_PATH has the libraries of cuda_stub.py; prints one JSON object.
Needs neither torch nor onnx.
"""

import ctypes
import json
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

import sefa_runtime
from sefa_runtime.inputs.examples import random_inputs
from sefa_runtime.session.binding import MAX_GRAPHS
from sefa_runtime.session.importing import import_onnxruntime
from sefa_runtime.session.providers import CUDA, complete_options, in_order

# In this order: a shape, others, and the first again. Batch and number of edits.
SHAPES = ((1, 1), (3, 1), (3, 2), (1, 1), (3, 2))


def main() -> None:
    print(json.dumps({Path(model).name: examine(Path(model)) for model in sys.argv[1:]}))


def examine(model: Path) -> dict[str, Any]:
    """Say where a model's nodes are, which options its provider took, and what its runs did."""
    plain = sefa_runtime.load(model, "cuda", binding=False)
    bound = sefa_runtime.load(model, "cuda")
    captured = sefa_runtime.load(model, "cuda", cuda_graph=True)
    tuned = sefa_runtime.load(model, "cuda", {"prefer_nhwc": 1, "use_tf32": True, "device_id": 0})
    static = plain.info.batch is not None or plain.info.num_edits is not None
    shapes = ((plain.info.batch or 1, plain.info.num_edits or 0),) * 2 if static else SHAPES
    return {
        "elsewhere": [node for editor in (plain, captured, tuned) for node in elsewhere(editor)],
        "copies": copies(model),
        "options": options_of(bound),
        "options_with_graphs": options_of(captured),
        "options_as_asked": options_of(tuned),
        "binding": [editor.session.bound is not None for editor in (plain, bound, captured)],
        "plain": [run(plain, *shape) for shape in shapes],
        "bound": [run(bound, *shape) for shape in shapes],
        "captured": [run(captured, *shape) for shape in shapes],
        "shapes": shapes,
        "many_shapes": None if static else run_many_shapes(model),
    }


def elsewhere(editor: sefa_runtime.Editor) -> list[str]:
    """List the nodes that are not on CUDA's provider."""
    return [
        f"{node.op_type} {node.name} on {part.ep_name}"
        for part in editor.session.inference.get_provider_graph_assignment_info()
        for node in part.get_nodes()
        if part.ep_name != CUDA
    ]


def copies(model: Path) -> list[str]:
    """List the copies between the host and the device that onnxruntime put into the graph."""
    ort = import_onnxruntime()
    with tempfile.TemporaryDirectory() as folder:
        options = ort.SessionOptions()
        options.log_severity_level = 4
        options.optimized_model_filepath = str(Path(folder, "optimized.onnx"))
        ort.InferenceSession(str(model), options, providers=in_order(CUDA, complete_options(CUDA, 1, {})[0]))
        contents = Path(options.optimized_model_filepath).read_bytes()
    return [match.decode() for match in re.findall(rb"Memcpy(?:From|To)Host", contents)]


def options_of(editor: sefa_runtime.Editor) -> dict[str, str]:
    """Return the options that the provider itself reports."""
    options: dict[str, str] = editor.session.inference.get_provider_options()[CUDA]
    return options


def run(editor: sefa_runtime.Editor, batch: int, edits: int) -> dict[str, Any]:
    """Run once; count what reached the device meanwhile."""
    before = counters()
    feeds = random_inputs(editor.info.signature, np.random.default_rng(0), batch, edits)
    images = editor.session.run(feeds)  # Not `editor.run`, which looks at the pixels.
    return {"image": list(images.shape), **{name: value - before[name] for name, value in counters().items()}}


def counters() -> dict[str, int]:
    """Read the counters of cuda_stub.c."""
    runtime, cudnn = (ctypes.CDLL(name) for name in ("libcudart.so.13", "libcudnn.so.9"))

    def read(library: ctypes.CDLL, name: str) -> int:
        return ctypes.c_int.in_dll(library, f"stub_{name}").value

    launches = read(runtime, "launches") + read(cudnn, "launches")
    return {"launches": launches, **{name: read(runtime, name) for name in ("captures", "replays", "refused")}}


def run_many_shapes(model: Path) -> dict[str, int]:
    """Run more shapes than get a graph."""
    editor = sefa_runtime.load(model, "cuda", cuda_graph=True)
    before = counters()["captures"]
    for edits in range(2, 2 + MAX_GRAPHS):  # Together with the warm-up, one shape too many.
        run(editor, 1, edits)
    return {"captures": counters()["captures"] - before, "limit": MAX_GRAPHS}


if __name__ == "__main__":
    main()
