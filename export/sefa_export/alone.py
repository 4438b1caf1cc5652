"""Does an archive give PyTorch's images in a process that imports only torch?"""

import io
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from sefa_export import torch_runner
from sefa_export.bake import EditGraph
from sefa_export.errors import VerificationError
from sefa_export.parity import Case, verify
from sefa_runtime.model.info import Parity


def verify_alone(graph: EditGraph, cases: list[Case], path: Path, kind: str) -> Parity:
    """Run the archive and compare; arguments, result and errors as `verify`, `kind` as `torch_runner`."""
    with tempfile.TemporaryDirectory() as folder:
        inputs, outputs = Path(folder, "inputs.pt"), Path(folder, "outputs.pt")
        buffer = io.BytesIO()  # torch's own writer gives no reason where the disk is full.
        torch.save([case.tensors for case in cases], buffer)
        inputs.write_bytes(buffer.getvalue())
        command = [sys.executable, torch_runner.__file__, kind, str(path), str(inputs), str(outputs)]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if result.returncode != 0:
            last_line = (result.stderr.strip() or "no message").splitlines()[-1]
            raise VerificationError(f"the exported archive does not run with torch alone: {last_line}")
        images = torch.load(outputs, weights_only=True)
    by_name = {case.name: image.numpy() for case, image in zip(cases, images, strict=True)}
    return verify(graph, lambda case: by_name[case.name], cases, [])
