import json
from collections import Counter
from pathlib import Path

import onnxruntime
import pytest

from sefa_runtime import Editor, ProviderError, latents_from_seeds
from sefa_runtime.session.placement import Placement, check_convolutions


def test_a_placement_is_the_one_that_a_profile_of_a_run_shows(golden: Path, tiny: Editor, tmp_path: Path) -> None:
    options = onnxruntime.SessionOptions()
    options.enable_profiling = True
    options.profile_file_prefix = str(tmp_path / "profile")
    # Fusion would make one node of several after they were given out.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    profiled = onnxruntime.InferenceSession(golden / "tiny.onnx", options, providers=["CPUExecutionProvider"])
    feeds = {"z": latents_from_seeds([0], 6), "direction": [[0]], "alpha": [[1.0]]}
    profiled.run(None, feeds)
    events = json.loads(Path(profiled.end_profiling()).read_text())
    ran = [event["args"] for event in events if event.get("cat") == "Node" and "op_name" in event["args"]]
    convolutions = Counter(node["provider"] for node in ran if node["op_name"] in ("Conv", "ConvTranspose"))
    where = tiny.session.placement
    assert where.convolutions == {"cpu": convolutions["CPUExecutionProvider"]}
    assert where.convolutions["cpu"] > 0
    assert set(where.nodes) == {"cpu"}
    assert where.nodes["cpu"] > where.convolutions["cpu"]


def test_all_convolutions_where_they_should_be() -> None:
    check_convolutions(Placement({"cuda": 30, "cpu": 8}, {"cuda": 5}), "cuda")
    check_convolutions(Placement({"cpu": 8}, {}), "cuda")


def test_a_convolution_elsewhere_is_refused() -> None:
    where = Placement({"tensorrt": 20, "cuda": 9, "cpu": 8}, {"tensorrt": 14, "cuda": 2, "cpu": 1})
    message = "tensorrt: cannot run all convolutions of this model: of 17 it leaves 2 on cuda, 1 on cpu"
    with pytest.raises(ProviderError, match=message):
        check_convolutions(where, "tensorrt")
