"""Build CUDA's libraries without a device (cuda_stub.c) for an installed onnxruntime-gpu: Linux, gcc and binutils."""

import re
import subprocess
import tempfile
from pathlib import Path

SOURCE = Path(__file__).with_name("cuda_stub.c")
PROVIDER = Path("capi", "libonnxruntime_providers_cuda.so")
# Loaded by name while the provider runs; so are the names in it.
CUDNN, DRIVER = "libcudnn.so.9", "libcuda.so.1"


def build_stubs(onnxruntime: Path, folder: Path) -> None:
    """Write the libraries that an onnxruntime's CUDA provider needs to a folder, for LD_LIBRARY_PATH.

    Args:
        onnxruntime: Folder of the installed package.
        folder: An existing folder.
    """
    provider = onnxruntime / PROVIDER
    needed = re.findall(r"\[(libcu.*)\]", run("readelf", "-d", provider))
    libraries: dict[str, set[str]] = {name: set() for name in (*needed, DRIVER)}
    for line in run("nm", "-D", "--undefined-only", provider).splitlines():
        name, _, library = line.split()[-1].partition("@")
        if library in libraries:
            libraries[library].add(name)
        elif re.match(r"cu[A-Z]", name):
            libraries[DRIVER].add(name)
    libraries[CUDNN] = {name.decode() for name in re.findall(rb"\bcudnn[A-Z]\w+", provider.read_bytes())}
    with tempfile.TemporaryDirectory() as temporary:
        for library, names in libraries.items():
            build(library, names, Path(temporary), folder / library)


def build(library: str, names: set[str], temporary: Path, path: Path) -> None:
    """Compile the source, and for each name that it lacks a function that returns 0."""
    written, rest, versions = temporary / "written.o", temporary / "rest.c", temporary / "versions.map"
    compiler = ("gcc", "-w", "-fPIC")
    run(*compiler, "-c", SOURCE, "-o", written)
    known = {line.split()[-1] for line in run("nm", "--defined-only", written).splitlines()}
    rest.write_text("".join(f"long {name}(void) {{ return 0; }}\n" for name in sorted(names - known)))
    versions.write_text(f"{library} {{ global: *; }};\n")  # The provider asks for `cudaMalloc@libcudart.so.13`.
    run(*compiler, "-shared", f"-Wl,--version-script={versions}", f"-Wl,-soname,{library}", "-o", path, written, rest)


def run(*command: object) -> str:
    """Run a command; return what it prints."""
    return subprocess.run([str(word) for word in command], check=True, capture_output=True, text=True).stdout
