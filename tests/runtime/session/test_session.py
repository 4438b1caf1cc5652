import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

import sefa_runtime
from sefa_runtime import InputError, ModelFileError, ProviderError, RunError
from sefa_runtime.session import provider_problems, session
from sefa_runtime.session.session import build_session
from support.patience import wait_until

PROBE = Path(sefa_runtime.__file__).parent / "session" / "probe.onnx"
FEEDS = {"x": np.ones((1, 1, 8, 8), np.float32)}
needs_azure = pytest.mark.skipif(
    "AzureExecutionProvider" not in onnxruntime.get_available_providers(),
    reason="needs a provider that comes up and then takes no node",
)


@pytest.fixture
def only_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make onnxruntime one that was built for the CPU alone."""
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])


def test_an_unknown_provider_is_refused_with_those_there_are() -> None:
    with pytest.raises(InputError, match=r"auto or one of .*cpu.*cuda.*, got 'gpu'"):
        build_session(PROBE, "gpu")


def test_a_provider_that_the_wheel_lacks_is_an_error_and_no_cpu_session() -> None:
    missing = next(
        name for name in onnxruntime.get_all_providers() if name not in onnxruntime.get_available_providers()
    )
    with pytest.raises(ProviderError, match="is built without it"):
        build_session(PROBE, missing)


def test_auto_says_what_it_chose_and_why() -> None:
    built = build_session(PROBE)
    assert built.requested == "auto"
    assert built.provider in ("cpu", "cuda")
    assert "cuda" in built.reason.lower()


def test_the_cpu_asked_for_needs_no_reason() -> None:
    built = build_session(PROBE, "cpu", threads=1)
    assert (built.provider, built.reason, built.threads) == ("cpu", "", 1)
    assert built.load_ms > 0
    assert built.warm_up_ms is None


def test_the_cpu_takes_another_provider_s_place_only_when_that_is_allowed(only_cpu: None) -> None:
    with pytest.raises(ProviderError):
        build_session(PROBE, "cuda", {"device_id": 0})
    built = build_session(PROBE, "cuda", {"device_id": 0}, allow_cpu_fallback=True)
    assert (built.requested, built.provider, built.options) == ("cuda", "cpu", {})
    assert built.reason.startswith("cuda: the installed onnxruntime")


def test_a_wrong_name_or_option_is_an_error_even_if_the_cpu_is_allowed() -> None:
    with pytest.raises(InputError, match="provider must be auto or one of"):
        build_session(PROBE, "gpu", allow_cpu_fallback=True)
    with pytest.raises(InputError, match="cpu has no options"):
        build_session(PROBE, "cpu", {"device_id": 0}, allow_cpu_fallback=True)


def test_a_provider_that_only_calls_a_web_service_is_refused() -> None:
    with pytest.raises(ProviderError, match="azure: calls a web service"):
        build_session(PROBE, "azure")


@needs_azure
def test_a_provider_that_leaves_convolutions_to_the_cpu_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    # This one comes up first in the list and then runs nothing at all.
    monkeypatch.setattr(session, "REMOTE", ())
    with pytest.raises(
        ProviderError, match="azure: cannot run all convolutions of this model: of 1 it leaves 1 on cpu"
    ):
        build_session(PROBE, "azure")


@needs_azure
def test_what_a_provider_s_libraries_print_stays_off_stdout(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def banner(*arguments: object) -> None:
        print("Please follow https://example.com")
        os.write(1, b"*** EP Error ***\n")

    monkeypatch.setattr(session, "REMOTE", ())
    monkeypatch.setattr(provider_problems, "preload", banner)
    with pytest.raises(ProviderError):
        build_session(PROBE, "azure")
    assert capfd.readouterr().out == ""


@needs_azure
def test_the_first_run_is_made_before_the_session_is_handed_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(session, "REMOTE", ())
    monkeypatch.setattr(session, "check_convolutions", lambda *arguments: None)
    warm = build_session(PROBE, "azure").warm_up_ms
    assert warm is not None
    assert warm > 0

    def fail(*arguments: object) -> None:
        raise RuntimeError("CUDNN_STATUS_NOT_INITIALIZED\n at line 7")

    monkeypatch.setattr(onnxruntime.InferenceSession, "run", fail)
    with pytest.raises(ProviderError, match=r"azure: loads, but the first run fails: CUDNN\S+ at line 7"):
        build_session(PROBE, "azure")


@needs_azure
def test_onnxruntime_s_own_fallback_is_off(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    create = onnxruntime.InferenceSession._create_inference_session

    def refuse(self: object, providers: list[tuple[str, object]], *rest: object) -> None:
        if providers[0][0] == "AzureExecutionProvider":
            raise RuntimeError("Invalid option: x")
        create(self, providers, *rest)  # What the fallback would come to: a session on the CPU.

    monkeypatch.setattr(session, "REMOTE", ())
    monkeypatch.setattr(onnxruntime.InferenceSession, "_create_inference_session", refuse)
    with pytest.raises(ProviderError, match="azure: onnxruntime cannot start it with x=1: Invalid option: x"):
        build_session(PROBE, "azure", {"x": 1})
    assert capfd.readouterr() == ("", "")


def test_entries_of_the_session_reach_it() -> None:
    built = build_session(PROBE, "cpu", {"session.intra_op.allow_spinning": False, "session.disable_prepacking": 1})
    options = built.inference.get_session_options()
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"
    assert options.get_session_config_entry("session.disable_prepacking") == "1"
    assert built.entries["session.intra_op.allow_spinning"] == "0"


def test_threads_are_as_many_as_asked_for() -> None:
    assert build_session(PROBE, "cpu", threads=3).inference.get_session_options().intra_op_num_threads == 3


def test_threads_are_the_cores_this_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "usable_cores", lambda: 5)
    built = build_session(PROBE, "cpu")
    assert built.threads == 5
    assert built.inference.get_session_options().intra_op_num_threads == 5


@pytest.mark.parametrize("options", [{"device_id": 0}, {"session.disable_prepacking": 1}])
def test_options_without_a_named_provider_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(InputError, match="name it instead of auto"):
        build_session(PROBE, "auto", options)


@pytest.mark.parametrize("threads", [0, -1, 1025, True, 1.0])
def test_threads_that_make_no_sense_are_refused(threads: Any) -> None:
    with pytest.raises(InputError, match=rf"threads must be in 1..1024, got {threads}"):
        build_session(PROBE, "cpu", threads=threads)


@pytest.mark.parametrize(
    ("provider", "binding", "message"),
    [
        ("auto", None, "name cuda instead of auto"),
        ("cpu", None, "need the provider cuda and IO binding"),
        ("tensorrt", None, "need the provider cuda and IO binding"),
        ("cuda", False, "need the provider cuda and IO binding"),
    ],
)
def test_cuda_graphs_without_cuda_or_binding_are_refused(provider: str, binding: bool | None, message: str) -> None:
    with pytest.raises(InputError, match=message):
        build_session(PROBE, provider, binding=binding, cuda_graph=True)


def test_cuda_graphs_may_be_asked_for_as_the_provider_s_option() -> None:
    with pytest.raises(InputError, match="need the provider cuda and IO binding"):
        build_session(PROBE, "cuda", {"enable_cuda_graph": 1}, binding=False)


@pytest.mark.parametrize("provider", ["cpu", pytest.param("azure", marks=needs_azure)])
def test_a_file_that_onnxruntime_cannot_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, provider: str) -> None:
    monkeypatch.setattr(session, "REMOTE", ())
    (tmp_path / "model.onnx").write_bytes(PROBE.read_bytes()[:-40])
    with pytest.raises(ModelFileError, match=r"model.onnx: onnxruntime cannot load it: .*"):
        build_session(tmp_path / "model.onnx", provider)


class Failing:
    """A session whose runs fail."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def run(self, names: None, feeds: object, options: object) -> None:
        raise self.error


@pytest.mark.parametrize(
    "text",
    [
        "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Non-zero status code returned while running Conv node. "
        "Name:'conv' Status Message: /onnxruntime_src/onnxruntime/core/framework/bfc_arena.cc:376 void* "
        "onnxruntime::BFCArena::AllocateRawInternal(size_t, bool)\nFailed to allocate memory for requested buffer of "
        "size 8589934592",
        "CUDA failure 2: out of memory ; GPU=0 ; hostname=x ; expr=cudaMalloc((void**)&p, size);",
        "CUDNN failure 4: CUDNN_STATUS_ALLOC_FAILED ; GPU=0",
        "std::bad_alloc",
    ],
)
def test_running_out_of_memory_is_told_in_one_line(text: str) -> None:
    built = replace(build_session(PROBE, "cpu"), inference=Failing(RuntimeError(text)), provider="cuda")
    with pytest.raises(RunError) as caught:
        built.run({"x": np.zeros((64, 1, 8, 8), np.float32)})
    assert str(caught.value).startswith("cuda: out of memory with 64 images at once (")
    assert str(caught.value).endswith("fewer at once need less")
    assert "\n" not in str(caught.value)
    assert caught.value.__cause__ is not None


def test_another_failure_of_a_run_is_told_in_one_line() -> None:
    failure = Failing(RuntimeError("CUDA failure 700: an illegal memory access\nwas encountered"))
    with pytest.raises(
        RunError, match="cpu: the run of 1 images failed: CUDA failure 700: an illegal memory access was"
    ):
        replace(build_session(PROBE, "cpu"), inference=failure).run(FEEDS)


def test_a_mistake_of_ours_flies() -> None:
    with pytest.raises(ZeroDivisionError):
        replace(build_session(PROBE, "cpu"), inference=Failing(ZeroDivisionError())).run(FEEDS)


@pytest.mark.parametrize("mistake", [AttributeError, AssertionError, TypeError])
def test_a_mistake_of_ours_while_loading_is_not_the_files(
    monkeypatch: pytest.MonkeyPatch, mistake: type[Exception]
) -> None:
    def fail(*_: object) -> None:
        raise mistake

    monkeypatch.setattr(session, "_load", fail)
    with pytest.raises(mistake):
        build_session(PROBE, "cpu")


@pytest.mark.parametrize("binding", [False, True])
def test_a_run_is_stopped_from_another_thread(golden: Path, tmp_path: Path, binding: bool) -> None:
    strange_graphs = pytest.importorskip("support.strange_graphs", reason="its graphs are made with onnx")
    model = strange_graphs.endless(golden / "tiny.onnx", tmp_path / "endless.onnx")
    built = build_session(model, "cpu", binding=binding)
    feeds: dict[str, Any] = {"z": np.zeros((1, 6), np.float32), "direction": np.zeros((1, 1), np.int64)}
    good = feeds | {"alpha": np.ones((1, 1), np.float32)}
    expected = built.run(good)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(built.run, feeds | {"alpha": np.full((1, 1), strange_graphs.LIMIT + 1, np.float32)})
        wait_until(lambda: session._runs)
        while not running.done():  # It may have been about to begin.
            for thread in tuple(session._runs):
                session.stop_run(thread)
        with pytest.raises(RunError, match="terminate"):
            running.result()
    np.testing.assert_array_equal(built.run(good), expected)


def test_sizes_that_the_graph_does_not_take_are_an_input_error() -> None:
    with pytest.raises(InputError, match="exported for inputs of other sizes"):
        build_session(PROBE, "cpu").run({"x": np.ones((2, 1, 8, 8), np.float32)})


def test_memory_that_really_runs_out(golden: Path) -> None:
    # In a process of its own that may not grow by more than 64 MB once the model is loaded.
    program = """
import resource, sys
from pathlib import Path
import numpy as np
from sefa_runtime import RunError
from sefa_runtime.session.session import build_session
session = build_session(Path(sys.argv[1]), "cpu", threads=1)
batch = 1_000_000
feeds = {"z": np.zeros((batch, 6), np.float32), "direction": np.zeros((batch, 1), np.int64)}
feeds["alpha"] = np.zeros((batch, 1), np.float32)
size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + (64 << 20), resource.RLIM_INFINITY))
try:
    session.run(feeds)
except RunError as error:
    print(error)
"""
    command = [sys.executable, "-c", program, str(golden / "tiny.onnx")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout.startswith("cpu: out of memory with 1000000 images at once ("), done.stderr
    assert done.stdout.count("\n") == 1
