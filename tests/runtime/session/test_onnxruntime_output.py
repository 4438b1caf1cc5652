import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import onnxruntime
import pytest

from sefa_runtime.session.onnxruntime_output import first_error, one_line, silence

# As onnxruntime 1.24 to 1.32 wrote them to stderr, colours included.
OPENVINO = (
    "\x1b[1;31m2026-01-31 13:55:33.122009482 [E:onnxruntime:Default, provider_bridge_ort.cc:2310 Create] /onnxruntime/"
    "onnxruntime/core/providers/openvino/openvino_provider_factory.cc:141 std::string onnxruntime::openvino_ep::"
    "ParseDeviceType(std::shared_ptr<OVCore>, const onnxruntime::ProviderOptions&) [ERROR] [OpenVINO] Device GPU is "
    "not available\n\n\x1b[m\n\x1b[0;93m2026-01-31 13:55:33.122067240 [W:onnxruntime:Default, "
    "onnxruntime_pybind_state.cc:1066 CreateExecutionProviderFactoryInstance] Failed to create it.\x1b[m\n"
)
CUDA = (
    "\x1b[1;31m2026-01-31 13:55:34.048738905 [E:onnxruntime:Default, provider_bridge_ort.cc:2458 operator()] /src/"
    "provider_bridge_ort.cc:2043 onnxruntime::Provider& onnxruntime::ProviderLibrary::Get() [ONNXRuntimeError] : 1 : "
    "FAIL : Failed to load library providers_cuda.so with error: libcublasLt.so.13: cannot open shared object file: No "
    "such file or directory\n\x1b[m"
)


@pytest.mark.parametrize(
    ("written", "heard"),
    [
        (OPENVINO, "Device GPU is not available"),
        (CUDA, "libcublasLt.so.13: cannot open shared object file: No such file or directory"),
        (CUDA + OPENVINO, "libcublasLt.so.13: cannot open shared object file: No such file or directory"),
        (OPENVINO[OPENVINO.index("\x1b[0;93m") :], ""),
        ("a line of another library\n", ""),
        ("", ""),
    ],
)
def test_the_first_error_that_onnxruntime_writes(written: str, heard: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert first_error(onnxruntime, lambda: os.write(2, written.encode())) == heard
    assert capfd.readouterr() == ("", "")


def test_an_attempt_may_fail() -> None:
    def fail() -> None:
        os.write(2, OPENVINO.encode())
        raise RuntimeError

    assert first_error(onnxruntime, fail) == "Device GPU is not available"


@pytest.mark.parametrize(
    ("said", "line"),
    [
        (
            "/onnxruntime_src/onnxruntime/python/onnxruntime_pybind_state.cc:1053 std::shared_ptr<Factory> "
            "CreateExecutionProviderFactoryInstance(const onnxruntime::SessionOptions&, const std::string&) \n"
            "Invalid OpenVINO EP option: nonsense",
            "Invalid OpenVINO EP option: nonsense",
        ),
        ("[ONNXRuntimeError] : 7 : INVALID_PROTOBUF : Parsing\n failed.", "Parsing failed."),
        ("std::bad_alloc", "std::bad_alloc"),
        (MemoryError(), "MemoryError"),
        ("long " * 1000, "long " * 80),
    ],
)
def test_the_gist_on_one_line(said: Exception | str, line: str) -> None:
    assert one_line(said) == line


def test_silence_ends_where_it_ends(capfd: pytest.CaptureFixture[str]) -> None:
    print("before")
    with silence(onnxruntime):
        print("a banner of Python code")
        os.write(1, b"a banner of native code\n")
    print("after")
    assert capfd.readouterr().out == "before\nafter\n"


def test_silence_ends_after_an_error(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ZeroDivisionError), silence(onnxruntime):
        raise ZeroDivisionError
    os.write(1, b"after\n")
    assert capfd.readouterr().out == "after\n"


def test_silence_without_a_stdout(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_stream(stream: int) -> int:
        raise OSError(9, "Bad file descriptor")

    monkeypatch.setattr(os, "dup", no_stream)
    monkeypatch.setattr(sys, "stdout", None)
    with silence(onnxruntime):
        pass


def test_silences_of_two_threads_do_not_lose_the_stream(capfd: pytest.CaptureFixture[str]) -> None:
    second_is_silent, first_is_over = threading.Event(), threading.Event()

    def second() -> None:
        with silence(onnxruntime):
            second_is_silent.set()
            first_is_over.wait(30)

    with ThreadPoolExecutor(1) as pool:
        with silence(onnxruntime):
            done = pool.submit(second)
            # It must wait: otherwise it would put back, in the end, the null device that it found here.
            assert not second_is_silent.wait(0.2)
        first_is_over.set()
        done.result()
    os.write(1, b"after\n")
    assert capfd.readouterr().out == "after\n"
