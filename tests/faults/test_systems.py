"""Full disks and quotas, no descriptors, two writers, clocks that jump, files, devices and servers that go."""

import contextlib
import ctypes.util
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

import sefa
from sefa.bank.direction_bank import DirectionBank
from support.paths import CHECKPOINTS, GOLDEN, TINY
from support.patience import PATIENCE_S, wait_until

pytestmark = pytest.mark.faults

CHECKPOINT = CHECKPOINTS / "sefa_stylegan2_cond_32" / "checkpoint.pth"
IMAGE = "/models/tiny/image?seed=7&format=png"
FAKETIME = [str(path) for path in Path("/usr/lib").glob("*/faketime/libfaketime.so.1")]


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "sefa_cli", *map(str, arguments)]


@contextlib.contextmanager
def serving(
    model: Path,
    *,
    limit: Callable[[], None] | None = None,
    environment: dict[str, str] | None = None,
    program: str = "",
    port: int = 0,
) -> "Iterator[tuple[subprocess.Popen[str], httpx.Client]]":
    """`sefa serve` in a process of its own, perhaps changed by a program before it starts, and a client of it."""
    words = command("serve", model, "--port", str(port), "--provider", "cpu")
    process = subprocess.Popen(
        [sys.executable, "-c", f"{program}\nfrom sefa_cli import main\nmain()", *words[3:]] if program else words,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | (environment or {}),
        preexec_fn=limit,
    )
    try:
        assert process.stderr is not None
        address = process.stderr.readline().split()[-1]
        with httpx.Client(base_url=address, timeout=PATIENCE_S) as client:
            wait_until(lambda: client.get("/v2/health/ready").status_code == 200)
            yield process, client
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with 200 kB."""
    libc = ctypes.CDLL(ctypes.util.find_library("c"), use_errno=True)
    folder = tmp_path / "disk"
    folder.mkdir()
    if libc.mount(b"none", bytes(folder), b"tmpfs", 0, b"size=200k"):
        pytest.skip("needs to mount a file system")
    yield folder
    libc.umount2(bytes(folder), 2)


@pytest.mark.parametrize(
    "arguments",
    [
        ("factorize", CHECKPOINT, "--top", "8", "-o"),
        ("export", CHECKPOINT, "-o"),
        ("sweep", GOLDEN / "style_z.onnx", "--label", "1", "--direction", "0", "--scale", "32", "-o"),
        ("bench", TINY, "--seconds", "0.01", "-o"),
    ],
    ids=lambda arguments: str(arguments[0]),
)
def test_a_full_disk_is_one_line_and_the_old_file_stays(small_disk: Path, arguments: tuple[str | Path, ...]) -> None:
    suffix = {"factorize": ".safetensors", "export": ".onnx", "sweep": ".gif", "bench": ".json"}[str(arguments[0])]
    output = small_disk / f"out{suffix}"
    output.write_bytes(b"old")
    (small_disk / "filler").write_bytes(bytes(shutil.disk_usage(small_disk).free))
    done = subprocess.run(command(*arguments, output), capture_output=True, text=True, check=False, timeout=PATIENCE_S)
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].startswith("sefa: ")
    assert "No space left" in done.stderr
    assert "Traceback" not in done.stderr
    assert output.read_bytes() == b"old"
    assert {path.name for path in small_disk.iterdir()} == {output.name, "filler"}


# A quota as programs meet it: after so many bytes, writing to a file fails. (Root has none, nor have many kernels.)
QUOTA = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>
static long left = 1000;
ssize_t write(int file, const void *bytes, size_t count) {
    ssize_t (*real)(int, const void *, size_t) = dlsym(RTLD_NEXT, "write");
    struct stat found;
    if (!fstat(file, &found) && S_ISREG(found.st_mode) && (left -= count) < 0) { errno = EDQUOT; return -1; }
    return real(file, bytes, count);
}
"""


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
@pytest.mark.parametrize("name", ["factorize", "export", "sweep"])
def test_a_quota_is_one_line_and_the_old_file_stays(tmp_path: Path, name: str) -> None:
    library = tmp_path / "quota.so"
    (tmp_path / "quota.c").write_text(QUOTA)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, tmp_path / "quota.c", "-ldl"], check=True)
    folder = tmp_path / "out"
    folder.mkdir()
    suffix = {"factorize": ".safetensors", "export": ".onnx", "sweep": ".gif"}[name]
    output = folder / f"out{suffix}"
    output.write_bytes(b"old")
    sweep = (GOLDEN / "style_z.onnx", "--label", "1", "--scale", "8")
    done = subprocess.run(
        command(name, *(sweep if name == "sweep" else (CHECKPOINT,)), "-o", output),
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
        env=os.environ | {"LD_PRELOAD": str(library), "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].startswith("sefa: ")
    assert "quota exceeded" in done.stderr
    assert "Traceback" not in done.stderr
    assert output.read_bytes() == b"old"
    assert [path.name for path in folder.iterdir()] == [output.name]


@pytest.mark.parametrize("descriptors", [6, 8, 10, 12, 16])
def test_without_descriptors_a_command_ends_with_a_line_and_leaves_nothing(tmp_path: Path, descriptors: int) -> None:
    output = tmp_path / "face.png"
    done = subprocess.run(
        command("edit", TINY, "-o", output),
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, descriptors)),
    )
    assert output.exists() is (done.returncode == 0)
    assert [path.name for path in tmp_path.iterdir()] == ([output.name] if done.returncode == 0 else [])


def test_a_server_without_descriptors_answers_again_once_it_has_some() -> None:
    limit = 80
    with serving(TINY, limit=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))) as (process, client):
        expected = client.get(IMAGE).content
        address = client.base_url.host, client.base_url.port
        held = [socket.create_connection(address, timeout=PATIENCE_S) for _ in range(2 * limit)]
        time.sleep(1)
        assert process.poll() is None
        for connection in held:
            connection.close()
        with httpx.Client(base_url=client.base_url, timeout=PATIENCE_S) as another:
            assert another.get(IMAGE).content == expected


@pytest.mark.parametrize("what", ["deleted", "truncated", "replaced", "overwritten"])
def test_a_file_that_goes_while_it_is_served_changes_no_image(tmp_path: Path, what: str) -> None:
    model = tmp_path / "tiny.onnx"
    shutil.copyfile(TINY, model)
    with serving(model) as (process, client):
        expected = client.get(IMAGE).content
        if what == "deleted":
            model.unlink()
        elif what == "truncated":
            os.truncate(model, 100)
        elif what == "replaced":
            shutil.copyfile(GOLDEN / "style_z.onnx", tmp_path / "other")
            (tmp_path / "other").replace(model)
        else:
            model.write_bytes(bytes(model.stat().st_size))
        assert {client.get(IMAGE).content for _ in range(20)} == {expected}
        assert process.poll() is None


def test_of_two_writers_of_one_name_one_wins_and_the_file_is_whole(tmp_path: Path) -> None:
    output = tmp_path / "bank.safetensors"
    for _ in range(5):
        writers = [
            subprocess.Popen(command("factorize", CHECKPOINT, "--top", top, "-o", output), stdout=subprocess.DEVNULL)
            for top in ("2", "5")
        ]
        assert [writer.wait(PATIENCE_S) for writer in writers] == [0, 0]
        assert len(DirectionBank.load(output).names) in (2, 5)
        assert [path.name for path in tmp_path.iterdir()] == [output.name]


@pytest.mark.skipif(not FAKETIME, reason="needs libfaketime")
def test_a_clock_that_jumps_delays_and_drops_nothing(tmp_path: Path) -> None:
    now = tmp_path / "now"
    now.write_text("+0")
    environment = {
        "LD_PRELOAD": FAKETIME[0],
        "FAKETIME_TIMESTAMP_FILE": str(now),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "DONT_FAKE_MONOTONIC": "1",
    }
    with serving(TINY, environment=environment) as (process, client):
        expected = client.get(IMAGE).content
        for jump in ("+1d", "-3y", "+50y", "-1h", "+0"):
            now.write_text(jump)
            started = time.monotonic()
            assert {client.get(IMAGE, headers={"Cache-Control": "no-store"}).content for _ in range(20)} == {expected}
            assert client.get("/v2/health/ready").status_code == 200
            assert time.monotonic() - started < PATIENCE_S / 2
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) == 0


def test_memory_that_is_refused_to_one_request_is_there_for_the_next() -> None:
    with serving(TINY) as (process, client):
        expected = client.get(IMAGE).content
        status = Path(f"/proc/{process.pid}/status").read_text().splitlines()
        size = next(int(line.split()[1]) for line in status if line.startswith("VmSize")) * 1024
        resource.prlimit(process.pid, resource.RLIMIT_AS, (size + 40 * 10**6, -1))
        large = client.get("/models/tiny/image?seed=7&scale=1024&format=png")
        assert large.status_code in (200, 400, 500, 503)
        assert client.get(IMAGE).content == expected
        resource.prlimit(process.pid, resource.RLIMIT_AS, (-1, -1))
        assert client.get(IMAGE).content == expected
        assert process.poll() is None


# The errors of a CUDA device that is gone, from onnxruntime's own class, as long as a file is there.
DYING = """
import os
import onnxruntime
from onnxruntime.capi.onnxruntime_pybind11_state import Fail
for name in ("run", "run_with_iobinding"):
    def run(self, *arguments, real=getattr(onnxruntime.InferenceSession, name), **options):
        if os.path.exists({gone!r}):
            raise Fail("[ONNXRuntimeError] : 1 : FAIL : CUDA failure 719: unspecified launch failure ; GPU=0")
        return real(self, *arguments, **options)
    setattr(onnxruntime.InferenceSession, name, run)
"""


def test_a_provider_that_dies_in_the_middle_is_said_and_nothing_else_dies(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    with serving(TINY, program=DYING.format(gone=str(gone))) as (process, client):
        expected = client.get(IMAGE).content
        for _ in range(3):
            gone.touch()
            with ThreadPoolExecutor(8) as pool:
                refused = list(pool.map(lambda _: client.get(IMAGE), range(40)))
            assert {answer.status_code for answer in refused} == {503}
            assert all("CUDA failure 719" in answer.json()["error"] for answer in refused)
            assert client.get("/v2/health/live").status_code == 200
            gone.unlink()
            assert client.get(IMAGE).content == expected
        assert "sefa_failed_runs_total" in client.get("/metrics").text
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) == 0


def test_a_server_that_is_killed_is_replaced_at_its_port() -> None:
    with serving(TINY) as (process, client):
        expected, port = client.get(IMAGE).content, client.base_url.port
        open_connections = [socket.create_connection(("127.0.0.1", port or 0)) for _ in range(5)]
        process.kill()
        process.wait(PATIENCE_S)
        with serving(TINY, port=port or 0) as (_, another):
            assert another.get(IMAGE).content == expected
        for connection in open_connections:
            connection.close()


def test_the_bank_that_is_compared_is_that_of_the_library(tmp_path: Path) -> None:
    """The commands above do what they should where nothing fails."""
    output = tmp_path / "bank.safetensors"
    subprocess.run(command("factorize", CHECKPOINT, "--top", "2", "-o", output), check=True, stdout=subprocess.DEVNULL)
    expected = sefa.factorize(sefa.load(CHECKPOINT), top=2)
    assert DirectionBank.load(output).eigenvalues.tolist() == expected.eigenvalues.tolist()
