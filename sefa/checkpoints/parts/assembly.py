"""Turn a file's tensors into a generator's parameters, with every key accounted for."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from torch import Tensor, nn

from sefa.errors import CheckpointError, SefaError, listed
from sefa.generators import Generator

G = TypeVar("G", bound=Generator)
M = TypeVar("M", bound=nn.Module)
MAX_NAMED = 6  # keys in one message
VARIANT = "a variant of the original is read with its own code: MODULE:CLASS --weights FILE"

# A module's parameters and buffers, by their names within it.
Parameters = Mapping[str, Tensor]
# The shape that a tensor must have: exactly, as a number of entries in any shape, or None for any shape.
Shape = tuple[int, ...] | int | None
# A key and its tensor's shape; for a key alone, the shape of the module's parameter with the argument's name.
Stored = str | tuple[str, Shape]


@dataclass(frozen=True)
class Layer:
    """A module, the tensors that it needs, and the function that makes its parameters from them.

    Attributes:
        module: The module, still without values.
        make: The function.
        stored: The key and shape of each of the function's arguments.
    """

    module: nn.Module
    make: Callable[..., Parameters]
    stored: Mapping[str, tuple[str, Shape]]


class Assembly:
    """A file's tensors, and which of them each of a generator's layers needs.

    A format makes the generator on the meta device and calls `layer` for each layer, to say which tensors the layer
    needs and which function makes its parameters from them. `fill` then compares all of this with the file, and reports
    everything that does not fit in one message. The functions are called only if everything fits, so an unexpected
    error in one of them is a mistake of ours.

    Attributes:
        tensors: The file's tensors, by key.
    """

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self.tensors = tensors
        self._layers: list[Layer] = []
        self._required: list[str] = []
        self._unsized: dict[str, int] = {}  # Keys whose shapes could not be read, and how many axes they should have.

    def shape(self, key: str, ndim: int) -> tuple[int, ...]:
        """Return the shape of a tensor from which sizes are read.

        If the tensor is missing or has another number of axes, every size is 1, and `fill` reports the problem.
        """
        tensor = self.tensors.get(key)
        if tensor is not None and tensor.ndim == ndim:
            return tuple(tensor.shape)
        self._unsized[key] = ndim
        return (1,) * ndim

    def count(self, template: str, start: int = 0) -> int:
        """Count the keys `template.format(start)`, `template.format(start + 1)`, ... up to the first gap."""
        index = start
        while template.format(index) in self.tensors:
            index += 1
        return index - start

    def misfit(self, reason: str, kind: type[SefaError] = CheckpointError) -> SefaError:
        """Return the error for sizes that do not fit together; if some could not be read, it names their keys."""
        missing = [key for key in self._unsized if key not in self.tensors]
        misshapen = [self._describe_axes(key, "") for key in self._unsized if key in self.tensors]
        return _error(missing, [], misshapen) or kind(reason)

    def require(self, *keys: str) -> None:
        """Note that these keys must be there, even if no layer needs them."""
        self._required += keys

    def layer(self, module: M, make: Callable[..., Parameters] = dict, **stored: Stored | None) -> M:
        """Note what a layer is made from.

        Args:
            module: The layer, which will be part of the generator, or the generator itself.
            make: Makes the layer's parameters from the tensors, which it takes as keyword arguments with the names
                given here. By default, the tensors are the parameters.
            stored: The key of each tensor, with or without its shape; arguments that are None are not passed on.

        Returns:
            `module`.
        """
        located = {
            name: (one, tuple(getattr(module, name).shape)) if isinstance(one, str) else one
            for name, one in stored.items()
            if one is not None
        }
        self._layers.append(Layer(module, make, located))
        return module

    def fill(self, generator: G, ignored: Iterable[str] = ()) -> G:
        """Fill the generator.

        Args:
            generator: Made under `torch.device("meta")`, so that nothing was allocated or initialised.
            ignored: Regular expressions for keys that it has no use for; each must match a whole key.

        Returns:
            `generator`, in inference mode, its parameters without gradients.

        Raises:
            CheckpointError: If keys are missing, not understood, or of the wrong shape; one message reports all.
        """
        names = {module: name for name, module in generator.named_modules()}
        self._check(names, ignored)
        filled: dict[str, Tensor] = {}
        for layer in self._layers:
            name = names[layer.module]
            made = self._make(layer, name or generator.family)
            filled |= {f"{name}.{entry}".lstrip("."): tensor.contiguous() for entry, tensor in made.items()}
        shapes = {name: tensor.shape for name, tensor in filled.items()}
        wanted = {name: tensor.shape for name, tensor in generator.state_dict().items()}
        if shapes != wanted:
            raise AssertionError(f"layers' functions made {sorted(shapes.items() ^ wanted.items())}")
        generator.load_state_dict(filled, assign=True)
        return generator.eval().requires_grad_(False)

    def _make(self, layer: Layer, name: str) -> Parameters:
        try:
            return layer.make(**{argument: self.tensors[key] for argument, (key, _) in layer.stored.items()})
        except CheckpointError as error:
            raise CheckpointError(f"{name}: {error}") from error.__cause__
        except Exception as error:
            error.add_note(f"while making {name} of {', '.join(key for key, _ in layer.stored.values())}")
            raise

    def _check(self, names: Mapping[nn.Module, str], ignored: Iterable[str]) -> None:
        """Compare what the layers need with the file.

        Raises:
            CheckpointError: If they do not fit.
        """
        needed = dict.fromkeys([*self._required, *self._unsized], "")  # For each key, the first layer that needs it.
        misshapen: dict[str, str] = {}
        for layer in self._layers:
            for argument, (key, shape) in layer.stored.items():
                is_own = isinstance(getattr(layer.module, argument, None), Tensor)
                name = names[layer.module] or (argument if is_own else "its first layer")
                needed[key] = needed.get(key) or name
                problem = self._shape_problem(key, shape, name) if key in self.tensors else None
                if problem is not None:
                    misshapen.setdefault(key, problem)
        for key in self._unsized:  # A tensor that gives sizes is not always needed by a layer.
            if key in self.tensors:
                misshapen.setdefault(key, self._describe_axes(key, ""))
        folders = {_folder(key): name for key, name in reversed(needed.items()) if name}
        patterns = [re.compile(pattern) for pattern in ignored]
        missing = [f"{key} for {name}" if name else key for key, name in needed.items() if key not in self.tensors]
        unknown = [
            f"{key} beside {folders[_folder(key)]}" if _folder(key) in folders else key
            for key in self.tensors
            if key not in needed and not any(pattern.fullmatch(key) for pattern in patterns)
        ]
        error = _error(missing, unknown, list(misshapen.values()))
        if error:
            raise error

    def _shape_problem(self, key: str, shape: Shape, name: str) -> str | None:
        tensor = self.tensors[key]
        if not tensor.is_floating_point():
            return f"{key} {tensor.dtype} for {name} where floating point weights were expected"
        if key in self._unsized:
            return self._describe_axes(key, f" for {name}")
        # While some sizes are unknown, the expected shapes derived from them mean nothing.
        if self._unsized or shape is None or shape == (tensor.numel() if isinstance(shape, int) else tensor.shape):
            return None
        expected = f"{shape} numbers were" if isinstance(shape, int) else f"{list(shape)} was"
        return f"{key} {list(tensor.shape)} for {name} where {expected} expected"

    def _describe_axes(self, key: str, name: str) -> str:
        return f"{key} {list(self.tensors[key].shape)}{name} where {self._unsized[key]} axes were expected"


def _error(missing: list[str], unknown: list[str], misshapen: list[str]) -> CheckpointError | None:
    kinds = (("missing", missing), ("not understood", unknown), ("of the wrong shape", misshapen))
    problems = [f"{kind} {listed(items, MAX_NAMED)}" for kind, items in kinds if items]
    return CheckpointError("; ".join([*problems, VARIANT])) if problems else None


def _folder(key: str) -> str:
    """Return a key without its last name."""
    return re.split(r"[./][^./]*$", key)[0]
