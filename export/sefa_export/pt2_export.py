"""Export to torch.export's archive, .pt2, the successor of TorchScript."""

import copy
import logging
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch.export import ExportedProgram

from sefa.bank import DirectionBank
from sefa.generators import Generator
from sefa.generators.custom import CustomGenerator
from sefa_export.alone import verify_alone
from sefa_export.bake import EditGraph, bake
from sefa_export.describe import describe
from sefa_export.errors import ExportError
from sefa_export.parity import make_cases
from sefa_export.pinned import Pinned
from sefa_export.tracing import holds_torchscript, one_line, silenced
from sefa_runtime.files import check_output, replacing
from sefa_runtime.model_info import EXTRA_FILE


def export_pt2(
    generator: Generator,
    bank: DirectionBank,
    path: str | Path,
    output: str = "uint8",
    *,
    latent: str = "z",
    truncation: float | None = 1.0,
    batch: int | None = None,
    edits: int | None = None,
    compiled: bool = False,
) -> Path:
    """Bake generator and directions into a .pt2 archive, to be called by name: `(z=, direction=, alpha=)`.

    The same contract as `export_onnx`, checked the same way, in a process of its own that imports only torch. The
    description is the archive's member `extra/sefa.json`.

    Args:
        generator: The generator, on any device; not changed.
        bank: Directions that were made for it.
        path: Where to write; an existing file is replaced.
        output: `uint8` or `float32`, see `bake`.
        latent: `z`, `w` or `w+`, see `bake`.
        truncation: Truncation psi, see `bake`.
        batch: Fixes the batch; None leaves it dynamic.
        edits: Fixes the number of edits likewise.
        compiled: False: a program for `torch.export.load(path).module()`, on any machine. True: machine code from
            AOTInductor for `torch._inductor.aoti_load_package(path)`, on CPUs like this one; needs a C++ compiler.

    Returns:
        `path`.

    Raises:
        BankError: If the bank was made for another generator.
        ArgumentError: If an option is unknown or not for this generator, or the generator is not in float32.
        VerificationError: If the archive differs from PyTorch.
        ExportError: If it cannot be exported or compiled.
        OSError: If the file cannot be written.
    """
    path = Path(path)
    check_output(path)
    pinned = Pinned(batch, edits)
    graph = copy.deepcopy(bake(generator, bank, output, latent=latent, truncation=truncation)).cpu()
    # Both writers want this suffix; they name the archive's root after the file.
    with replacing(path, suffix=".pt2") as archive, _hushed():
        program = _trace(graph, pinned)
        if compiled:
            _compile(program, archive)
        else:
            torch.export.save(program, archive)
        parity = verify_alone(graph, make_cases(graph, pinned), archive, "compiled" if compiled else "pt2")
        _add_description(archive, describe(graph, bank, pinned, parity).to_json())
    return path


def _trace(graph: EditGraph, pinned: Pinned) -> ExportedProgram:
    arguments = dict(zip(graph.input_names, pinned.example_inputs(graph), strict=True))
    if not isinstance(graph.generator, CustomGenerator):
        with torch.no_grad():
            return torch.export.export(graph, (), arguments, dynamic_shapes=pinned.dynamic_shapes(graph))
    if holds_torchscript(graph):
        raise ExportError("torch.export does not take TorchScript: export it to onnx or torchscript instead")
    try:
        with torch.no_grad(), silenced():
            return torch.export.export(graph, (), arguments, dynamic_shapes=pinned.dynamic_shapes(graph))
    except Exception as error:  # Whatever a class of the user's raises.
        raise ExportError(
            f"torch.export does not take this generator: {one_line(error)}; onnx and torchscript may"
        ) from error


def _compile(program: ExportedProgram, archive: Path) -> None:
    try:
        torch._inductor.aoti_compile_and_package(program, package_path=str(archive))
    except Exception as error:  # The compiler's errors have no common base.
        reason = " ".join(str(error).split())[:300]
        raise ExportError(f"AOTInductor cannot compile it here: {type(error).__name__}: {reason}") from error


def _add_description(archive: Path, document: str) -> None:
    with zipfile.ZipFile(archive, "a") as file:
        root = file.namelist()[0].split("/")[0]
        file.writestr(f"{root}/extra/{EXTRA_FILE}", document)


@contextmanager
def _hushed() -> Iterator[None]:
    """Keep torch's notes to its own developers out of the terminal."""
    log = logging.getLogger("torch")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=FutureWarning)
            warnings.filterwarnings("ignore", category=DeprecationWarning)
            yield
    finally:
        log.setLevel(level)
