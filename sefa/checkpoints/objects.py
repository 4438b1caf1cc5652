"""Stand-ins for the objects that checkpoints are made of: what a pickle tells of them, and nothing that runs."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sefa.errors import CheckpointError


class Placeholder:
    """An object of any class this toolkit does not know: it takes what the pickle gives it and does nothing.

    Attributes:
        class_name: Module and name, as the pickle has them.
        state: What the pickle would have set: attributes by name, as far as it is a dict.
    """

    class_name = "unknown"

    def __new__(cls, *arguments: object, **keywords: object) -> "Placeholder":
        return super().__new__(cls)

    def __init__(self, *arguments: object, **keywords: object) -> None:
        self.state: dict[str, Any] = {}

    def __setstate__(self, state: object) -> None:
        self.state = state if isinstance(state, dict) else {}

    # Items that a pickle appends or sets, for stand-ins of lists, sets and dicts.
    def append(self, item: object) -> None: ...
    def extend(self, items: object) -> None: ...
    def add(self, item: object) -> None: ...
    def __setitem__(self, key: object, value: object) -> None: ...


def placeholder(module: str, name: str) -> type[Placeholder]:
    """A class that stands for `module.name`."""
    return type("Placeholder", (Placeholder,), {"class_name": f"{module}.{name}"})


class StoredArray:
    """A numpy array that a pickle held; `numpy.asarray` gives it."""

    def __init__(self, array: NDArray[Any]) -> None:
        self.array = array

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.array(self.array, dtype=dtype)


class PersistedModule:
    """A network that NVlabs' `torch_utils.persistence` pickled: an nn.Module's attributes; its source text is dropped.

    Attributes:
        class_name: Name of the class it was: "Generator", "SynthesisNetwork", ...
        attributes: The module's plain attributes.
        parameters: Parameters and buffers of the module itself; None where the module has none under that name.
        modules: Submodules.
    """

    def __init__(self, class_name: str, state: dict[str, Any]) -> None:
        self.class_name = class_name
        containers = [state.get(name) for name in ("_parameters", "_buffers", "_modules")]
        if not all(isinstance(container, dict) for container in containers):
            raise CheckpointError(f"damaged: its {class_name} has no parameters, buffers or modules")
        parameters, buffers, modules = containers
        self.attributes = {name: value for name, value in state.items() if not name.startswith("_")}
        self.parameters: dict[str, Any] = {**parameters, **buffers}  # type: ignore[dict-item]
        self.modules: dict[str, Any] = dict(modules)  # type: ignore[arg-type]

    def module(self, path: str) -> "PersistedModule":
        """The submodule at a dotted path.

        Raises:
            CheckpointError: If there is none.
        """
        found = self
        for name in path.split("."):
            inner = found.modules.get(name)
            if not isinstance(inner, PersistedModule):
                raise CheckpointError(f"missing the module {path}")
            found = inner
        return found

    def attribute(self, name: str, kind: type = object) -> Any:
        """A plain attribute.

        Raises:
            CheckpointError: If it is missing or of another kind; an integer passes for a float.
        """
        value = self.attributes.get(name)
        if isinstance(value, np.generic):
            value = value.item()
        if kind is float and type(value) is int:
            value = float(value)
        if name not in self.attributes or not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise CheckpointError(f"its {self.class_name} has {name} = {value!r}, {kind.__name__} was expected")
        return value

    def tensors(self, prefix: str = "") -> dict[str, Tensor]:
        """All parameters and buffers below, by dotted path, like a state dict."""
        return dict(self._tensors(prefix))

    def _tensors(self, prefix: str) -> Iterator[tuple[str, Tensor]]:
        for name, tensor in self.parameters.items():
            if isinstance(tensor, Tensor):
                yield prefix + name, tensor
        for name, module in self.modules.items():
            if isinstance(module, PersistedModule):
                yield from module._tensors(f"{prefix}{name}.")
            elif isinstance(module, Placeholder):  # A plain torch module, such as StyleGAN-XL's Embedding.
                for container in ("_parameters", "_buffers"):
                    for inner, tensor in (module.state.get(container) or {}).items():
                        if isinstance(tensor, Tensor):
                            yield f"{prefix}{name}.{inner}", tensor


class TensorFlowNetwork:
    """A network that NVlabs' TensorFlow code pickled: `tfutil.Network` or `dnnlib.tflib.network.Network`.

    Attributes:
        state: The pickled attributes: version, name, static_kwargs, variables, components, ...
    """

    def __init__(self) -> None:
        self.state: dict[str, Any] = {}

    def __setstate__(self, state: object) -> None:
        if not isinstance(state, dict):
            raise CheckpointError("damaged: a TensorFlow network without attributes")
        self.state = state

    @property
    def static_kwargs(self) -> dict[str, Any]:
        """What the trainer passed to the network's function; its defaults are not stored."""
        kwargs = self.state.get("static_kwargs")
        return dict(kwargs) if isinstance(kwargs, dict) else {}

    def tensors(self, prefix: str = "") -> dict[str, Tensor]:
        """All variables below, by full name: "synthesis/4x4/Const/const", float32, in TensorFlow's layout.

        Raises:
            CheckpointError: If a variable is not an array of numbers.
        """
        found: dict[str, Tensor] = {}
        for item in self.state.get("variables") or []:
            name, value = item if isinstance(item, tuple | list) and len(item) == 2 else (None, None)
            array = np.asarray(value)
            if not isinstance(name, str) or array.dtype.kind not in "fiu":
                raise CheckpointError(f"damaged: the variable {name} is no array of numbers")
            # ascontiguousarray would give a scalar an axis.
            found[prefix + name] = torch.from_numpy(np.array(array, dtype=np.float32, order="C"))
        for name, component in (self.state.get("components") or {}).items():
            if isinstance(component, TensorFlowNetwork):
                found |= component.tensors(f"{prefix}{name}/")
        return found
