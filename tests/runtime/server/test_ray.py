"""Replicas on Ray Serve: installed into an environment of its own, run where nothing but loopback is there."""

import json
import os
import shutil
import subprocess
import tempfile
import venv
from pathlib import Path

import numpy as np
import pytest

import sefa_runtime
from support.paths import ROOT

TINY = ROOT / "tests" / "golden" / "tiny.onnx"
# Ray listens on every network, and its processes outlive those that started them: in namespaces they do neither.
NAMESPACES = ["unshare", "--map-root-user", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]
PROGRAM = """
import collections, fcntl, json, os, signal, socket, struct, subprocess, sys, threading, time
import urllib.error, urllib.request
import ray, urllib3

model, programs, folder = sys.argv[1:]
with socket.socket() as loopback:  # Bring it up.
    fcntl.ioctl(loopback, 0x8914, struct.pack("16sH14s", b"lo", 1, b""))
head = ["start", "--head", "--num-cpus=2", "--include-dashboard=false", "--node-ip-address=127.0.0.1", "--port=6379"]
subprocess.run([f"{programs}/ray", *head, f"--temp-dir={folder}"], check=True, stdout=sys.stderr)
prefix = "/team/faces"
arguments = [f"--route-prefix={prefix}", f"model={model}", "num_replicas=2", "num_cpus=0.5", "max_batch=4"]
subprocess.Popen([f"{programs}/serve", "run", "--address=127.0.0.1:6379", "sefa_runtime.ray_app:app", *arguments],
                 stdout=sys.stderr)
ray.init(address="127.0.0.1:6379", log_to_driver=False)

def ask(path, document=None, token="secret"):
    data = None if document is None else json.dumps(document).encode()
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {token}"}
    request = urllib.request.Request(f"http://127.0.0.1:8000{prefix}{path}", data, headers)
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()
    except OSError as error:  # Nobody listens yet.
        return 0, repr(error).encode()

def infer(images):
    z = [k / 7 for k in range(6 * images)]
    return ask("/v2/models/tiny/infer",
               {"inputs": [{"name": "z", "datatype": "FP32", "shape": [images, 6], "data": z}]})

def replicas():
    found = {}
    for actor in ray.util.list_named_actors(all_namespaces=True):
        if actor["name"].startswith("SERVE_REPLICA::"):
            try:
                handle = ray.get_actor(actor["name"], namespace="serve")
                found[actor["name"]] = ray.get(handle.__ray_call__.remote(lambda self: os.getpid()), timeout=5)
            except Exception:  # It just died, or is not there yet.
                pass
    return found

def wait_until(true):
    end = time.monotonic() + 90
    while not true():
        assert time.monotonic() < end
        time.sleep(0.1)

wait_until(lambda: ask("/v2/health/ready")[0] == 200 and len(replicas()) == 2)
facts = {"answer": json.loads(infer(3)[1])}
facts["statuses"] = {path: ask(path)[0] for path in
                     ("/v2", "/models", "/models/tiny/image?seed=7", "/docs", "/metrics", "/v2/models/other")}
facts["statuses"]["too many"] = infer(5)[0]
facts["statuses"]["token"] = ask("/models", token="other")[0]
facts["open"] = {path: ask(path, token="other")[0] for path in
                 ("/", "/page.js", "/docs", "/docs/swagger-ui.css", "/openapi.json", "/v2/health/live")}

stop = threading.Event()
asking = {
    "once": urllib3.PoolManager(8, retries=False),
    "again": urllib3.PoolManager(8, retries=urllib3.Retry(3, backoff_factor=0.1, status_forcelist=[500, 503],
                                                          allowed_methods=None)),
}
statuses = {way: collections.Counter() for way in asking}

def load(way):
    document = {"inputs": [{"name": "z", "datatype": "FP32", "shape": [1, 6], "data": [0] * 6}]}
    url, headers = f"http://127.0.0.1:8000{prefix}/v2/models/tiny/infer", {"Authorization": "Bearer secret"}
    while not stop.is_set():
        answer = asking[way].request("POST", url, json=document, headers=headers)
        statuses[way][answer.status] += 1

before = replicas()
threads = [threading.Thread(target=load, args=(way,)) for way in asking for _ in range(6)]
for thread in threads:
    thread.start()
time.sleep(2)
os.kill(min(before.values()), signal.SIGKILL)
wait_until(lambda: len(found := replicas()) == 2 and found != before)
time.sleep(2)
stop.set()
for thread in threads:
    thread.join()
print(json.dumps(facts | statuses))
os._exit(0)
"""


@pytest.mark.slow
def test_who_asks_again_loses_no_request_when_a_replica_is_killed(tmp_path: Path) -> None:
    if shutil.which("unshare") is None or subprocess.run([*NAMESPACES, "true"], check=False).returncode:
        pytest.skip("needs user namespaces")
    venv.create(tmp_path / "venv", with_pip=True)
    programs = tmp_path / "venv" / "bin"
    pip = [str(programs / "python"), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    subprocess.run([*pip, "--constraint", str(ROOT / "constraints.txt"), f"{ROOT}[cpu,ray]"], check=True)
    with tempfile.TemporaryDirectory(prefix="ray") as folder:  # Ray's sockets need a short path.
        done = subprocess.run(
            [*NAMESPACES, programs / "python", "-c", PROGRAM, TINY, programs, folder],
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
            env=os.environ
            | {"HOME": str(tmp_path), "PYTHONPATH": "", "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
            | {"SEFA_TOKEN": "secret"},
        )
    assert done.returncode == 0, done.stderr[-4000:]
    facts = json.loads(done.stdout.splitlines()[-1])

    (output,) = facts["answer"]["outputs"]
    z = (np.arange(18) / 7).astype(np.float32).reshape(3, 6)
    image = np.array(output["data"], np.uint8).reshape(output["shape"])
    np.testing.assert_array_equal(image, sefa_runtime.load(TINY, provider="cpu").run(z=z))
    assert facts["statuses"] == {
        "/v2": 200,
        "/models": 200,
        "/models/tiny/image?seed=7": 200,
        "/docs": 200,
        "/metrics": 200,
        "/v2/models/other": 404,
        "too many": 400,
        "token": 401,
    }
    assert set(facts["open"].values()) == {200}, facts["open"]
    # Ray answers 500 to what the killed replica was about to answer: at most one request of each client.
    assert facts["once"]["200"] > 100
    assert set(facts["once"]) <= {"200", "500"}
    assert facts["once"].get("500", 0) <= 6
    assert facts["again"]["200"] > 100
    assert set(facts["again"]) == {"200"}
