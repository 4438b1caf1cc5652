"""From a file's tensors to a generator's parameters, with every key accounted for."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from torch import Tensor, nn

from sefa.errors import CheckpointError, SefaError
from sefa.generators import Generator

G = TypeVar("G", bound=Generator)
M = TypeVar("M", bound=nn.Module)
MAX_NAMED = 6  # keys in one message
VARIANT = "a variant of the original is read with its own code: MODULE:CLASS --weights FILE"

# A module's parameters and buffers, by their names within it.
Parameters = Mapping[str, Tensor]
# The shape that a tensor must have; a number: as many entries, in any shape; None: any.
Shape = tuple[int, ...] | int | None
# A key, and the shape of its tensor; a key alone: the shape of the module's parameter that the argument is named for.
Stored = str | tuple[str, Shape]


@dataclass(frozen=True)
class Layer:
    """A module, the tensors that it needs, and the function that makes its parameters of them.

    Attributes:
        module: Without values.
        make: The function.
        stored: Key and shape of each of its arguments.
    """

    module: nn.Module
    make: Callable[..., Parameters]
    stored: Mapping[str, tuple[str, Shape]]


class Assembly:
    """A file's tensors, and what a generator's layers need of them.

    A format makes the generator on the meta device, and says of each layer, with `layer`, which tensors it needs, and
    which function makes its parameters of them. `fill` then compares all of this with the file, and reports all that
    does not fit in one message. Only if everything fits are the functions called: what fails in one is a mistake of
    ours.

    Attributes:
        tensors: The file's, by key.
    """

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self.tensors = tensors
        self._layers: list[Layer] = []
        self._required: list[str] = []
        self._unsized: dict[str, int] = {}  # Keys that should have told sizes, and the axes they should have had.

    def shape(self, key: str, ndim: int) -> tuple[int, ...]:
        """Return the shape of a tensor that tells sizes.

        Should the tensor be missing, or have another number of axes, which `fill` reports, the sizes are ones.
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
        """Return the error for sizes that do not fit together; if some are unknown, it names the keys they are of."""
        missing = [key for key in self._unsized if key not in self.tensors]
        misshapen = [self._describe_axes(key, "") for key in self._unsized if key in self.tensors]
        return _error(missing, [], misshapen) or kind(reason)

    def require(self, *keys: str) -> None:
        """Note that these keys must be there, although no layer needs them."""
        self._required += keys

    def layer(self, module: M, make: Callable[..., Parameters] = dict, **stored: Stored | None) -> M:
        """Note what a layer is made of.

        Args:
            module: The layer, which will be a part of the generator, or the generator itself.
            make: Makes its parameters of the tensors, which it takes by the names they have here. By default they are
                the parameters as they are.
            stored: Where the tensors are; those that are None are not passed on.

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
            ignored: Regular expressions, matched whole, of keys that it has no use for.

        Returns:
            `generator`, in inference mode, its parameters without gradients.

        Raises:
            CheckpointError: If keys are missing, not understood, or of the wrong shape; all of them are in the message.
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
        needed = dict.fromkeys([*self._required, *self._unsized], "")  # Of each key, the first layer that needs it.
        misshapen: dict[str, str] = {}
        for layer in self._layers:
            for argument, (key, shape) in layer.stored.items():
                is_own = isinstance(getattr(layer.module, argument, None), Tensor)
                name = names[layer.module] or (argument if is_own else "its first layer")
                needed[key] = needed.get(key) or name
                problem = self._shape_problem(key, shape, name) if key in self.tensors else None
                if problem is not None:
                    misshapen.setdefault(key, problem)
        for key in self._unsized:  # Not all that tell sizes are needed by a layer.
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
        # What is derived from sizes that are unknown says nothing of the others.
        if self._unsized or shape is None or shape == (tensor.numel() if isinstance(shape, int) else tensor.shape):
            return None
        expected = f"{shape} numbers were" if isinstance(shape, int) else f"{list(shape)} was"
        return f"{key} {list(tensor.shape)} for {name} where {expected} expected"

    def _describe_axes(self, key: str, name: str) -> str:
        return f"{key} {list(self.tensors[key].shape)}{name} where {self._unsized[key]} axes were expected"


def _error(missing: list[str], unknown: list[str], misshapen: list[str]) -> CheckpointError | None:
    kinds = (("missing", missing), ("not understood", unknown), ("of the wrong shape", misshapen))
    problems = [f"{kind} {_some(items)}" for kind, items in kinds if items]
    return CheckpointError("; ".join([*problems, VARIANT])) if problems else None


def _folder(key: str) -> str:
    """Return what stands before the last name of a key."""
    return re.split(r"[./][^./]*$", key)[0]


def _some(items: list[str]) -> str:
    return ", ".join(items[:MAX_NAMED]) + (f" and {len(items) - MAX_NAMED} more" if len(items) > MAX_NAMED else "")
