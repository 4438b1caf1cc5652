"""A real tritonserver loads the generated repositories and gives the Editor's images: `make check-triton`.

That command makes an environment of its own, `.venv-triton`, of the PyPI package nvidia-pytriton, whose wheel has
tritonserver 2.51 (release 24.10) in it, for Linux on x86-64 with glibc 2.35 or newer. It needs no GPU, but:

- The wheel has the backend for Python alone. So here the configurations are the generated ones with two words changed:
  the backend, and the file it loads. What it loads is `STAND_IN` below, which does as Triton's onnxruntime backend: it
  joins the requests of a batch and runs them through onnxruntime once.
- That backend starts a process for each model, a "stub", made for one version of Python each. The wheel has those of
  3.8 to 3.13, in a place where the backend does not look, hence the folder of links below. The stub's version must be
  the environment's, and it takes home and packages from the first `python3` on the PATH, whatever PYTHONPATH says.
- The stub is linked against libpython (Debian: package libpython3.11; Python's own builds: --enable-shared), and the
  server against libraries beside the wheel's package.
- Its tensors pass through /dev/shm, of which a model takes a megabyte or two as set here.
- Everything in it needs numpy 1, and tritonclient protobuf 6: hence an environment of its own.
"""

import contextlib
import json
import os
import socket
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sefa_runtime
from sefa_runtime.deploy.triton import TritonOptions, write_repository

pytest.importorskip("pytriton", reason="needs the environment of `make check-triton`")
from tritonclient import grpc, http

from support.paths import GOLDEN
from support.patience import wait_until

pytestmark = pytest.mark.slow
FILES = {"tiny": "tiny", "tiny_float32": "tiny_float32", "style_z": "style_z", "style_w": "style_w"}
FILES |= {"style_codes": "style_w+", "style_static": "style_static"}
MODELS = {name: GOLDEN / f"{file}.onnx" for name, file in FILES.items()}
STAND_IN = """
import json
from pathlib import Path

import numpy as np
import onnxruntime
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        folder = Path(args["model_repository"]) / args["model_version"]
        self.session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
        self.names = [item.name for item in self.session.get_inputs()]

    def execute(self, requests):
        feeds = {
            name: np.concatenate([pb_utils.get_input_tensor_by_name(request, name).as_numpy() for request in requests])
            for name in self.names
        }
        images = self.session.run(["image"], feeds)[0]
        ends = np.cumsum([len(pb_utils.get_input_tensor_by_name(request, "alpha").as_numpy()) for request in requests])
        parts = np.split(images, ends[:-1])
        return [pb_utils.InferenceResponse([pb_utils.Tensor("image", part)]) for part in parts]
"""
TYPES = {"float32": "FP32", "int64": "INT64"}


@dataclass(frozen=True)
class Server:
    """A running tritonserver."""

    repository: Path
    http_port: int
    grpc_port: int
    log: Path

    def client(self) -> Any:
        """A client of tritonclient's for HTTP."""
        return http.InferenceServerClient(f"127.0.0.1:{self.http_port}")

    def infer(self, protocol: str, model: str, feeds: dict[str, np.ndarray[Any, Any]]) -> np.ndarray[Any, Any]:
        """Send one request over a connection of its own."""
        module: Any = {"http": http, "grpc": grpc}[protocol]
        port = {"http": self.http_port, "grpc": self.grpc_port}[protocol]
        inputs = []
        for name, value in feeds.items():
            inputs.append(module.InferInput(name, list(value.shape), TYPES[str(value.dtype)]))
            inputs[-1].set_data_from_numpy(value)
        client = module.InferenceServerClient(f"127.0.0.1:{port}")
        image: np.ndarray[Any, Any] = client.infer(model, inputs).as_numpy("image")
        client.close()
        return image


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("triton")
    repository = folder / "repo"
    options = TritonOptions(cpu=True, max_batch=8, max_delay_ms=50)
    paths = dict(MODELS)
    static = {"style_static": paths.pop("style_static")}
    write_repository(paths, repository, options)
    write_repository(static, repository, TritonOptions())
    for name in MODELS:
        config = repository / name / "config.pbtxt"
        text = config.read_text()
        for ours, theirs in (('backend: "onnxruntime"', 'backend: "python"'), ('"model.onnx"', '"model.py"')):
            assert text.count(ours) == 1
            text = text.replace(ours, theirs)
        config.write_text(text)
        (repository / name / "1" / "model.py").write_text(STAND_IN)
    http_port, grpc_port = free_ports(2)
    running = Server(repository, http_port, grpc_port, folder / "log")
    with running.log.open("w") as log:
        command = [*server_command(folder), f"--model-repository={repository}"]
        command += [f"--http-port={http_port}", f"--grpc-port={grpc_port}", "--log-verbose=1"]
        command += [
            "--http-address=127.0.0.1",
            "--grpc-address=127.0.0.1",
            "--allow-metrics=false",
            "--exit-timeout-secs=1",
        ]
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment())
    try:
        wait_until_ready(running, process)
        yield running
    finally:
        process.terminate()
        process.wait(60)


def wheel() -> Path:
    """The folder tritonserver in the wheel of nvidia-pytriton."""
    import pytriton

    return Path(pytriton.__file__).parent / "tritonserver"


def server_command(folder: Path) -> list[str]:
    """tritonserver with its backend for Python and the stub of this Python together in one folder."""
    backend = folder / "backends" / "python"
    backend.mkdir(parents=True)
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    stub = wheel() / "python_backend_stubs" / version / "triton_python_backend_stub"
    assert stub.exists(), f"nvidia-pytriton has no stub for Python {version}"
    for source in (stub, *(wheel() / "backends" / "python").iterdir()):
        (backend / source.name).symlink_to(source)
    shared = [f"--backend-config=python,shm-{what}-byte-size={1 << 20}" for what in ("default", "growth")]
    return [str(wheel() / "bin" / "tritonserver"), f"--backend-directory={folder / 'backends'}", *shared]


def environment() -> dict[str, str]:
    """The stub finds this environment by its `python3`, and the libraries."""
    libraries = [wheel().parents[1] / "nvidia_pytriton.libs", sysconfig.get_config_var("LIBDIR")]
    programs = [sysconfig.get_path("scripts"), os.environ["PATH"]]
    paths = {"LD_LIBRARY_PATH": ":".join(map(str, libraries)), "PATH": ":".join(programs)}
    return os.environ | paths


def free_ports(count: int) -> list[int]:
    """Ports that were free just now."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(item.getsockname()[1]) for item in sockets]
    for item in sockets:
        item.close()
    return ports


def wait_until_ready(server: Server, process: "subprocess.Popen[bytes]") -> None:
    """Triton is ready when all models are loaded and warmed up."""

    def is_ready() -> bool:
        assert process.poll() is None, server.log.read_text()[-5000:]
        with contextlib.suppress(ConnectionRefusedError):
            return bool(server.client().is_server_ready())
        return False

    wait_until(is_ready)


def feeds_of(info: sefa_runtime.ModelInfo, batch: int, edits: int, seed: int = 0) -> dict[str, np.ndarray[Any, Any]]:
    """Inputs for `Editor.run`."""
    random = np.random.default_rng(seed)
    feeds: dict[str, np.ndarray[Any, Any]] = {
        info.latent_name: random.standard_normal((batch, *info.latent_shape), np.float32),
        "direction": random.integers(0, len(info.directions), (batch, edits)),
        "alpha": random.uniform(-3, 3, (batch, edits)).astype(np.float32),
    }
    if info.takes_label:
        feeds["label"] = random.integers(0, info.num_classes, batch)
    if info.truncation is None:
        feeds["truncation"] = random.uniform(0.3, 1, batch).astype(np.float32)
    return feeds


def columns(feeds: dict[str, np.ndarray[Any, Any]]) -> dict[str, np.ndarray[Any, Any]]:
    """As clients of Triton send them: [batch, 1] for [batch]."""
    return {name: value[:, None] if value.ndim == 1 else value for name, value in feeds.items()}


@pytest.mark.parametrize("protocol", ["http", "grpc"])
@pytest.mark.parametrize(("batch", "edits"), [(1, 1), (2, 3), (8, 2)])
@pytest.mark.parametrize("model", MODELS)
def test_images_are_those_of_the_editor(server: Server, model: str, batch: int, edits: int, protocol: str) -> None:
    editor = sefa_runtime.load(MODELS[model], "cpu")
    feeds = feeds_of(editor.info, editor.info.batch or batch, editor.info.num_edits or edits)
    image = server.infer(protocol, model, columns(feeds))
    if "w" in feeds:  # [N, 1, D]: as many images as the model has layers are images, and no warning says otherwise.
        feeds["w"] = feeds["w"][:, None]
    np.testing.assert_array_equal(image, editor.run(**feeds))


@pytest.mark.parametrize("model", MODELS)
def test_the_inputs_for_perf_analyzer_are_taken(server: Server, model: str) -> None:
    editor = sefa_runtime.load(MODELS[model], "cpu")
    document = json.loads((server.repository / model / "perf_input.json").read_text())
    types = {"direction": np.int64, "label": np.int64}
    for entry in document["data"]:
        feeds = {
            name: np.array(value["content"], types.get(name, np.float32)).reshape(value["shape"])
            for name, value in entry.items()
        }
        if editor.info.batch is None:  # Triton adds the batch.
            feeds = {name: value[None] for name, value in feeds.items()}
        image = server.infer("http", model, feeds)
        flat = {name: value[:, 0] if name in ("label", "truncation") else value for name, value in feeds.items()}
        np.testing.assert_array_equal(image, editor.run(**flat))


def test_concurrent_requests_run_together_and_each_gets_its_own_image(server: Server) -> None:
    """Also with different numbers of edits, which cannot run together."""
    editor = sefa_runtime.load(MODELS["style_z"], "cpu")
    before = server.client().get_inference_statistics("style_z")["model_stats"][0]
    requests = [feeds_of(editor.info, 1, 1 + seed % 2 * 2, seed) for seed in range(32)]
    with ThreadPoolExecutor(len(requests)) as pool:
        images = list(pool.map(lambda feeds: server.infer("http", "style_z", columns(feeds)), requests))
    for image, feeds in zip(images, requests, strict=True):
        np.testing.assert_allclose(image.astype(int), editor.run(**feeds), atol=1)  # Another batch may round otherwise.
    after = server.client().get_inference_statistics("style_z")["model_stats"][0]
    assert after["inference_count"] - before["inference_count"] == 32
    assert after["execution_count"] - before["execution_count"] < 32


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_no_edit_at_all_is_taken(server: Server, protocol: str) -> None:
    editor = sefa_runtime.load(MODELS["tiny"], "cpu")
    feeds = feeds_of(editor.info, 2, 0)
    np.testing.assert_array_equal(server.infer(protocol, "tiny", feeds), editor.run(z=feeds["z"]))


def test_the_configuration_names_the_directions(server: Server) -> None:
    config = server.client().get_model_config("tiny")
    bank = json.loads(config["parameters"]["directions"]["string_value"])
    assert [direction["name"] for direction in bank] == ["pose", "light", "direction-2", "direction-3"]
    assert (config["max_batch_size"], config["instance_group"][0]["kind"]) == (8, "KIND_CPU")
    assert server.client().get_model_config("style_static")["max_batch_size"] == 0


@pytest.mark.parametrize("model", MODELS)
def test_every_model_was_warmed_up_with_the_smallest_and_the_largest_batch(server: Server, model: str) -> None:
    log = server.log.read_text()
    for batch in (2,) if model == "style_static" else (1, 8):
        assert f"model '{model}' instance {model}_0_0 is running warmup sample 'batch {batch}'" in log


def test_a_request_of_another_size_is_refused(server: Server) -> None:
    editor = sefa_runtime.load(MODELS["style_z"], "cpu")
    with pytest.raises(http.InferenceServerException, match="batch-size must be <= 8"):
        server.infer("http", "style_z", columns(feeds_of(editor.info, 9, 1)))
    static = sefa_runtime.load(MODELS["style_static"], "cpu")
    with pytest.raises(http.InferenceServerException, match=r"Expected \[2,3\], got \[1,3\]"):
        server.infer("http", "style_static", feeds_of(static.info, 1, 3))
