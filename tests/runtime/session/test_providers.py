from pathlib import Path

import onnxruntime
import pytest

from sefa_runtime import InputError
from sefa_runtime.session.providers import (
    CPU,
    CUDA,
    OPENVINO,
    SESSION_ENTRIES,
    TENSORRT,
    complete_options,
    full_name,
    in_order,
    is_on,
    offered,
    short_name,
)


@pytest.mark.parametrize("name", ["cuda", "CUDA", "CUDAExecutionProvider", "cudaexecutionprovider"])
def test_providers_are_named_in_any_way(name: str) -> None:
    assert full_name(onnxruntime, name) == "CUDAExecutionProvider"


def test_short_names_are_lower_case() -> None:
    assert short_name("TensorrtExecutionProvider") == "tensorrt"


def test_a_web_service_is_not_offered() -> None:
    assert "cpu" in offered(onnxruntime)
    assert "azure" not in offered(onnxruntime)


def test_the_defaults_keep_the_precision_that_was_verified() -> None:
    assert complete_options(CUDA, 2, {})[0] == {"cudnn_conv_algo_search": "HEURISTIC", "use_tf32": "0"}
    assert complete_options(TENSORRT, 2, {})[0]["trt_fp16_enable"] == "0"
    assert complete_options(OPENVINO, 2, {})[0]["precision"] == "ACCURACY"


def test_openvino_takes_as_many_threads_as_the_cpu_would() -> None:
    assert complete_options(OPENVINO, 3, {})[0]["num_of_threads"] == "3"


def test_options_of_the_caller_go_over_the_defaults() -> None:
    options, _ = complete_options(CUDA, 2, {"use_tf32": True, "device_id": 1})
    assert options == {"cudnn_conv_algo_search": "HEURISTIC", "use_tf32": "1", "device_id": "1"}


def test_a_key_with_a_dot_is_an_entry_of_the_session() -> None:
    options, entries = complete_options(CPU, 2, {"session.intra_op.allow_spinning": 0})
    assert options == {}
    assert entries == SESSION_ENTRIES | {"session.intra_op.allow_spinning": "0"}


def test_an_entry_of_the_caller_goes_over_ours() -> None:
    key = next(iter(SESSION_ENTRIES))
    assert complete_options(CPU, 2, {key: 7})[1] == {key: "7"}


def test_options_of_the_cpu_are_refused_since_it_has_none() -> None:
    with pytest.raises(InputError, match=r"the provider cpu has no options.*got use_arena"):
        complete_options(CPU, 2, {"use_arena": 0})


def test_engines_are_kept_only_on_request_and_then_in_the_cache_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert "trt_engine_cache_path" not in complete_options(TENSORRT, 2, {})[0]
    kept, _ = complete_options(TENSORRT, 2, {"trt_engine_cache_enable": True})
    assert kept["trt_engine_cache_path"] == str(tmp_path / "sefa" / "tensorrt")
    elsewhere, _ = complete_options(TENSORRT, 2, {"trt_engine_cache_enable": "1", "trt_engine_cache_path": "/x"})
    assert elsewhere["trt_engine_cache_path"] == "/x"


def test_what_tensorrt_leaves_stays_on_the_same_gpu() -> None:
    (first, second, last) = in_order(TENSORRT, {"device_id": "1", "trt_fp16_enable": "0"})
    assert first == (TENSORRT, {"device_id": "1", "trt_fp16_enable": "0"})
    assert second == (CUDA, {"cudnn_conv_algo_search": "HEURISTIC", "use_tf32": "0", "device_id": "1"})
    assert last == (CPU, {})


def test_the_cpu_fills_the_gaps_of_others() -> None:
    assert in_order(CPU, {}) == [(CPU, {})]
    assert in_order(OPENVINO, {"a": "1"}) == [(OPENVINO, {"a": "1"}), (CPU, {})]


@pytest.mark.parametrize(("value", "on"), [(True, True), (1, True), ("True", True), ("0", False), (False, False)])
def test_a_yes_in_any_form(value: object, on: bool) -> None:
    assert is_on({"key": value}, "key") == on
    assert not is_on({}, "key")


def test_cuda_graphs_inside_tensorrt_are_refused() -> None:
    # They hold addresses of buffers, which are not the same in every run.
    with pytest.raises(InputError, match="CUDA graphs are for the provider cuda"):
        complete_options(TENSORRT, 2, {"trt_cuda_graph_enable": 1})
