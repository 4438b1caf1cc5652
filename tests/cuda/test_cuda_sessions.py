"""Sessions on onnxruntime's CUDA provider, built and run on a machine without a GPU (`make check-cuda`).

CUDA's libraries are replaced by ones that compute nothing (support/cuda_stub.c). Shown is what the host decides: that
the provider takes every node of every family, with no copy to or from the CPU between them; that it gets our options;
that buffers and graphs follow the shapes, and that nothing is done while a graph is captured that a device would refuse
or a replay would miss. Not shown is that any kernel gives the right numbers, or runs at all on a given GPU; that memory
on a device suffices; and how long anything takes.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import sefa
import sefa_export
from sefa_export.onnx_graph import doubling, nearest_doubling, paired_rows
from support.cuda_stub import build_stubs
from support.paths import CHECKPOINTS, ROOT

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(sys.platform != "linux" or not shutil.which("gcc"), reason="needs Linux and gcc"),
]

# An environment with onnxruntime-gpu, and without torch and NVIDIA's libraries.
PYTHON = ROOT / ".venv-cuda" / "bin" / "python"
PROGRAM = ROOT / "tests" / "support" / "cuda_sessions.py"
SPACES = {"z": {}, "w": {"latent": "w"}, "w+": {"latent": "w+"}}
PRECISIONS = {"fp32": {}, "fp16": {"precision": "fp16"}}
EVERY_SPACE = {f"{space} {half}": SPACES[space] | PRECISIONS[half] for space in SPACES for half in PRECISIONS}
ONE_SPACE = {half: PRECISIONS[half] for half in PRECISIONS}
# Nodes that belong on the CPU, by name, and why: none.
JUSTIFIED: dict[str, str] = {}
MODELS: dict[str, tuple[str, dict[str, dict[str, Any]]]] = {
    "biggan": ("biggan_tfhub_style_32/G_ema.pth", ONE_SPACE),
    "biggan-deep": ("hf_biggan_deep_32/pytorch_model.bin", {**ONE_SPACE, "psi": {"truncation": None}}),
    "dcgan": ("dcgan_small_64/netG.pth", ONE_SPACE),
    "fastgan": ("projected_fastgan_cond_128/network-snapshot.pkl", ONE_SPACE),
    "lucidrains-stylegan2": ("lucidrains_32/model_5.pt", EVERY_SPACE),
    "pggan": ("tf_pggan_16/network.pkl", {**ONE_SPACE, "winograd": {"winograd": [16]}}),
    "sngan": ("mimicry_sagan_32/netG_1000_steps.pth", ONE_SPACE),
    "stylegan": ("tf_stylegan_32/network.pkl", EVERY_SPACE),
    "stylegan2": ("rosi_convert_32/checkpoint.pt", EVERY_SPACE),
    "stylegan2 with classes": (
        "sefa_stylegan2_cond_32/checkpoint.pth",
        {"psi": {"truncation": None}, "static": {"batch": 2, "num_edits": 1, "output_type": "float32"}},
    ),
    "stylegan3": ("nv_xl_stem_cond_16/network.pkl", EVERY_SPACE),
}

Examine = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def examine(tmp_path_factory: pytest.TempPathFactory) -> Examine:
    """Run support/cuda_sessions.py on models, in the environment that has onnxruntime-gpu."""
    if not PYTHON.exists():
        pytest.skip("`make check-cuda` makes the environment with onnxruntime-gpu")
    where = "import importlib.util; print(importlib.util.find_spec('onnxruntime').submodule_search_locations[0])"
    package = subprocess.run([PYTHON, "-c", where], capture_output=True, text=True, check=True).stdout.strip()
    libraries = tmp_path_factory.mktemp("libraries")
    build_stubs(Path(package), libraries)

    def run(*models: Path) -> dict[str, Any]:
        environment = os.environ | {"LD_LIBRARY_PATH": str(libraries), "PYTHONPATH": str(ROOT / "runtime")}
        done = subprocess.run([PYTHON, PROGRAM, *models], capture_output=True, text=True, env=environment, check=False)
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    return run


@pytest.mark.parametrize("family", MODELS)
def test_cuda_runs_every_node_and_follows_the_shapes(
    family: str, examine: Examine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The forms that real generators' wide layers have, in those of these small ones.
    monkeypatch.setattr(doubling, "LEAST_CHANNELS", 2)
    monkeypatch.setattr(nearest_doubling, "LEAST_TO_SHARE_ROWS", 2)
    monkeypatch.setattr(nearest_doubling, "LEAST_TO_SHARE_BOTH", 2)
    monkeypatch.setattr(paired_rows, "LEAST_CHANNELS", 2)
    checkpoint, exports = MODELS[family]
    generator = sefa.load(CHECKPOINTS / checkpoint)
    # Directions of some layers need a mask in the graph.
    bank = sefa.factorize(generator, layers="1" if generator.has_style_codes else "all", top=3)
    for name, options in exports.items():
        sefa_export.export_onnx(generator, bank, tmp_path / f"{name}.onnx", **options)
    found = examine(*(tmp_path / f"{name}.onnx" for name in exports))
    assert len(found) == len(exports)
    for name, facts in found.items():
        check_placement(name, facts)
        check_options(name, facts)
        check_runs(name, facts, (*generator.resolution, generator.channels))


def check_placement(name: str, facts: dict[str, Any]) -> None:
    elsewhere = [node for node in facts["elsewhere"] if node.split()[1] not in JUSTIFIED]
    assert elsewhere == [], f"{name}: not on CUDA"
    assert facts["copies"] == [], f"{name}: copies between the CPU and CUDA"


def check_options(name: str, facts: dict[str, Any]) -> None:
    ours = {"cudnn_conv_algo_search": "HEURISTIC", "use_tf32": "0", "enable_cuda_graph": "0"}
    assert ours.items() <= facts["options"].items(), name
    assert facts["options_with_graphs"] == facts["options"] | {"enable_cuda_graph": "1"}, name
    assert facts["options_as_asked"] == facts["options"] | {"prefer_nhwc": "1", "use_tf32": "1"}, name


def check_runs(name: str, facts: dict[str, Any], image: tuple[int, ...]) -> None:
    """Every run gives an image of its own shape; a graph is captured at a shape's first run and replayed afterwards."""
    assert facts["binding"] == [False, True, True], name
    new: set[tuple[int, ...]] = set()
    for index, shape in enumerate(map(tuple, facts["shapes"])):
        for way in ("plain", "bound", "captured"):
            run = facts[way][index]
            assert run["refused"] == 0, f"{name}: {way} does what a capture does not allow"
            assert (run["image"][0], set(run["image"][1:])) == (shape[0], set(image)), name
        for way in ("plain", "bound"):
            assert (facts[way][index]["captures"], facts[way][index]["replays"]) == (0, 0), name
            assert facts[way][index]["launches"] > 0, name
        run = facts["captured"][index]
        if shape in new:
            assert (run["captures"], run["replays"], run["launches"]) == (0, 1, 0), name
        elif index:  # The first shape may be that of the warm-up.
            assert run["captures"] == 1, name
        new.add(shape)
    if facts["many_shapes"]:
        assert facts["many_shapes"]["captures"] == facts["many_shapes"]["limit"] - 1, name
