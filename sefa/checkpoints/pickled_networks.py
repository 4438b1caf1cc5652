"""Stand-ins for the networks in NVlabs' pickles, and the table of what is called instead of the names in a pickle."""

import reprlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sefa.checkpoints.sizes import MAX_ENTRIES, check_names, check_uses
from sefa.errors import CheckpointError
from sefa_runtime.errors import ContentError
from sefa_runtime.pickles.interpreter import Table
from sefa_runtime.pickles.limits import Limits
from sefa_runtime.pickles.names import MAX_LENGTH, RUNNING, Name, refuse_to_run
from sefa_runtime.pickles.numpy_arrays import StoredArray
from sefa_runtime.pickles.placeholders import Placeholder, StandIn, is_module_state
from sefa_runtime.pickles.tables import PLAIN_TABLE, make_dict
from sefa_runtime.pickles.torch_tensors import Storage, tensor_table

MAX_SIZE = 2**31


class PersistedModule:
    """Stands in for an nn.Module that NVlabs' `torch_utils.persistence` pickled, without its source text.

    Attributes:
        class_name: The module's class: "Generator", "SynthesisNetwork", ...
        attributes: Its plain attributes.
        parameters: Its own parameters and buffers; None for one that is registered but not set.
        modules: Its submodules.
    """

    def __init__(self, class_name: str, state: Mapping[Any, Any]) -> None:
        if not is_module_state(state):
            raise ContentError(f"damaged: its {class_name} has no parameters, buffers or modules")
        self.class_name = class_name
        self.attributes = {
            name: value for name, value in state.items() if isinstance(name, str) and not name.startswith("_")
        }
        self.parameters: dict[str, Any] = {**state["_parameters"], **state["_buffers"]}
        self.modules: dict[str, Any] = dict(state["_modules"])

    def module(self, path: str) -> "PersistedModule":
        """Return the submodule at a dotted path.

        Raises:
            CheckpointError: If there is no such submodule.
        """
        found = self
        for name in path.split("."):
            inner = found.modules.get(name)
            if not isinstance(inner, PersistedModule):
                raise CheckpointError(f"missing the module {path}")
            found = inner
        return found

    def attribute(self, name: str, kind: type = object) -> Any:
        """Return a plain attribute.

        Raises:
            CheckpointError: If it is missing or of another kind. An integer must be a size, 0 to `MAX_SIZE`, and is
                also accepted where a float is expected.
        """
        value: Any = self.attributes.get(name)
        if isinstance(value, np.generic):
            value = value.item()
        is_size = type(value) is int and 0 <= value <= MAX_SIZE
        if kind is float and is_size:
            value = float(value)
        if name not in self.attributes or not (is_size if kind is int else isinstance(value, kind)):
            shown = reprlib.repr(value)
            raise CheckpointError(f"its {self.class_name} has {name} = {shown}, {kind.__name__} was expected")
        return value

    def tensors(self) -> dict[str, Tensor]:
        """Return all parameters and buffers: see `module_tensors`."""
        return module_tensors(self)


class TensorFlowNetwork(StandIn):
    """Stands in for a network from NVlabs' TensorFlow code: `tfutil.Network` or `dnnlib.tflib.network.Network`.

    Attributes:
        state: The pickled attributes: version, name, static_kwargs, variables, components, ...
    """

    def __init__(self) -> None:
        self.state: dict[str, Any] = {}

    def set_state(self, state: object) -> None:
        if not isinstance(state, dict):
            raise ContentError("damaged: a TensorFlow network without attributes")
        self.state = state

    @property
    def static_kwargs(self) -> dict[str, Any]:
        """The options that the trainer passed to the network's function, whose defaults are not stored."""
        kwargs = self.state.get("static_kwargs")
        kwargs = kwargs if isinstance(kwargs, dict) else {}
        # No option is a tensor, and comparing one with the known options would fail.
        return {name: Placeholder("a tensor") if isinstance(one, Tensor) else one for name, one in kwargs.items()}

    def tensors(self, prefix: str = "") -> dict[str, Tensor]:
        """Return all variables by their full names, "synthesis/4x4/Const/const", as float32 in TensorFlow's layout.

        Raises:
            CheckpointError: If a variable is not an array of numbers.
        """
        found: dict[str, Tensor] = {}
        converted: dict[int, Tensor] = {}  # One array may be several variables.
        entries = 0
        pending: list[tuple[str, TensorFlowNetwork]] = [(prefix, self)]
        while pending:
            path, network = pending.pop()
            variables, components = network.state.get("variables"), network.state.get("components")
            variables = variables if isinstance(variables, list) else []
            components = components if isinstance(components, dict) else {}
            entries += 1 + len(variables) + len(components)
            if entries > MAX_ENTRIES:
                raise CheckpointError(f"damaged: more than {MAX_ENTRIES} networks and variables")
            for item in variables:
                name, value = item if isinstance(item, tuple | list) and len(item) == 2 else (None, None)
                if not isinstance(name, str):
                    raise CheckpointError("damaged: a variable without a name")
                check_names([name], path)
                if id(value) not in converted:
                    converted[id(value)] = _numbers(path + name, value)
                found[path + name] = converted[id(value)]
            check_names(components, path)
            for name, component in reversed(list(components.items())):
                if isinstance(component, TensorFlowNetwork):
                    pending.append((f"{path}{name}/", component))
        check_uses(found)
        return found


def module_tensors(module: PersistedModule | Placeholder) -> dict[str, Tensor]:
    """Return all parameters and buffers, including those of submodules, as a state dict.

    Raises:
        CheckpointError: If one of them is not an ordinary tensor.
    """
    found: dict[str, Tensor] = {}
    entries = 0
    pending: list[tuple[str, object]] = [("", module)]
    while pending:
        path, part = pending.pop()
        parameters, modules = _parts(part)
        entries += 1 + len(parameters) + len(modules)
        if entries > MAX_ENTRIES:
            raise CheckpointError(f"damaged: more than {MAX_ENTRIES} modules and parameters")
        check_names((*parameters, *modules), path)
        for name, tensor in parameters.items():
            if isinstance(tensor, Tensor):
                found[f"{path}{name}"] = tensor
            elif tensor is not None:
                raise CheckpointError(f"{path}{name} is not an ordinary tensor of weights: {reprlib.repr(tensor)}")
        pending.extend((f"{path}{name}.", inner) for name, inner in reversed(list(modules.items())))
    check_uses(found)
    return found


def _parts(module: object) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Return a module's own parameters and buffers, and its submodules."""
    if isinstance(module, PersistedModule):
        return module.parameters, module.modules
    if isinstance(module, Placeholder) and module.is_module:  # A plain torch module, such as StyleGAN-XL's Embedding.
        return {**module.state["_parameters"], **module.state["_buffers"]}, module.state["_modules"]
    return {}, {}


def _numbers(name: str, value: object) -> Tensor:
    array = value.array if isinstance(value, StoredArray) else value
    if isinstance(array, np.ndarray | np.generic | float | int) and np.asarray(array).dtype.kind in "fiu":
        # ascontiguousarray would give a scalar an axis.
        return torch.from_numpy(np.array(array, dtype=np.float32, order="C"))
    raise CheckpointError(f"damaged: the variable {name} is no array of numbers")


def make_tensor(storage: Storage, offset: int, size: tuple[int, ...], stride: tuple[int, ...]) -> Tensor:
    """Return a tensor that is a view of a storage, not a copy."""
    dtype = getattr(torch, storage.dtype)
    if not len(storage):  # torch.frombuffer refuses an empty buffer.
        return torch.empty(0, dtype=dtype).as_strided(size, stride)
    return torch.frombuffer(storage.raw, dtype=dtype, count=len(storage)).as_strided(size, stride, offset)


def _persisted(limits: Limits, meta: object, *rest: object) -> PersistedModule:
    # The source text is another entry of `meta`, and is never run.
    class_name, state = (meta.get("class_name"), meta.get("state")) if isinstance(meta, dict) else (None, None)
    if not isinstance(class_name, str) or not isinstance(state, dict):
        raise ContentError("damaged: a network without its class or state")
    containers = [state.get(name) for name in ("_parameters", "_buffers", "_modules")]
    limits.spend_work(len(state) + sum(len(container) for container in containers if isinstance(container, dict)))
    return PersistedModule(class_name, state)


def _network(limits: Limits, *rest: object) -> TensorFlowNetwork:
    return TensorFlowNetwork()  # A state follows.


def _method(limits: Limits, owner: object, name: object, *rest: object) -> Placeholder:
    # Python pickles bound methods as calls of getattr. Any other use of getattr is an attack.
    is_class = isinstance(owner, Name) and owner.module != "builtins"
    if not (is_class or isinstance(owner, Placeholder | PersistedModule)) or not isinstance(name, str):
        refuse_to_run(Name("builtins", "getattr"))
    if len(name) > MAX_LENGTH or not name.isidentifier() or name.startswith("_") or RUNNING.fullmatch(name):
        refuse_to_run(Name("builtins", "getattr"))
    return Placeholder("a method")


TABLE: Table = {
    **PLAIN_TABLE,
    **tensor_table(make_tensor),
    ("builtins", "getattr"): _method,
    ("dnnlib.util", "EasyDict"): make_dict,
    ("easydict", "EasyDict"): make_dict,
    ("torch_utils.persistence", "_reconstruct_persistent_obj"): _persisted,
    ("tfutil", "Network"): _network,
    ("dnnlib.tflib.network", "Network"): _network,
}
