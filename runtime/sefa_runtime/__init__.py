"""Serve the edits of an exported model: numpy, onnxruntime and pillow, no PyTorch.

>>> import sefa_runtime
>>> editor = sefa_runtime.load("faces.onnx")
>>> editor.edit(seed=7, edits={"direction-1": 2.5}).shape
(1, 64, 64, 3)
"""

from typing import TYPE_CHECKING, Any

from sefa_runtime.version import __version__

if TYPE_CHECKING:
    from sefa_runtime.editor import Editor, load
    from sefa_runtime.errors import (
        InputError,
        ModelFileError,
        NotFiniteError,
        ProviderError,
        RunError,
        SefaRuntimeError,
    )
    from sefa_runtime.inputs.latents import latents_from_seeds
    from sefa_runtime.model.info import DirectionInfo, ModelInfo, Parity

# Resolved on first use: the command line starts without numpy, and writes files without onnxruntime.
_HOMES = {
    "DirectionInfo": "sefa_runtime.model.info",
    "Editor": "sefa_runtime.editor",
    "InputError": "sefa_runtime.errors",
    "ModelFileError": "sefa_runtime.errors",
    "ModelInfo": "sefa_runtime.model.info",
    "NotFiniteError": "sefa_runtime.errors",
    "Parity": "sefa_runtime.model.info",
    "ProviderError": "sefa_runtime.errors",
    "RunError": "sefa_runtime.errors",
    "SefaRuntimeError": "sefa_runtime.errors",
    "latents_from_seeds": "sefa_runtime.inputs.latents",
    "load": "sefa_runtime.editor",
}

__all__ = [
    "DirectionInfo",
    "Editor",
    "InputError",
    "ModelFileError",
    "ModelInfo",
    "NotFiniteError",
    "Parity",
    "ProviderError",
    "RunError",
    "SefaRuntimeError",
    "__version__",
    "latents_from_seeds",
    "load",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'sefa_runtime' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
