"""Export to TorchScript, for hosts that embed libtorch."""

import copy
from pathlib import Path

import torch

from sefa.bank.direction_bank import DirectionBank
from sefa.generators import Generator
from sefa_export.alone import verify_alone
from sefa_export.bake import EditGraph, bake
from sefa_export.describe import describe
from sefa_export.parity import make_cases
from sefa_export.pinned import DYNAMIC
from sefa_export.tracing import exporting, trace
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
) -> Path:
    """Bake generator and directions into a TorchScript archive with `forward(z, direction, alpha)`.

    The same contract as `export_onnx`, checked the same way, in a process of its own that imports only torch. The
    description is the archive's extra file `sefa.json`.

    Args:
        generator: The generator, on any device; not changed.
        bank: Directions that were made for it.
        path: Where to write; an existing file is replaced.
        output_type: `uint8` or `float32`, see `bake`.
        latent: `z`, `w` or `w+`, see `bake`.
        truncation: Truncation psi, see `bake`.
        allow_other_checkpoint: See `bake`; the file says so.

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
    graph = copy.deepcopy(
        bake(
            generator,
            bank,
            output_type,
            latent=latent,
            truncation=truncation,
            allow_other_checkpoint=allow_other_checkpoint,
        )
    ).cpu()
    traced = trace(graph, DYNAMIC)
    with replacing(path) as partial:
        partial.write_bytes(_archive(graph, traced, {}))
        parity = verify_alone(graph, make_cases(graph), partial, "torchscript")
        info = describe(graph, bank, DYNAMIC, parity)
        partial.write_bytes(_archive(graph, traced, {EXTRA_FILE: info.to_json()}))
    return path


def _archive(graph: EditGraph, traced: torch.jit.ScriptModule, extra_files: dict[str, str]) -> bytes:
    # In memory: where the disk is full, torch's own writer gives no reason, or ends the process.
    with exporting(graph, "torch.jit.save"):
        return bytes(traced.save_to_buffer(_extra_files=extra_files))
