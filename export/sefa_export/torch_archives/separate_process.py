"""Check in a separate process, which imports only torch, that an archive gives PyTorch's images."""

import io
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from sefa_export.draft import Draft
from sefa_export.errors import VerificationError
from sefa_export.parity import make_cases, verify
from sefa_export.torch_archives import torch_runner
from sefa_runtime.model.info import Parity


def verify_in_process(draft: Draft, path: Path, kind: str) -> Parity:
    """Run the archive and compare; returns and raises what `verify` does. `kind` is that of `torch_runner`."""
    cases = make_cases(draft)
    with tempfile.TemporaryDirectory() as folder:
        inputs, outputs = Path(folder, "inputs.pt"), Path(folder, "outputs.pt")
        buffer = io.BytesIO()  # torch's own writer gives no reason when the disk is full.
        torch.save([case.tensors for case in cases], buffer)
        inputs.write_bytes(buffer.getvalue())
        command = [sys.executable, torch_runner.__file__, kind, str(path), str(inputs), str(outputs)]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if result.returncode != 0:
            last_line = (result.stderr.strip() or "no message").splitlines()[-1]
            raise VerificationError(f"the exported archive does not run with torch alone: {last_line}")
        images = torch.load(outputs, weights_only=True)
    by_name = {case.name: image.numpy() for case, image in zip(cases, images, strict=True)}
    return verify(draft, lambda case: by_name[case.name], cases)
