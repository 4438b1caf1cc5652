"""What a release must pass: `make release`.

The distributions are built once and uploaded to an index on this machine. Every extra is then installed from there into
an environment of its own, on every Python that the package names, with the newest dependencies and with the lowest, and
what it is for is tried.
"""

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tarfile
import time
import urllib.request
import zipfile
from collections.abc import Iterator
from pathlib import Path

import nox

nox.needs_version = ">=2025.2"
nox.options.sessions = ["build", "installed", "lowest", "own_tests", "sbom"]
nox.options.default_venv_backend = "venv"

ROOT = Path(__file__).parent
DIST = ROOT / "dist"
GOLDEN = ROOT / "tests" / "golden"
PYTHONS = ["3.11", "3.12", "3.13", "3.14"]
# Each alone, and what they are for.
EXTRAS = ["cpu", "cpu,export", "cpu,serve", "cpu,grpc", "cpu,plot", "cpu,video", "cpu,ray", "gpu", "openvino"]
# Large, or not for every Python: on one.
LARGE = {"cpu,ray", "gpu", "openvino"}
PACKAGES = {name: ROOT / folder / name for folder, name in (
    ("cli", "sefa_cli"), ("export", "sefa_export"), ("runtime", "sefa_runtime"), ("", "sefa"),
)}  # fmt: skip
SERVER_STARTS_S = 60
# What distributions call their licences in a field that the bill of materials is not made from, and one without any.
SAID_LICENCES = """
import importlib.metadata, json
print(json.dumps({one.name: one.metadata.get("License") for one in importlib.metadata.distributions()}))
"""
LICENCES = {"cuda-toolkit": "NVIDIA Proprietary Software"}


def version() -> str:
    """Return the version, from the one place that has it."""
    text = (ROOT / "runtime" / "sefa_runtime" / "version.py").read_text()
    match = re.search(r'^VERSION = "(.+)"', text, re.MULTILINE)
    assert match is not None
    return match[1]


@contextlib.contextmanager
def index(folder: Path) -> Iterator[str]:
    """Run a package index of a folder on this machine, and return its address."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "pypiserver", "run", "-i", "127.0.0.1", "-p", str(port), "-P", ".", "-a", "."]
    with subprocess.Popen([*command, "--disable-fallback", folder], stderr=subprocess.DEVNULL) as server:
        address = f"http://127.0.0.1:{port}"
        try:
            _wait_for(f"{address}/simple/")
            yield address
        finally:
            server.terminate()


def _wait_for(address: str) -> bytes:
    deadline = time.monotonic() + SERVER_STARTS_S
    while True:
        try:
            with urllib.request.urlopen(address, timeout=SERVER_STARTS_S) as answer:
                content: bytes = answer.read()
                return content
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


@nox.session(python=False)
def build(session: nox.Session) -> None:
    """Build sdist and wheel, check what is in them, and upload them to an index on this machine."""
    tag = os.environ.get("TAG", "")
    heading = re.search(r"^## (\S+)(.*)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert heading is not None
    if heading[1].rstrip(",") != version():
        session.error(f"CHANGELOG.md begins with {heading[1]}, and the version is {version()}")
    if tag and (tag != f"v{version()}" or "unreleased" in heading[2]):
        session.error(f"the tag {tag} wants version {tag[1:]}, with a date in CHANGELOG.md; it has {heading[0]!r}")
    shutil.rmtree(DIST, ignore_errors=True)
    session.run("python", "-m", "build", "--outdir", str(DIST), str(ROOT))
    (wheel,), (sdist,) = DIST.glob("*.whl"), DIST.glob("*.tar.gz")
    session.run("twine", "check", "--strict", str(wheel), str(sdist))
    session.run("check-wheel-contents", "--toplevel", ",".join(sorted(PACKAGES)), str(wheel))
    with zipfile.ZipFile(wheel) as packed:
        inside = {name for name in packed.namelist() if ".dist-info/" not in name}
    ours = {
        f"{name}/{path.relative_to(folder).as_posix()}"
        for name, folder in PACKAGES.items()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    if inside != ours:
        session.error(f"the wheel lacks {sorted(ours - inside)}, and has besides {sorted(inside - ours)}")
    folder = Path(session.create_tmp()) / "index"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    with index(folder) as address:
        upload = ["twine", "upload", "--non-interactive", "--username", "x", "--password", "x", "--repository-url"]
        session.run(*upload, address, str(wheel), str(sdist))
    uploaded = {path.name for path in folder.iterdir()}
    if uploaded != {wheel.name, sdist.name}:
        session.error(f"the index has {uploaded}")


def _install(session: nox.Session, extras: str, *arguments: str) -> None:
    with index(DIST) as address:
        session.install(*arguments, "--extra-index-url", f"{address}/simple", f"sefa[{extras}]=={version()}")


def _try(session: nox.Session, extras: str) -> None:
    """Try what the extras are for, away from the repository."""
    session.chdir(session.create_tmp())
    session.run("sefa", "--help", silent=True)
    session.run("sefa", "doctor", success_codes=[0, 1] if extras == "gpu" else [0])
    model = str(GOLDEN / "tiny.onnx")
    session.run("sefa", "edit", model, "-o", "face.png", "--edit", "0=1")
    session.run("sefa", "verify", model)
    if "export" in extras:
        checkpoint = str(GOLDEN / "checkpoints" / "sefa_stylegan2_cond_32" / "checkpoint.pth")
        for name in ("g.onnx", "g.ts", "g.pt2"):
            kind = {"onnx": "onnx", "ts": "torchscript", "pt2": "pt2"}[name.partition(".")[2]]
            session.run("sefa", "export", checkpoint, "-o", name, "--format", kind, "--top", "4")
        session.run("sefa", "demo", "-o", "demo")  # Of what comes with the package alone.
        session.run("sefa", "edit", "demo/letters.onnx", "-o", "letter.png", "--label", "A", "--edit", "0=1")
    if "serve" in extras or "grpc" in extras:
        _try_server(session, model)
    if "plot" in extras:
        session.run("sefa", "bench", model, "--seconds", "0.1", "-o", "record.json", "--plot", "record.png")
    if "video" in extras:
        session.run("sefa", "sweep", model, "-o", "turn.mp4", "--direction", "0")
    if "ray" in extras:
        session.run("python", "-c", "import sefa_runtime.ray_app")
    session.chdir(ROOT)
    shutil.rmtree(Path(session.bin).parent)  # Several GB where torch or CUDA is among them.


def _try_server(session: nox.Session, model: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [str(Path(session.bin) / "sefa"), "serve", model, "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as server:
        try:
            _wait_for(f"http://127.0.0.1:{port}/v2/health/ready")
            image = _wait_for(f"http://127.0.0.1:{port}/models/tiny/image?seed=1&format=png")
        finally:
            server.terminate()
    if not image.startswith(b"\x89PNG"):
        session.error("the server sent no image")


@nox.session(python=PYTHONS)
@nox.parametrize("extras", EXTRAS)
def installed(session: nox.Session, extras: str) -> None:
    """Install some extras with their newest dependencies, and try what they are for."""
    if extras in LARGE and session.python != PYTHONS[0]:
        session.skip(f"large: tried on Python {PYTHONS[0]}")
    _install(session, extras)
    _try(session, extras)


@nox.session(python=PYTHONS[0])
def lowest(session: nox.Session) -> None:
    """Install all extras with the lowest dependencies that they allow."""
    constraints = Path(session.create_tmp()) / "lowest.txt"
    script, project = ROOT / "tests" / "support" / "lowest.py", ROOT / "pyproject.toml"
    constraints.write_text(str(session.run("python", str(script), str(project), silent=True)))
    extras = "cpu,export,grpc,plot,video"
    _install(session, extras, "--constraint", str(constraints))
    _try(session, extras)


@nox.session(python=PYTHONS)
def own_tests(session: nox.Session) -> None:
    """Run the runtime's tests, from the unpacked sdist, on the installed wheel."""
    _install(session, "cpu,grpc,plot,video", "--constraint", str(ROOT / "constraints.txt"))
    session.install(
        *("--constraint", str(ROOT / "constraints.txt")),
        *("hypothesis", "httpx", "jsonschema", "pytest", "pyyaml", "schemathesis", "tritonclient[grpc,http]"),
    )
    folder = Path(session.create_tmp())
    (sdist,) = DIST.glob("*.tar.gz")
    with tarfile.open(sdist) as packed:
        packed.extractall(folder, filter="data")
    session.chdir(folder / sdist.name.removesuffix(".tar.gz"))
    session.run("pytest", "tests/runtime", "-q", "-p", "no:cacheprovider")


@nox.session(python=PYTHONS[0])
def sbom(session: nox.Session) -> None:
    """Write what an installation of all light extras consists of, as CycloneDX: each package, version and licence."""
    _install(session, "cpu,export,grpc,plot,video")
    session.run("python", "-m", "pip", "uninstall", "--yes", "pip", silent=True)  # No part of it.
    python, target = str(Path(session.bin) / "python"), DIST / f"sefa-{version()}.cdx.json"
    project = str(ROOT / "pyproject.toml")
    session.run("cyclonedx-py", "environment", "--pyproject", project, "-o", str(target), python, external=True)
    said = json.loads(str(session.run("python", "-c", SAID_LICENCES, silent=True)))
    document = json.loads(target.read_text())
    document["metadata"]["component"]["version"] = version()
    components = {one["name"]: one for one in document["components"]}
    for name, one in components.items():
        licence = LICENCES.get(name) or said.get(name)
        if not one.get("licenses") and licence:
            one["licenses"] = [{"license": {"name": licence}}]
    target.write_text(json.dumps(document, indent=1))
    lacking = [name for name in said if name not in components and name != "sefa"]
    lacking += [f"{name}'s licence" for name, one in components.items() if not (one.get("licenses") and one["version"])]
    if lacking:
        session.error(f"the bill of materials lacks {', '.join(lacking)}")
