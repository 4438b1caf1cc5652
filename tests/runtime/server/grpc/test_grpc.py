"""The Open Inference Protocol v2 over gRPC: with Triton's client, and with its messages by hand."""

import json
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
import tritonclient.grpc as triton
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2 as protocol
from tritonclient.grpc import service_pb2_grpc
from tritonclient.utils import InferenceServerException

from sefa_runtime.errors import RunError
from sefa_runtime.server.grpc.messages import load_services
from sefa_runtime.session.session import Session
from support.paths import GOLDEN
from support.patience import PATIENCE_S
from support.serving import Door, Running, Start, image_in, infer_body, serve, some_inputs, wait_until

TINY = GOLDEN / "tiny.onnx"
MODELS = ("tiny", "tiny_float32", "style_z", "style_w", "style_w+", "style_static")
INFER = "/inference.GRPCInferenceService/ModelInfer"
Code = grpc.StatusCode


@pytest.fixture(scope="module")
def server(start: Start) -> Running:
    """A server of all small models, over HTTP and gRPC."""
    return start(*(GOLDEN / f"{name}.onnx" for name in MODELS), grpc_port=0)


@pytest.fixture(scope="module")
def client(server: Running) -> Iterator[Any]:
    """Triton's client."""
    with triton.InferenceServerClient(address(server)) as client:
        yield client


@pytest.fixture(scope="module")
def stub(server: Running) -> Iterator[Any]:
    """The calls of the service, as Triton's messages describe them."""
    with grpc.insecure_channel(address(server)) as channel:
        yield service_pb2_grpc.GRPCInferenceServiceStub(channel)


def address(server: Running) -> str:
    assert server.server.grpc is not None
    return server.server.grpc.address


def triton_inputs(arrays: dict[str, np.ndarray[Any, Any]]) -> list[Any]:
    inputs = []
    for name, array in arrays.items():
        tensor = triton.InferInput(name, list(array.shape), "INT64" if array.dtype == np.int64 else "FP32")
        tensor.set_data_from_numpy(array)
        inputs.append(tensor)
    return inputs


def typed_request(arrays: dict[str, np.ndarray[Any, Any]], model: str = "tiny", **fields: Any) -> Any:
    """A request with its numbers in `contents`."""
    request = protocol.ModelInferRequest(model_name=model, **fields)
    for name, array in arrays.items():
        whole = array.dtype == np.int64
        entry = request.inputs.add(name=name, datatype="INT64" if whole else "FP32", shape=array.shape)
        contents = entry.contents.int64_contents if whole else entry.contents.fp32_contents
        contents.extend(array.reshape(-1).tolist())
        entry.contents.SetInParent()
    return request


def refusal(call: Callable[[], Any]) -> Any:
    """The error that a call ends with."""
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(("images", "edits"), [(1, 1), (3, 2), (2, 0), (5, 3)])
def test_tritons_client_gets_the_editors_images(client: Any, model: str, images: int, edits: int) -> None:
    editor, arrays = some_inputs(model, images, edits)
    outputs = [triton.InferRequestedOutput("image")]
    result = client.infer(model, triton_inputs(arrays), outputs=outputs, request_id="mine")
    np.testing.assert_array_equal(result.as_numpy("image"), editor.run(**arrays))
    assert (result.get_response().id, result.get_response().model_version) == ("mine", "1")


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(("images", "edits"), [(1, 1), (3, 2), (2, 0)])
def test_numbers_in_contents_give_the_same_images(stub: Any, model: str, images: int, edits: int) -> None:
    editor, arrays = some_inputs(model, images, edits)
    answer = stub.ModelInfer(typed_request(arrays, model))
    (output,) = answer.outputs
    (raw,) = answer.raw_output_contents
    image = np.frombuffer(raw, {"UINT8": np.uint8, "FP32": np.float32}[output.datatype]).reshape(output.shape)
    np.testing.assert_array_equal(image, editor.run(**arrays))


def test_tritons_client_asks_about_server_and_models(client: Any) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("tiny")
    assert client.is_model_ready("tiny", "1")
    assert client.get_server_metadata().name == "sefa"
    for version in ("", "1"):
        metadata = client.get_model_metadata("style_z", version)
        assert [(entry.name, entry.datatype, list(entry.shape)) for entry in metadata.inputs] == [
            ("z", "FP32", [-1, 24]),
            ("direction", "INT64", [-1, -1]),
            ("alpha", "FP32", [-1, -1]),
            ("label", "INT64", [-1]),
            ("truncation", "FP32", [-1]),
        ]
        assert [(entry.name, entry.datatype, list(entry.shape)) for entry in metadata.outputs] == [
            ("image", "UINT8", [-1, 32, 32, 3])
        ]
    config = client.get_model_config("tiny", as_json=True)["config"]
    assert config["max_batch_size"] == 16
    assert config["input"][0] == {"name": "z", "data_type": "TYPE_FP32", "dims": ["6"]}
    assert config["instance_group"] == [{"count": 1, "kind": "KIND_CPU"}]
    assert config["dynamic_batching"] == {"max_queue_delay_microseconds": "2000"}


def test_statistics_count_what_was_asked(start_once: Start) -> None:
    server = start_once(TINY, GOLDEN / "style_z.onnx", grpc_port=0)
    with triton.InferenceServerClient(address(server)) as client:
        _, arrays = some_inputs("tiny", 3, 1)
        for _ in range(2):
            client.infer("tiny", triton_inputs(arrays))
        with pytest.raises(InferenceServerException, match="z must have shape"):
            client.infer("tiny", triton_inputs(arrays | {"z": np.zeros((3, 5), np.float32)}))
        (statistics,) = client.get_inference_statistics("tiny").model_stats
        assert (statistics.inference_count, statistics.execution_count) == (6, 2)
        assert (statistics.inference_stats.success.count, statistics.inference_stats.fail.count) == (2, 1)
        assert [(entry.batch_size, entry.compute_infer.count) for entry in statistics.batch_stats] == [(3, 2)]
        assert len(client.get_inference_statistics().model_stats) == 2
    metrics = server.http.get("/metrics").text
    assert 'sefa_requests_total{model="tiny",route="ModelInfer",status="200"} 2.0' in metrics
    assert 'sefa_requests_total{model="tiny",route="ModelInfer",status="400"} 1.0' in metrics


Z = np.zeros((1, 6), np.float32)


def z_request(**changes: Any) -> Any:
    """A request whose latent is a little different from what it should be."""
    request = typed_request({"z": Z})
    for name, value in changes.items():
        if name == "shape":
            del request.inputs[0].shape[:]
            request.inputs[0].shape.extend(value)
        elif name == "fp32":
            del request.inputs[0].contents.fp32_contents[:]
            request.inputs[0].contents.fp32_contents.extend(value)
        elif name == "raw":
            request.inputs[0].ClearField("contents")
            request.raw_input_contents.extend(value)
        elif name == "parameters":
            request.inputs[0].parameters["shared_memory_region"].string_param = value
        elif name == "output":
            request.outputs.add(name=value)
        elif name == "classification":
            request.outputs.add(name="image").parameters["classification"].int64_param = value
        elif name.startswith("model_") or name == "id":
            setattr(request, name, value)
        else:
            setattr(request.inputs[0], name, value)
    return request


EDIT = {"direction": np.array([[0]]), "alpha": np.ones((1, 1), np.float32)}


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (protocol.ModelInferRequest(model_name="tiny"), "input 'z' is missing"),
        (typed_request({"z": Z, "q": Z}), "no input 'q': the inputs are z, direction, alpha"),
        (typed_request({f"z{k}": Z for k in range(17)}), "at most 16 inputs in a request, got 17"),
        (z_request(datatype="FP64"), "input 'z' is FP32, got FP64"),
        (typed_request({"z": np.zeros((1, 6), np.int64)}), "input 'z' is FP32, got INT64"),
        (z_request(shape=[1, 5]), "6 numbers do not fill the shape [1, 5]"),
        (z_request(shape=[6, 1]), "z must have shape [batch, 6], got [6, 1]"),
        (z_request(shape=[-1, -6]), "shape must be a list of at most 8 sizes"),
        (z_request(shape=[10**12, 6]), "shape must be a list of at most 8 sizes"),
        (z_request(shape=[1] * 8 + [6]), "shape must be a list of at most 8 sizes"),
        (z_request(fp32=[float("nan")] * 6), "must be finite"),
        (z_request(fp32=[0] * 1025), "input 'z': at most 1024 numbers, got 1025"),
        (z_request(shape=[1] * 100_000), "shape must be a list of at most 8 sizes"),
        (z_request(fp32=[]), "0 numbers do not fill the shape [1, 6]"),
        (z_request(raw=[bytes(24), b""]), "raw_input_contents must be as many as inputs: 1, got 2"),
        (z_request(raw=[bytes(23)]), "23 raw bytes are not whole numbers"),
        (z_request(raw=[bytes(20)]), "5 numbers do not fill the shape [1, 6]"),
        (typed_request({"z": Z}, raw_input_contents=[bytes(24)]), "contents must not stand beside raw_input_contents"),
        (typed_request({"z": Z, "direction": np.array([[0]])}), "direction and alpha belong together"),
        (typed_request({"z": Z, **EDIT, "direction": np.array([[4]])}), "direction must be in 0..3, got 4"),
        (typed_request({"z": np.zeros((17, 6), np.float32)}), "at most 16 images in a request, got 17"),
        (z_request(output="z"), "the only output is 'image', got 'z'"),
        (z_request(classification=3), "shared memory and classification are not offered here"),
        (z_request(parameters="/etc/passwd"), "shared memory is not offered here"),
        (z_request(id="x" * 1025), "id must be a string of at most 1024 characters"),
    ],
)
def test_what_cannot_be_taken_is_refused_with_the_reason(stub: Any, request_: Any, message: str) -> None:
    error = refusal(lambda: stub.ModelInfer(request_))
    assert error.code() is Code.INVALID_ARGUMENT
    assert message in error.details()


def test_nan_is_no_image(stub: Any) -> None:
    too_large = {"z": np.full((1, 6), 3e38, np.float32), "direction": np.array([[0]])}
    request = typed_request(too_large | {"alpha": np.array([[3.0]], np.float32)})
    request.model_name = "tiny_float32"
    error = refusal(lambda: stub.ModelInfer(request))
    assert error.code() is Code.INTERNAL
    assert error.details().startswith("NaN or infinity in 1 of 1 images")


def test_an_input_given_twice_is_refused(stub: Any) -> None:
    request = typed_request({"z": Z})
    request.inputs.add().CopyFrom(request.inputs[0])
    error = refusal(lambda: stub.ModelInfer(request))
    assert (error.code(), error.details()) == (Code.INVALID_ARGUMENT, "input 'z' is given twice")


@pytest.mark.parametrize(
    "ask",
    [
        lambda stub: stub.ModelInfer(z_request(model_name="nobody")),
        lambda stub: stub.ModelInfer(z_request(model_version="2")),
        lambda stub: stub.ModelReady(protocol.ModelReadyRequest(name="nobody")),
        lambda stub: stub.ModelMetadata(protocol.ModelMetadataRequest(name="nobody")),
        lambda stub: stub.ModelConfig(protocol.ModelConfigRequest(name="nobody")),
        lambda stub: stub.ModelStatistics(protocol.ModelStatisticsRequest(name="nobody")),
    ],
)
def test_what_is_not_there_is_not_found(stub: Any, ask: Callable[[Any], Any]) -> None:
    assert refusal(lambda: ask(stub)).code() is Code.NOT_FOUND


@given(
    data=st.one_of(
        st.binary(max_size=200),
        st.tuples(st.integers(0, 60), st.binary(min_size=1, max_size=8)).map(
            lambda change: (
                (whole := typed_request({"z": Z}).SerializeToString())[: change[0]]
                + change[1]
                + whole[change[0] + len(change[1]) :]
            )
        ),
    )
)
def test_no_bytes_are_a_fault_of_ours(server: Running, data: bytes) -> None:
    with grpc.insecure_channel(address(server)) as channel:
        call = channel.unary_unary(INFER).future(data, timeout=PATIENCE_S)
        assert call.code() in (Code.OK, Code.INVALID_ARGUMENT, Code.NOT_FOUND), call.details()


def test_a_message_larger_than_the_limit_is_refused(start_once: Start) -> None:
    server = start_once(TINY, grpc_port=0, max_body_mb=0.1)
    with grpc.insecure_channel(address(server)) as channel:
        infer = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer
        assert refusal(lambda: infer(z_request(raw=[bytes(100_001)]))).code() is Code.RESOURCE_EXHAUSTED
        # Packed, it would be small.
        packed = refusal(lambda: infer(z_request(raw=[bytes(10_000_000)]), compression=grpc.Compression.Gzip))
        assert packed.code() is Code.UNIMPLEMENTED
        assert refusal(lambda: infer(z_request(raw=[bytes(99_000)]))).code() is Code.INVALID_ARGUMENT


def test_a_token_is_asked_for_where_one_is_set(start_once: Start) -> None:
    server = start_once(TINY, grpc_port=0, token="secret")
    with grpc.insecure_channel(address(server)) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        wrong: list[tuple[tuple[str, str], ...]] = [
            (),
            (("authorization", "Bearer"),),
            (("authorization", "Bearer secrets"),),
            (("authorization", "Basic secret"),),
            (("authorization", "Bearer secret"), ("authorization", "Bearer other")),
        ]
        for metadata in wrong:
            for ask in (
                lambda metadata=metadata: stub.ModelInfer(z_request(), metadata=metadata),
                lambda metadata=metadata: stub.ModelReady(protocol.ModelReadyRequest(name="tiny"), metadata=metadata),
                lambda metadata=metadata: stub.ServerMetadata(protocol.ServerMetadataRequest(), metadata=metadata),
                # What is asked for is not looked at before.
                lambda metadata=metadata: channel.unary_unary(INFER)(b"\xff", metadata=metadata),
            ):
                assert refusal(ask).code() is Code.UNAUTHENTICATED
        assert stub.ServerLive(protocol.ServerLiveRequest()).live
        assert stub.ServerReady(protocol.ServerReadyRequest()).ready
        assert health(channel) == b"\x08\x01"
    with triton.InferenceServerClient(address(server)) as client:
        headers = {"authorization": "Bearer secret"}
        assert client.infer("tiny", triton_inputs({"z": Z}), headers=headers).as_numpy("image").shape == (1, 8, 4, 3)


def health(channel: Any, service: bytes = b"") -> bytes:
    """The answer of grpc.health.v1, as bytes: field 1 is the status."""
    request = b"\x0a" + bytes([len(service)]) + service if service else b""
    answer: bytes = channel.unary_unary("/grpc.health.v1.Health/Check")(request)
    return answer


def test_the_health_service_tells_readiness(start_once: Start, door: Door) -> None:
    door.close()
    server = start_once(TINY, grpc_port=0, ready=False)
    with grpc.insecure_channel(address(server)) as channel:
        assert health(channel) == b"\x08\x02"
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        assert not stub.ServerReady(protocol.ServerReadyRequest()).ready
        assert not stub.ModelReady(protocol.ModelReadyRequest(name="tiny")).ready
        early = refusal(lambda: stub.ModelInfer(z_request()))
        assert (early.code(), early.details()) == (Code.UNAVAILABLE, "model tiny is loading")
        assert ("grpc-retry-pushback-ms", "1000") in early.trailing_metadata()
        door.open()
        wait_until(lambda: server.models.ready)
        assert health(channel) == b"\x08\x01"
        assert health(channel, b"inference.GRPCInferenceService") == b"\x08\x01"
        assert refusal(lambda: health(channel, b"other")).code() is Code.NOT_FOUND


def test_a_model_that_cannot_be_loaded_is_unavailable_for_good(start: Start, tmp_path: Path) -> None:
    server = start(TINY, f"gone={tmp_path / 'gone.onnx'}", grpc_port=0)
    with grpc.insecure_channel(address(server)) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        error = refusal(lambda: stub.ModelInfer(z_request(model_name="gone")))
        assert error.code() is Code.UNAVAILABLE
        assert ("grpc-retry-pushback-ms", "-1") in error.trailing_metadata()
        assert stub.ModelInfer(z_request()).model_name == "tiny"


@pytest.mark.parametrize("way", ["cancel", "deadline"])
def test_who_does_not_wait_any_more_leaves_the_queue(start_once: Start, door: Door, way: str) -> None:
    server = start_once(TINY, grpc_port=0, max_batch=1)
    model = server.models.get("tiny")
    with grpc.insecure_channel(address(server)) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        door.close()
        door.runs.clear()
        begun = door.begun
        running = stub.ModelInfer.future(z_request())
        wait_until(lambda: door.begun == begun + 1)

        def is_seen_or_over(call: Any) -> bool:
            return bool(model.waiting_images or call.done())

        for deadline_s in (0.2, 2.0, 20.0, PATIENCE_S):  # Until the server sees the call before it is over.
            waiting = stub.ModelInfer.future(z_request(), timeout=deadline_s if way == "deadline" else None)
            wait_until(partial(is_seen_or_over, waiting))
            if model.waiting_images or model.statistics.failures:
                break
        if way == "cancel":
            waiting.cancel()
        wait_until(lambda: model.waiting_images == 0)
        assert waiting.code() is (Code.CANCELLED if way == "cancel" else Code.DEADLINE_EXCEEDED)
        door.open()
        assert running.result(PATIENCE_S).model_name == "tiny"
    assert len(door.runs) == 1
    assert model.statistics.failures
    assert 'route="ModelInfer",status="499"}' in server.http.get("/metrics").text


def test_a_full_queue_has_a_code_of_its_own(start_once: Start, door: Door) -> None:
    server = start_once(TINY, grpc_port=0, max_batch=1, max_queue=1, timeout_s=2 * PATIENCE_S)
    model = server.models.get("tiny")
    with grpc.insecure_channel(address(server)) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        door.close()
        begun = door.begun
        asked = [stub.ModelInfer.future(z_request())]
        wait_until(lambda: door.begun == begun + 1)
        asked.append(stub.ModelInfer.future(z_request()))
        wait_until(lambda: model.waiting_images == 1)
        full = refusal(lambda: stub.ModelInfer(z_request()))
        assert (full.code(), full.details()) == (Code.RESOURCE_EXHAUSTED, "1 images are waiting: try again later")
        assert ("grpc-retry-pushback-ms", "1000") in full.trailing_metadata()
        door.open()
        assert [answer.result(PATIENCE_S).model_name for answer in asked] == ["tiny", "tiny"]


def test_a_late_answer_has_a_code_of_its_own(start_once: Start, door: Door) -> None:
    server = start_once(TINY, grpc_port=0, timeout_s=0.2)
    with grpc.insecure_channel(address(server)) as channel:
        door.close()
        late = refusal(lambda: service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(z_request()))
        assert (late.code(), late.details()) == (Code.DEADLINE_EXCEEDED, "no answer within 0.2 s")
        door.open()


def test_a_run_that_fails_is_unavailable_and_a_fault_of_ours_internal(
    start_once: Start, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    server = start_once(TINY, grpc_port=0)
    outcome: Exception = RunError("out of memory")

    def fail(self: object, feeds: object) -> Any:
        raise outcome

    with grpc.insecure_channel(address(server)) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        monkeypatch.setattr(Session, "run", fail)
        error = refusal(lambda: stub.ModelInfer(z_request()))
        assert (error.code(), error.details()) == (Code.UNAVAILABLE, "out of memory")
        outcome = ZeroDivisionError("private")
        error = refusal(lambda: stub.ModelInfer(z_request(), metadata=(("x-request-id", "abc"),)))
        assert (error.code(), error.details()) == (Code.INTERNAL, "a fault of the server; its log has it as abc")
        assert "request abc: gRPC /inference.GRPCInferenceService/ModelInfer" in caplog.text
        assert stub.ServerReady(protocol.ServerReadyRequest()).ready


def frame(kind: int, flags: int, payload: bytes = b"") -> bytes:
    """A frame of HTTP/2 on stream 0."""
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags, 0, 0, 0, 0]) + payload


def test_pings_are_answered_however_many_there_are(server: Running) -> None:
    settings, ping, goaway, acknowledged = 4, 6, 7, 1
    pings = [number.to_bytes(8, "big") for number in range(20)]
    host, _, port = address(server).rpartition(":")
    with socket.create_connection((host, int(port)), timeout=PATIENCE_S) as connection:
        stream = connection.makefile("rb")
        connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(settings, 0))
        for payload in pings:
            connection.sendall(frame(ping, 0, payload))
            kind = None
            while kind != ping:
                head = stream.read(9)
                kind, flags = head[3], head[4]
                content = stream.read(int.from_bytes(head[:3], "big"))
                assert kind != goaway, content
            assert (flags, content) == (acknowledged, payload)
        stream.close()


@pytest.mark.slow
@pytest.mark.parametrize("waits_for_an_answer", [True, False])
def test_a_client_that_pings_is_not_cut_off(start_once: Start, door: Door, waits_for_an_answer: bool) -> None:
    server = start_once(TINY, grpc_port=0)
    pinging = (
        ("grpc.keepalive_time_ms", 1000),  # The least that a client takes.
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
    )
    states: list[grpc.ChannelConnectivity] = []
    with grpc.insecure_channel(address(server), options=pinging) as channel:
        channel.subscribe(states.append)
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        assert stub.ModelInfer(z_request()).model_name == "tiny"
        door.close()
        asked = stub.ModelInfer.future(z_request()) if waits_for_an_answer else None
        time.sleep(6)  # gRPC's own servers end the connection at the third or fourth ping.
        door.open()
        answer = stub.ModelInfer(z_request()) if asked is None else asked.result(PATIENCE_S)
        assert answer.model_name == "tiny"
    assert grpc.ChannelConnectivity.IDLE not in states[states.index(grpc.ChannelConnectivity.READY) :]


def test_clients_of_both_protocols_share_runs_and_get_their_own_images(start_once: Start, door: Door) -> None:
    server = start_once(TINY, grpc_port=0, timeout_s=2 * PATIENCE_S)
    model = server.models.get("tiny")
    cases = {}
    for case in [(images, edits) for images in (1, 2) for edits in (0, 1, 3)]:
        editor, arrays = some_inputs("tiny", *case)
        cases[case] = arrays, editor.run(**arrays)

    def over_grpc(stub: Any, case: tuple[int, int]) -> None:
        arrays, expected = cases[case]
        for _ in range(20):
            (raw,) = stub.ModelInfer(typed_request(arrays)).raw_output_contents
            np.testing.assert_array_equal(np.frombuffer(raw, np.uint8).reshape(expected.shape), expected)

    def over_http(case: tuple[int, int]) -> None:
        arrays, expected = cases[case]
        with httpx.Client(base_url=f"http://{server.address}", timeout=PATIENCE_S) as http:
            for _ in range(20):
                answer = http.post("/v2/models/tiny/infer", json=infer_body(arrays))
                np.testing.assert_array_equal(image_in(answer), expected)

    door.close()  # Until all wait together.
    with grpc.insecure_channel(address(server)) as channel, ThreadPoolExecutor(12) as threads:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        asked = [threads.submit(over_grpc, stub, case) for case in cases]
        asked += [threads.submit(over_http, case) for case in cases]
        wait_until(lambda: model.active == 12 or any(asking.done() for asking in asked))
        door.open()
        for result in asked:
            result.result()
    # 18 images, of which at most 2 run before the others come.
    assert max(model.statistics.runs_by_images) > 2


def test_a_request_is_a_line_in_the_log(stub: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "sefa.access")
    _, call = stub.ModelInfer.with_call(z_request(), metadata=(("x-request-id", "mine"),))
    assert ("x-request-id", "mine") in call.trailing_metadata()
    refusal(lambda: stub.ModelInfer(z_request(datatype="FP64")))
    wait_until(lambda: len(caplog.records) == 2)
    good, bad = (json.loads(record.getMessage()) for record in caplog.records)
    assert (good["method"], good["path"], good["status"], good["client"]) == ("gRPC", INFER, 200, "127.0.0.1")
    assert (good["request_id"], good["model"], good["images"]) == ("mine", "tiny", 1)
    assert bad["status"] == 400


@pytest.mark.parametrize(
    ("trusted", "forwarded", "client"),
    [
        ("", ["203.0.113.7"], "127.0.0.1"),
        ("10.0.0.1", ["203.0.113.7"], "127.0.0.1"),
        ("127.0.0.1", [], "127.0.0.1"),
        ("127.0.0.1", ["203.0.113.7"], "203.0.113.7"),
        ("127.0.0.1, 10.0.0.0/8", ["6.6.6.6, 203.0.113.7, 10.1.1.1"], "203.0.113.7"),
    ],
)
def test_who_asked_is_what_a_trusted_proxy_says(
    start_once: Start, caplog: pytest.LogCaptureFixture, trusted: str, forwarded: list[str], client: str
) -> None:
    server = start_once(TINY, grpc_port=0, forwarded_allow_ips=trusted)
    caplog.set_level("INFO", "sefa.access")
    with grpc.insecure_channel(address(server)) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        metadata = tuple(("x-forwarded-for", value) for value in forwarded)
        stub.ServerLive(protocol.ServerLiveRequest(), metadata=metadata)
    wait_until(lambda: caplog.records)
    assert json.loads(caplog.records[0].getMessage())["client"] == client


def test_our_messages_are_those_of_the_protocol() -> None:
    theirs = protocol.DESCRIPTOR.pool
    nested = {
        "TensorMetadata": "ModelMetadataResponse.TensorMetadata",
        "InferInputTensor": "ModelInferRequest.InferInputTensor",
        "InferRequestedOutputTensor": "ModelInferRequest.InferRequestedOutputTensor",
        "InferOutputTensor": "ModelInferResponse.InferOutputTensor",
    }

    def wire(field: Any) -> tuple[Any, ...]:
        entry = field.message_type if field.message_type and field.message_type.GetOptions().map_entry else None
        values = [wire(part) for part in entry.fields] if entry else None
        return field.name, field.number, field.type, field.is_repeated, values

    service = load_services()["inference.GRPCInferenceService"]
    compared = 0
    for name, ours in service.file.message_types_by_name.items():
        published = theirs.FindMessageTypeByName(f"inference.{nested.get(name, name)}")
        for field in ours.fields:
            assert wire(field) == wire(published.fields_by_name[field.name]), (name, field.name)
            if field.enum_type:
                numbers = {value.name: value.number for value in field.enum_type.values}
                assert (
                    numbers.items()
                    <= {
                        value.name: value.number for value in published.fields_by_name[field.name].enum_type.values
                    }.items()
                )
            compared += 1
    assert compared > 60


def test_what_was_asked_is_answered_after_sigterm_and_the_exit_code_is_0() -> None:
    arguments = (TINY, "--grpc-port", "0", "--max-batch", "1")
    with serve(*arguments) as served, httpx.Client(base_url=served.url, timeout=PATIENCE_S) as http_client:
        line = served.read_line()
        assert line.startswith("and over gRPC at 127.0.0.1:"), line
        with grpc.insecure_channel(line.split()[-1]) as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            wait_until(lambda: stub.ServerReady(protocol.ServerReadyRequest()).ready)
            served.close_gate()
            asked = [stub.ModelInfer.future(z_request())]
            served.wait_for_run()
            asked += [stub.ModelInfer.future(z_request()) for _ in range(2)]
            wait_until(lambda: 'sefa_waiting_images{model="tiny"} 2.0' in http_client.get("/metrics").text)
            served.process.send_signal(signal.SIGTERM)
            wait_until(lambda: not stub.ServerReady(protocol.ServerReadyRequest()).ready)
            late = refusal(lambda: stub.ModelInfer(z_request()))
            assert (late.code(), late.details()) == (Code.UNAVAILABLE, "the server is about to stop")
            served.open_gate()
            for answer in asked:
                assert answer.result(PATIENCE_S).model_name == "tiny"
        _, errors = served.process.communicate(timeout=PATIENCE_S)
    assert served.process.returncode == 0
    assert "Traceback" not in errors


def serve_once(*arguments: str, program: str = "from sefa_cli import main; main()") -> str:
    """What `sefa serve` writes before it fails."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program, "serve", str(TINY), "--port", "0", *arguments],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 1
    return done.stderr


def test_a_port_that_is_taken_is_one_line(server: Running) -> None:
    port = address(server).rpartition(":")[2]
    last = serve_once("--grpc-port", port).splitlines()[-1]
    assert last == f"sefa: cannot listen at 127.0.0.1:{port} for gRPC: the address is taken or not ours"
    assert "grpc-port must be in 0..65535, got 65536" in serve_once("--grpc-port", "65536")


def test_what_is_not_installed_is_named() -> None:
    program = "import sys; sys.modules['grpc'] = None; from sefa_cli import main; main()"
    message = "sefa: serving needs grpc, which is not installed: install sefa with its extra 'grpc'\n"
    assert serve_once("--grpc-port", "0", program=program) == message


def test_http_alone_needs_no_grpc() -> None:
    program = "import sys, sefa_runtime.server.run; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "uvicorn" in done.stdout.split()
    assert not {"grpc", "google.protobuf"} & set(done.stdout.split())
