"""What directions do, measured on many images and shown on one page; built on the Editor with numpy and pillow.

>>> from sefa_runtime import load
>>> from sefa_runtime.explore import explore
>>> exploration = explore(load("faces.onnx"))
>>> exploration.effects[1].alpha_range
(-2.8, 2.6)
"""

from sefa_runtime.explore.effects import Effect
from sefa_runtime.explore.exploration import Exploration, explore
from sefa_runtime.explore.writing import save_exploration

__all__ = ["Effect", "Exploration", "explore", "save_exploration"]
