"""Export to TorchScript, for hosts that embed libtorch."""

from pathlib import Path

import torch

from sefa.bank.direction_bank import DirectionBank
from sefa.generators import Generator
from sefa_export.draft import Draft, prepare
from sefa_export.torch_archives.separate_process import verify_in_process
from sefa_export.tracing import exporting, trace
from sefa_export.user_lines import lines_as_run, naming_the_users_lines
from sefa_runtime.files import check_utf8_output, replacing
from sefa_runtime.model.info import EXTRA_FILE


def export_torchscript(
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
    license: str | None = None,
    note: str | None = None,
) -> Path:
    """Bake a generator and its directions into a TorchScript archive with `forward(z, direction, alpha)`.

    The contract is that of `export_onnx`, checked the same way, in a separate process that imports only torch. The
    description is the archive's extra file `sefa.json`.

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
        license: Licence of the generator, an SPDX expression or other text of one line, recorded in the file; None: the
            one that its checkpoint names, if any.
        note: What else users of the file should know of the generator, one line; None: what its checkpoint says.

    Returns:
        `path`.

    Raises:
        BankError: If the bank was made for another generator.
        ArgumentError: If an option is unknown or not for this generator, or the generator is not in float32.
        VerificationError: If the archive differs from PyTorch.
        ExportError: If it cannot be exported.
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
    _write(draft, path)
    return path


def _write(draft: Draft, path: Path) -> None:
    with naming_the_users_lines(draft, _write), replacing(path) as partial:
        traced = trace(draft)
        draft = lines_as_run(draft)
        partial.write_bytes(_archive(draft, traced, {}))
        parity = verify_in_process(draft, partial, "torchscript")
        partial.write_bytes(_archive(draft, traced, {EXTRA_FILE: draft.describe(parity).to_json()}))


def _archive(draft: Draft, traced: torch.jit.ScriptModule, extra_files: dict[str, str]) -> bytes:
    # In memory: when the disk is full, torch's own writer gives no reason, or ends the process.
    with exporting(draft.graph, "torch.jit.save"):
        return bytes(traced.save_to_buffer(_extra_files=extra_files))
