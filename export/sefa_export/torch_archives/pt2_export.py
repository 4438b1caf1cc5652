"""Export to torch.export's archive, .pt2, the successor of TorchScript."""

import io
import zipfile
from pathlib import Path

import torch
from torch.export import ExportedProgram

from sefa.bank.direction_bank import DirectionBank
from sefa.generators import Generator
from sefa_export.determinism import check_program
from sefa_export.draft import Draft, prepare
from sefa_export.errors import ExportError
from sefa_export.torch_archives.separate_process import verify_in_process
from sefa_export.tracing import exporting, holds_torchscript
from sefa_export.user_lines import naming_the_users_lines
from sefa_runtime.files import check_utf8_output, replacing
from sefa_runtime.model.info import EXTRA_FILE


def export_pt2(
    generator: Generator,
    bank: DirectionBank,
    path: str | Path,
    output_type: str = "uint8",
    *,
    latent: str = "z",
    truncation: float | None = 1.0,
    allow_other_checkpoint: bool = False,
    batch: int | None = None,
    num_edits: int | None = None,
    compiled: bool = False,
    license: str | None = None,
    note: str | None = None,
) -> Path:
    """Bake a generator and its directions into a .pt2 archive, called by keyword: `(z=, direction=, alpha=)`.

    The contract is that of `export_onnx`, checked the same way, in a separate process that imports only torch. The
    description is the archive's member `extra/sefa.json`.

    Args:
        generator: The generator, on any device; left unchanged.
        bank: Directions found for it.
        path: Where to write; an existing file is replaced.
        output_type: `uint8` or `float32`, see `bake`.
        latent: `z`, `w` or `w+`, see `bake`.
        truncation: Truncation psi, see `bake`.
        allow_other_checkpoint: See `bake`; recorded in the file.
        batch: Fixes the batch size; None leaves it dynamic.
        num_edits: Fixes the number of edits; None leaves it dynamic.
        compiled: False: a program for `torch.export.load(path).module()`, on any machine. True: machine code from
            AOTInductor for `torch._inductor.aoti_load_package(path)`, on CPUs like this one; needs a C++ compiler.
        license: Licence of the generator, an SPDX expression or other text of one line, recorded in the file; None: the
            one that its checkpoint names, if any.
        note: What else users of the file should know of the generator, one line; None: what its checkpoint says.

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
    check_utf8_output(path)
    draft = prepare(
        generator,
        bank,
        output_type,
        latent=latent,
        truncation=truncation,
        allow_other_checkpoint=allow_other_checkpoint,
        batch=batch,
        num_edits=num_edits,
        license=license,
        note=note,
    )
    _write(draft, path, compiled)
    return path


def _write(draft: Draft, path: Path, compiled: bool = False) -> None:
    # AOTInductor loads no other suffix.
    with naming_the_users_lines(draft, _write), replacing(path, suffix=".pt2") as archive:
        archive.write_bytes(_archive(draft, _trace(draft), compiled))
        parity = verify_in_process(draft, archive, "compiled" if compiled else "pt2")
        _add_description(archive, draft.describe(parity).to_json())


def _trace(draft: Draft) -> ExportedProgram:
    graph = draft.graph
    if holds_torchscript(graph):
        raise ExportError("torch.export does not take TorchScript: export it to onnx or torchscript instead")
    with torch.no_grad(), exporting(graph, "torch.export", "onnx and torchscript may"):
        program = torch.export.export(graph, (), draft.example_inputs(), dynamic_shapes=draft.dynamic_shapes())
    check_program(program)
    return program


def _archive(draft: Draft, program: ExportedProgram, compiled: bool) -> bytes:
    # In memory, because torch's own writer ends the process when the disk is full.
    buffer = io.BytesIO()
    if compiled:
        with exporting(draft.graph, "AOTInductor", "a .pt2 that is not compiled runs on any machine"):
            torch._inductor.aoti_compile_and_package(program, package_path=buffer)
    else:
        with exporting(draft.graph, "torch.export.save"):
            torch.export.save(program, buffer)
    return buffer.getvalue()


def _add_description(archive: Path, document: str) -> None:
    with zipfile.ZipFile(archive, "a") as file:
        root = file.namelist()[0].split("/")[0]
        file.writestr(f"{root}/extra/{EXTRA_FILE}", document)
