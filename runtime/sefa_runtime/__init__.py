"""Serve the edits of an exported model with numpy, onnxruntime and pillow, without PyTorch.

>>> import sefa_runtime
>>> editor = sefa_runtime.load("faces.onnx")
>>> editor.edit(seed=7, edits={"turn": 2.5}).shape
(1, 64, 64, 3)
"""

from typing import TYPE_CHECKING

from sefa_runtime.lazy_names import lazy_names
from sefa_runtime.version import __version__ as __version__

if TYPE_CHECKING:
    from sefa_runtime.editor import Editor as Editor
    from sefa_runtime.editor import load as load
    from sefa_runtime.errors import InputError as InputError
    from sefa_runtime.errors import ModelFileError as ModelFileError
    from sefa_runtime.errors import NotFiniteError as NotFiniteError
    from sefa_runtime.errors import ProviderError as ProviderError
    from sefa_runtime.errors import RunError as RunError
    from sefa_runtime.errors import SefaRuntimeError as SefaRuntimeError
    from sefa_runtime.inputs.latents import latents_from_seeds as latents_from_seeds
    from sefa_runtime.model.info import DirectionInfo as DirectionInfo
    from sefa_runtime.model.info import ModelInfo as ModelInfo
    from sefa_runtime.model.info import Parity as Parity
else:
    __all__, __getattr__ = lazy_names(
        __name__,
        {
            "sefa_runtime.editor": ("Editor", "load"),
            "sefa_runtime.errors": (
                "InputError",
                "ModelFileError",
                "NotFiniteError",
                "ProviderError",
                "RunError",
                "SefaRuntimeError",
            ),
            "sefa_runtime.inputs.latents": ("latents_from_seeds",),
            "sefa_runtime.model.info": ("DirectionInfo", "ModelInfo", "Parity"),
        },
    )
