"""Run a TorchScript archive in a process that imports only torch.

    python torchscript_runner.py ARCHIVE INPUTS OUTPUTS

INPUTS holds a list of dicts of tensors by argument name, OUTPUTS will hold the list of results.
"""

import sys
import warnings

import torch


def main(archive: str, inputs: str, outputs: str) -> None:
    """Load, run each input, save what came."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        model = torch.jit.load(archive, map_location="cpu")  # type: ignore[no-untyped-call]
    with torch.no_grad():
        images = [model(**arguments) for arguments in torch.load(inputs, weights_only=True)]
    torch.save(images, outputs)


if __name__ == "__main__":
    main(*sys.argv[1:])
