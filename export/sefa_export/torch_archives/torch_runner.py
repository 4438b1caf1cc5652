"""Run an exported archive in a process that imports only torch.

    python torch_runner.py torchscript|pt2|compiled ARCHIVE INPUTS OUTPUTS

INPUTS holds a list of dicts of tensors by argument name; OUTPUTS will hold the list of results.
"""

import io
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch


def load(kind: str, archive: str) -> Callable[..., Any]:
    """Load the archive as a function that takes tensors by name."""
    if kind == "torchscript":
        return torch.jit.load(archive, map_location="cpu")  # type: ignore[no-any-return,no-untyped-call]
    if kind == "pt2":
        return torch.export.load(archive).module()
    return torch._inductor.aoti_load_package(archive)


def main(kind: str, archive: str, inputs: str, outputs: str) -> None:
    """Load the archive, run it on each input and save the results."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Deprecations inside torch.
        model = load(kind, archive)
        with torch.no_grad():
            images = [model(**arguments) for arguments in torch.load(inputs, weights_only=True)]
    buffer = io.BytesIO()  # torch's own writer gives no reason when the disk is full.
    torch.save(images, buffer)
    Path(outputs).write_bytes(buffer.getvalue())


if __name__ == "__main__":
    main(*sys.argv[1:])
