"""Export to TorchScript, for hosts that embed libtorch."""

import copy
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import torch

from sefa.bank import DirectionBank
from sefa.generators import Generator
from sefa_export import torchscript_runner
from sefa_export.bake import EditGraph, bake
from sefa_export.describe import describe
from sefa_export.errors import VerificationError
from sefa_export.parity import Case, make_cases, verify
from sefa_export.pinned import DYNAMIC
from sefa_runtime.files import check_output, replacing
from sefa_runtime.model_info import TORCHSCRIPT_EXTRA_FILE, Parity


def export_torchscript(
    generator: Generator,
    bank: DirectionBank,
    path: str | Path,
    output: str = "uint8",
    *,
    latent: str = "z",
    truncation: float | None = 1.0,
) -> Path:
    """Bake generator and directions into a TorchScript archive with `forward(z, direction, alpha)`.


    The same contract as `export_onnx`, checked the same way, in a process of its own that imports only torch. The
    description is the archive's extra file `sefa.json`.

    Args:
        generator: The generator, on any device; not changed.
        bank: Directions that were made for it.
        path: Where to write; an existing file is replaced.
        output: `uint8` or `float32`, see `bake`.
        latent: `z`, `w` or `w+`, see `bake`.
        truncation: Truncation psi, see `bake`.

    Returns:
        `path`.

    Raises:
        BankError: If the bank was made for another generator.
        ArgumentError: If an option is unknown or not for this generator, or the generator is not in float32.
        VerificationError: If the archive differs from PyTorch.
        OSError: If the file cannot be written.
    """
    path = Path(path)
    check_output(path)
    graph = copy.deepcopy(bake(generator, bank, output, latent=latent, truncation=truncation)).cpu()
    with warnings.catch_warnings(), replacing(path) as partial:
        # torch advises torch.export instead; libtorch hosts load TorchScript.
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        # Checked below, on more than one input, rather than by torch on this one.
        traced = torch.jit.trace(graph, DYNAMIC.example_inputs(graph), check_trace=False)  # type: ignore[no-untyped-call]
        _save(traced, partial, {})
        parity = _verify(graph, make_cases(graph), partial)
        info = describe(graph, bank, DYNAMIC, parity)
        _save(traced, partial, {TORCHSCRIPT_EXTRA_FILE: info.to_json()})
    return path


def _save(traced: torch.jit.ScriptModule, path: Path, extra_files: dict[str, str]) -> None:
    # torch reports a full disk as a RuntimeError without its reason; Python's own file tells.
    with path.open("wb") as file:
        file.write(traced.save_to_buffer(_extra_files=extra_files))


def _verify(graph: EditGraph, cases: list[Case], path: Path) -> Parity:
    with tempfile.TemporaryDirectory() as folder:
        inputs, outputs = Path(folder, "inputs.pt"), Path(folder, "outputs.pt")
        torch.save([case.tensors for case in cases], inputs)
        command = [sys.executable, torchscript_runner.__file__, str(path), str(inputs), str(outputs)]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if result.returncode != 0:
            last_line = (result.stderr.strip() or "no message").splitlines()[-1]
            raise VerificationError(f"the TorchScript archive does not run with torch alone: {last_line}")
        images = torch.load(outputs, weights_only=True)
    by_name = {case.name: image.numpy() for case, image in zip(cases, images, strict=True)}
    return verify(graph, lambda case: by_name[case.name], cases, [])
