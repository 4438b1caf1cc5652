"""Models whose runs do not end: not ready until they come back, and in nobody else's way."""

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
from tritonclient.grpc import service_pb2 as protocol
from tritonclient.grpc import service_pb2_grpc

from sefa_runtime.editor import Editor
from sefa_runtime.inputs.batches import Feeds
from sefa_runtime.server import models
from support.paths import TINY
from support.patience import PATIENCE_S, wait_until
from support.serving import Running, Start, infer_body

strange_graphs = pytest.importorskip("support.strange_graphs", reason="its graphs are made with onnx")
LIMIT, endless = strange_graphs.LIMIT, strange_graphs.endless

GOOD = infer_body({"z": np.zeros((1, 6), np.float32)})
ENDLESS = infer_body(
    {
        "z": np.zeros((1, 6), np.float32),
        "direction": np.zeros((1, 1), np.int64),
        "alpha": np.full((1, 1), LIMIT + 1, np.float32),
    }
)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model of which some requests never end."""
    path: Path = endless(TINY, tmp_path / "endless.onnx")
    return path


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Until it is set, runs of large alphas do not end, and nothing stops them."""
    opened = threading.Event()
    infer = Editor.infer

    def hold(self: Editor, feeds: Feeds) -> Any:
        if feeds["alpha"].size and feeds["alpha"].max() > LIMIT:
            assert opened.wait(PATIENCE_S)
        return infer(self, feeds)

    monkeypatch.setattr(Editor, "infer", hold)
    yield opened
    opened.set()


def test_a_run_without_an_end_is_stopped_and_the_model_comes_back(start_once: Start, model: Path) -> None:
    server = start_once(model, timeout_s=0.5)
    late = server.http.post("/v2/models/endless/infer", json=ENDLESS)
    assert (late.status_code, late.json()["error"]) == (504, "no answer within 0.5 s")
    wait_until(lambda: server.http.get("/v2/models/endless/ready").status_code == 200)
    wait_until(lambda: answers(server, "endless"))
    assert 'sefa_failed_runs_total{model="endless"} 0.0' not in server.http.get("/metrics").text


def test_a_model_that_does_not_come_back_is_not_ready_until_it_does(start_once: Start, held: threading.Event) -> None:
    server = start_once(TINY, f"other={TINY}", timeout_s=0.5, grpc_port=0)
    assert server.http.post("/v2/models/tiny/infer", json=ENDLESS).status_code == 504
    wait_until(lambda: not server.models.get("tiny").ready)
    reason = "a run has not ended within 0.5 s"

    ready = server.http.get("/v2/models/tiny/ready")
    assert (ready.status_code, ready.json()["ready"]) == (503, False)
    assert ready.json()["error"] == f"model tiny does not answer: {reason}"
    assert server.http.get("/models").json()["models"][0] == {
        "name": "tiny",
        "state": "hanging",
        "ready": False,
        "reason": reason,
    }
    assert 'sefa_model_ready{model="tiny",state="hanging"} 0.0' in server.http.get("/metrics").text
    refused = server.http.post("/v2/models/tiny/infer", json=GOOD)
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
    assert refused.json()["error"] == f"model tiny does not answer: {reason}"
    assert server.http.get("/models/tiny/image").status_code == 503
    assert grpc_readiness(server, "tiny") == (False, True)

    # The other one is served, so that the server is ready.
    assert server.http.get("/v2/health/ready").status_code == 200
    wait_until(lambda: answers(server, "other"))

    held.set()
    wait_until(lambda: server.http.get("/v2/models/tiny/ready").status_code == 200)
    wait_until(lambda: answers(server, "tiny"))
    assert grpc_readiness(server, "tiny") == (True, True)


def test_the_server_is_not_ready_if_its_only_model_hangs(start_once: Start, held: threading.Event) -> None:
    server = start_once(TINY, timeout_s=0.5, grpc_port=0)
    assert server.http.post("/v2/models/tiny/infer", json=ENDLESS).status_code == 504
    wait_until(lambda: server.http.get("/v2/health/ready").status_code == 503)
    error = "model tiny does not answer: a run has not ended within 0.5 s"
    assert server.http.get("/v2/health/ready").json() == {"ready": False, "error": error}
    assert server.http.get("/v2/health/live").status_code == 200
    assert grpc_readiness(server, "tiny") == (False, False)


def test_another_instance_goes_on(start_once: Start, held: threading.Event) -> None:
    server = start_once(TINY, timeout_s=0.5, instances=2)
    assert server.http.post("/v2/models/tiny/infer", json=ENDLESS).status_code == 504
    wait_until(lambda: answers(server, "tiny"))
    assert server.http.get("/v2/models/tiny/ready").status_code == 200
    assert server.http.post("/v2/models/tiny/infer", json=ENDLESS).status_code == 504
    wait_until(lambda: server.http.get("/v2/models/tiny/ready").status_code == 503)


def test_a_model_whose_first_run_does_not_end_fails_and_others_are_served(
    start_once: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models, "FIRST_RUN_S", 4.0)
    always = endless(TINY, tmp_path / "always.onnx", always=True)
    server = start_once(always, TINY, timeout_s=1, ready=False)
    # The endless one, which comes first, does not keep the other from being loaded and answering.
    wait_until(lambda: server.models.get("tiny").ready)
    wait_until(lambda: answers(server, "tiny"))
    wait_until(lambda: server.http.get("/v2/health/ready").status_code == 200)
    failed = server.http.get("/v2/models/always/ready").json()["error"]
    assert failed == (
        "model always failed to load: its first run did not end within 4 s; a longer timeout-s waits longer"
    )
    wait_until(lambda: not server.models.get("always").at_work)


def answers(server: Running, name: str) -> bool:
    """Whether a model does. A run that is slow on this machine may take too long once."""
    return server.http.post(f"/v2/models/{name}/infer", json=GOOD).status_code == 200


def grpc_readiness(server: Running, name: str) -> tuple[bool, bool]:
    """Of a model, and of the server, which two calls must agree about."""
    assert server.server.grpc is not None
    with grpc.insecure_channel(server.server.grpc.address) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        model = stub.ModelReady(protocol.ModelReadyRequest(name=name)).ready
        whole = stub.ServerReady(protocol.ServerReadyRequest()).ready
        health = channel.unary_unary("/grpc.health.v1.Health/Check")(b"")
    assert health == (b"\x08\x01" if whole else b"\x08\x02")
    return model, whole


# `sefa`, but runs cannot be stopped; it says when one begins that does not end.
STUBBORN = """
import sys
import sefa_runtime.server.batching as batching, sefa_runtime.server.models as models
from sefa_runtime.editor import Editor
infer = Editor.infer

def told(self, feeds):
    if feeds["alpha"].size and feeds["alpha"].max() > 50:
        print("it runs", file=sys.stderr, flush=True)
    return infer(self, feeds)

Editor.infer = told
batching.stop_run = models.stop_run = lambda thread: None
models.FIRST_RUN_S = SECONDS
from sefa_cli import main
main()
"""


@contextmanager
def command(*arguments: str | Path, first_run_s: float = 60) -> Iterator["subprocess.Popen[str]"]:
    """`sefa serve` in a process of its own that has begun to listen."""
    program = [sys.executable, "-c", STUBBORN.replace("SECONDS", str(first_run_s)), "serve"]
    process = subprocess.Popen(
        [*program, *map(str, arguments), "--port", "0", "--provider", "cpu"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def next_line(process: "subprocess.Popen[str]") -> str:
    assert process.stderr is not None
    return process.stderr.readline()


@pytest.mark.parametrize("signals", [1, 2])
def test_a_run_without_an_end_does_not_keep_the_process(model: Path, signals: int) -> None:
    with command(model, "--timeout-s", "0.5" if signals == 1 else "300") as process:
        url = next_line(process).split()[-1]
        assert next_line(process) == "model endless is ready on cpu\n"
        connection = httpx.Client(base_url=url, timeout=PATIENCE_S)
        statuses: list[Any] = []

        def ask() -> None:
            try:
                statuses.append(connection.post("/v2/models/endless/infer", json=ENDLESS).status_code)
            except httpx.TransportError:
                statuses.append(None)

        asking = threading.Thread(target=ask)
        asking.start()
        assert next_line(process) == "it runs\n"
        process.send_signal(signal.SIGTERM)
        assert next_line(process) == "sefa stops: answering what was asked\n"
        if signals == 2:
            process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=PATIENCE_S)
        asking.join(PATIENCE_S)
        connection.close()
    assert process.returncode == 0, errors
    assert errors == ""
    assert statuses == ([504] if signals == 1 else [None])


@pytest.mark.parametrize("signals", [1, 2])
def test_nor_does_one_while_the_model_is_loaded(tmp_path: Path, signals: int) -> None:
    always = endless(TINY, tmp_path / "always.onnx", always=True)
    with command(always) as process:
        url = next_line(process).split()[-1]
        assert httpx.get(f"{url}/v2/health/ready").json()["error"] == "model always is loading"
        process.send_signal(signal.SIGTERM)
        assert next_line(process) == "sefa stops: answering what was asked\n"
        if signals == 2:
            process.send_signal(signal.SIGTERM)
        process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0


def test_it_fails_if_no_model_comes_back_from_its_first_run(tmp_path: Path) -> None:
    always = endless(TINY, tmp_path / "always.onnx", always=True)
    with command(always, "--timeout-s", "1", first_run_s=4) as process:
        _, errors = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 1
    last = errors.splitlines()[-1]
    assert last == "sefa: always: its first run did not end within 4 s; a longer timeout-s waits longer"


def test_requests_of_a_stopped_run_are_not_run_again(start_once: Start, model: Path) -> None:
    server = start_once(model, timeout_s=0.5, max_batch=2)
    statuses: list[int] = []

    def ask() -> None:
        answer = httpx.post(f"http://{server.address}/v2/models/endless/infer", content=json.dumps(ENDLESS))
        statuses.append(answer.status_code)

    asking = [threading.Thread(target=ask) for _ in range(4)]
    for thread in asking:
        thread.start()
    for thread in asking:
        thread.join(PATIENCE_S)
    assert set(statuses) <= {503, 504}  # 503: who came late, to a model that hung already.
    wait_until(lambda: answers(server, "endless"))


FORK = """
import asyncio, os, sys
from pathlib import Path
from sefa_runtime.inputs.call import Call
from sefa_runtime.server.models import HostedModel, Models
from sefa_runtime.server.settings import Settings
models = Models([HostedModel("tiny", Path(sys.argv[1]), Settings(provider="cpu", threads=1))])
asyncio.run(models.load())
if os.fork() == 0:
    (model,) = models
    print(model.state, models.ready, model.reason, flush=True)
    try:
        asyncio.run(model.infer(model.editor.prepare(Call({"z": [[0] * 6]}))))
    except Exception as error:
        print(type(error).__name__, error, flush=True)
    os._exit(0)
os.wait()
print(models.ready)
"""


def test_a_model_that_was_loaded_before_a_fork_says_so() -> None:
    done = subprocess.run(
        [sys.executable, "-c", FORK, str(TINY)], capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    reason = "it was loaded before this process was forked: load it in each process"
    assert done.stdout.splitlines() == [
        f"failed False {reason}",
        f"UnavailableError model tiny failed to load: {reason}",
        "True",
    ], done.stderr
