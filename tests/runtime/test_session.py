from pathlib import Path

import numpy as np
import onnxruntime
import pytest

import sefa_runtime
from sefa_runtime import InputError, ProviderError
from sefa_runtime.session import build_session, full_name, short_name

FEEDS = {"x": np.ones((1, 1, 8, 8), np.float32)}
PROBE = Path(sefa_runtime.__file__).parent / "probe.onnx"


@pytest.mark.parametrize("name", ["cuda", "CUDA", "CUDAExecutionProvider", "cudaexecutionprovider"])
def test_providers_are_named_in_any_way(name: str) -> None:
    assert full_name(onnxruntime, name) == "CUDAExecutionProvider"


def test_short_names_are_lower_case() -> None:
    assert short_name("TensorrtExecutionProvider") == "tensorrt"


def test_an_unknown_provider_is_refused_with_those_there_are() -> None:
    with pytest.raises(InputError, match=r"auto or one of .*cpu.*cuda.*, got 'gpu'"):
        build_session(PROBE, FEEDS, "gpu")


def test_a_provider_that_the_wheel_lacks_is_an_error_and_no_cpu_session() -> None:
    missing = next(
        name for name in onnxruntime.get_all_providers() if name not in onnxruntime.get_available_providers()
    )
    with pytest.raises(ProviderError, match="is built without it"):
        build_session(PROBE, FEEDS, missing)


def test_cuda_without_cuda_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(ProviderError, match=r"cuda: .* pip install 'onnxruntime-gpu\[cuda,cudnn\]'"):
        build_session(PROBE, FEEDS, "cuda")


def test_auto_says_what_it_chose_and_why() -> None:
    session = build_session(PROBE, FEEDS)
    assert session.requested == "auto"
    assert session.provider in ("cpu", "cuda")
    assert "cuda" in session.reason.lower()


def test_the_cpu_asked_for_needs_no_reason() -> None:
    session = build_session(PROBE, FEEDS, "cpu", threads=1)
    assert (session.provider, session.reason, session.threads) == ("cpu", "", 1)
    assert session.load_ms > 0
    assert session.warm_up_ms is None


def test_a_provider_that_only_calls_a_web_service_is_refused() -> None:
    with pytest.raises(ProviderError, match="azure: calls a web service"):
        build_session(PROBE, FEEDS, "azure")


def test_options_reach_the_provider() -> None:
    session = build_session(PROBE, FEEDS, "cpu", {"use_arena": False})
    assert session.options == {"use_arena": "False"}


def test_options_without_a_named_provider_are_refused() -> None:
    with pytest.raises(InputError, match="name it instead of auto"):
        build_session(PROBE, FEEDS, "auto", {"device_id": 0})


def test_no_threads_are_refused() -> None:
    with pytest.raises(InputError, match=r"threads must be in 1..1024, got 0"):
        build_session(PROBE, FEEDS, "cpu", threads=0)
