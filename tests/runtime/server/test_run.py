"""The process: models that do not load, the end by SIGTERM, as subprocesses of `sefa serve`."""

import http.client
import json
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

import sefa_runtime.editor
from sefa_runtime.editor import Editor
from sefa_runtime.inputs.batches import Feeds
from sefa_runtime.inputs.call import Call
from sefa_runtime.instances import load_instances
from sefa_runtime.server import models
from sefa_runtime.server.models import State, parse_model
from support.paths import GOLDEN
from support.patience import PATIENCE_S
from support.serving import Door, Start, image_in, infer_body, serve, wait_until

TINY = GOLDEN / "tiny.onnx"
BODY = infer_body({"z": np.zeros((1, 6), np.float32)})


def test_what_was_asked_is_answered_after_sigterm_and_the_exit_code_is_0() -> None:
    with serve(TINY, "--max-batch", "1") as served, httpx.Client(base_url=served.url, timeout=PATIENCE_S) as client:
        wait_until(lambda: client.get("/v2/health/ready").status_code == 200)
        served.close_gate()
        infer = f"{served.url}/v2/models/tiny/infer"
        with ThreadPoolExecutor(3) as clients:
            asked = [clients.submit(httpx.post, infer, json=BODY, timeout=PATIENCE_S)]
            served.wait_for_run()
            asked += [clients.submit(httpx.post, infer, json=BODY, timeout=PATIENCE_S) for _ in range(2)]
            wait_until(lambda: 'sefa_waiting_images{model="tiny"} 2.0' in client.get("/metrics").text)
            served.process.send_signal(signal.SIGTERM)
            wait_until(lambda: client.get("/v2/health/ready").status_code == 503)
            assert client.get("/v2/health/ready").json() == {"ready": False, "error": "the server is about to stop"}
            assert client.get("/v2/health/live").json() == {"live": True}
            late = client.post("/v2/models/tiny/infer", json=BODY)
            assert (late.status_code, late.headers["retry-after"]) == (503, "1")
            served.open_gate()
        assert [answer.result().status_code for answer in asked] == [200, 200, 200]
        out, err = served.process.communicate(timeout=PATIENCE_S)
    assert served.process.returncode == 0
    assert "Traceback" not in err
    lines = [json.loads(line) for line in out.splitlines()]
    assert [line["status"] for line in lines if line["path"].endswith("infer")] == [503, 200, 200, 200]


def test_it_ends_though_nobody_reads_its_words() -> None:
    with serve(TINY) as served, httpx.Client(base_url=served.url, timeout=PATIENCE_S) as client:
        wait_until(lambda: client.get("/v2/health/ready").status_code == 200)
        assert served.process.stderr is not None
        served.process.stderr.close()
        served.process.send_signal(signal.SIGTERM)
        assert served.process.wait(PATIENCE_S) == 0


def test_a_second_signal_ends_it_at_once() -> None:
    limits = ("--timeout-s", "86400", "--max-batch", "1")
    with (
        serve(TINY, *limits) as served,
        httpx.Client(base_url=served.url, timeout=PATIENCE_S) as client,
        ExitStack() as asked,
    ):
        wait_until(lambda: client.get("/v2/health/ready").status_code == 200)
        served.close_gate()
        for _ in range(2):  # One runs, one waits.
            connection = asked.enter_context(closing(http.client.HTTPConnection(served.url.removeprefix("http://"))))
            connection.request("POST", "/v2/models/tiny/infer", json.dumps(BODY), {"Content-Type": "application/json"})
            served.wait_for_run()
        wait_until(lambda: 'sefa_waiting_images{model="tiny"} 1.0' in client.get("/metrics").text)
        served.process.send_signal(signal.SIGTERM)
        wait_until(lambda: client.get("/v2/health/ready").status_code == 503)
        served.process.send_signal(signal.SIGTERM)
        served.process.communicate(timeout=PATIENCE_S)
    assert served.process.returncode == 0


def test_it_answers_while_models_are_loaded() -> None:
    with (
        serve(TINY, gate_open=False) as served,
        httpx.Client(base_url=served.url, timeout=PATIENCE_S) as client,
    ):
        ready = client.get("/v2/health/ready")
        assert (ready.status_code, ready.json()["error"]) == (503, "model tiny is loading")
        assert client.get("/v2/health/live").status_code == 200
        assert client.get("/v2/models/tiny/ready").status_code == 503
        assert client.get("/models").json()["models"][0]["state"] == "loading"
        early = client.post("/v2/models/tiny/infer", json=BODY)
        assert (early.status_code, early.headers["retry-after"]) == (503, "1")
        assert client.get("/models/tiny").status_code == 503
        assert client.get("/openapi.json").status_code == 200
        served.open_gate()
        wait_until(lambda: client.get("/v2/health/ready").status_code == 200)
        served.process.send_signal(signal.SIGINT)
        served.process.communicate(timeout=PATIENCE_S)
    assert served.process.returncode == 0


def test_sigterm_while_models_are_loaded() -> None:
    with serve(TINY, gate_open=False) as served:
        served.process.send_signal(signal.SIGTERM)
        served.open_gate()
        _, err = served.process.communicate(timeout=PATIENCE_S)
    assert served.process.returncode == 0
    assert "Traceback" not in err


def test_a_fault_while_loading_is_the_models_own(
    start_once: Start, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    load = load_instances

    def failing(path: Path, *arguments: object, **options: object) -> object:
        if path.stem == "style_w":
            raise ZeroDivisionError
        return load(path, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(models, "load_instances", failing)
    server = start_once(GOLDEN / "style_w.onnx", TINY)
    assert (
        server.http.get("/v2/models/style_w/ready").json()["error"].endswith("a fault of the server; its log has more")
    )
    assert server.http.get("/v2/models/tiny/ready").status_code == 200
    assert "ZeroDivisionError" in caplog.text


@pytest.mark.parametrize(("threads", "sessions"), [(1, 1), (2, 2)])
def test_instances_draw_at_the_same_time_what_the_editor_draws(
    start_once: Start, monkeypatch: pytest.MonkeyPatch, threads: int, sessions: int
) -> None:
    infer = Editor.infer
    meeting = threading.Barrier(2, timeout=PATIENCE_S)
    used = set()

    def infer_together(editor: Editor, feeds: Feeds) -> NDArray[Any]:
        if len(feeds["direction"]) == 2:
            meeting.wait()
            used.add(id(editor.session))
        return infer(editor, feeds)

    monkeypatch.setattr(Editor, "infer", infer_together)
    server = start_once(TINY, instances=2, threads=threads, max_batch=2)
    bodies = [{"z": np.full((2, 6), value, np.float32)} for value in (0.5, -1)]
    with ThreadPoolExecutor(2) as clients:
        answers = list(
            clients.map(lambda body: server.http.post("/v2/models/tiny/infer", json=infer_body(body)), bodies)
        )
    editor = sefa_runtime.load(TINY, "cpu")
    for answer, body in zip(answers, bodies, strict=True):
        np.testing.assert_array_equal(image_in(answer), infer(editor, editor.prepare(Call(body))))
    assert len(used) == sessions
    assert server.http.get("/v2/models/tiny/config").json()["instance_group"] == [{"count": 2, "kind": "KIND_CPU"}]


def test_a_fault_of_ours_is_a_500_with_the_requests_id(
    start_once: Start, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    server = start_once(TINY)
    monkeypatch.setattr(server.models.get("tiny"), "settings", None)
    answer = server.http.post("/v2/models/tiny/infer", json=BODY, headers={"X-Request-ID": "abc"})
    assert (answer.status_code, answer.json()) == (500, {"error": "a fault of the server; its log has it as abc"})
    assert answer.headers["x-request-id"] == "abc"
    assert "request abc: POST /v2/models/tiny/infer" in caplog.text
    assert server.http.get("/v2/health/ready").status_code == 200


def test_a_bad_model_does_not_take_the_good_one_down(start: Start, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.onnx"
    damaged.write_bytes(TINY.read_bytes()[:-3000])
    server = start(TINY, damaged, f"gone={tmp_path / 'gone.onnx'}")
    assert server.http.get("/v2/health/ready").json() == {"ready": True}
    assert server.http.post("/v2/models/tiny/infer", json=BODY).status_code == 200
    for name in ("damaged", "gone"):
        answer = server.http.get(f"/v2/models/{name}/ready")
        assert (answer.status_code, answer.json()["ready"]) == (503, False)
        assert answer.json()["error"].startswith(f"model {name} failed to load: ")
        assert str(tmp_path) not in answer.text
        refused = server.http.post(f"/v2/models/{name}/infer", json=BODY)
        assert refused.status_code == 503
        assert "retry-after" not in refused.headers
        assert server.http.get(f"/models/{name}/image").status_code == 503
    assert [model.state for model in server.models] == [State.READY, State.FAILED, State.FAILED]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([GOLDEN / "README.md"], "sefa: README: "),
        ([GOLDEN / "gone.onnx"], "sefa: gone: "),
        ([TINY, TINY], "are both called tiny: give one as NAME=PATH"),
        ([f"a b={TINY}"], "a model's name has letters of ASCII, digits"),
        ([f"stats={TINY}"], "a model's name has letters of ASCII, digits"),
        ([TINY, "--max-batch", "0"], "max-batch must be in 1..4096, got 0"),
        ([TINY, "--timeout-s", "nan"], "timeout-s must be in"),
        ([TINY, "--host", "256.0.0.1"], "cannot listen at 256.0.0.1: "),
        ([TINY, "--token-file", GOLDEN / "gone"], "gone: "),
        ([TINY, "--provider", "nonsense"], "provider must be auto or one of"),
    ],
)
def test_what_cannot_be_served_is_one_line(arguments: list[str | Path], message: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "sefa_cli", "serve", *map(str, arguments), "--port", "0"],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("sefa: ")
    assert message in last
    assert "Traceback" not in done.stderr


def test_the_runtime_and_the_command_line_import_nothing_of_the_server() -> None:
    program = "import sys, sefa_runtime.editor, sefa_cli; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not {"fastapi", "starlette", "uvicorn", "prometheus_client", "pydantic"} & set(done.stdout.split())


def test_what_is_not_installed_is_named() -> None:
    program = "import sys; sys.modules['uvicorn'] = None; from sefa_cli import main; main()"
    command = [sys.executable, "-c", program, "serve", str(TINY)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "sefa: serving needs uvicorn, which is not installed: install sefa with its extra 'serve'\n"


def test_an_address_that_is_taken_is_one_line(start: Start) -> None:
    server = start(TINY)
    done = subprocess.run(
        [sys.executable, "-m", "sefa_cli", "serve", str(TINY), "--port", str(server.port)],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"sefa: cannot listen at 127.0.0.1 port {server.port}: Address already in use\n"


def test_generating_in_parts_is_finished_before_the_end(start_once: Start, door: Door) -> None:
    server = start_once(TINY, max_batch=2)
    door.close()
    statuses: list[int] = []
    body = {"seeds": list(range(6)), "format": "png"}
    url = f"http://{server.address}/models/tiny/edit"
    thread = threading.Thread(
        target=lambda: statuses.append(httpx.post(url, json=body, timeout=PATIENCE_S).status_code)
    )
    thread.start()
    wait_until(lambda: server.models.get("tiny").active)
    server.server.handle_exit(signal.SIGTERM, None)
    wait_until(lambda: server.models.draining)
    door.open()
    thread.join(PATIENCE_S)
    assert statuses == [200]


def test_names_of_models() -> None:
    assert parse_model("a/faces.onnx") == ("faces", Path("a/faces.onnx"))
    assert parse_model("mine=a/faces.onnx") == ("mine", Path("a/faces.onnx"))
    assert parse_model(str(GOLDEN / "style_w+.onnx"))[0] == "style_w+"
