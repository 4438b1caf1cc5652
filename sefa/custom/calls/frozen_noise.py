"""Replace the random numbers that a module draws by constants, the same in every image and every call."""

import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import cycle
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from sefa.custom.user_code import kind, users_frame, users_line
from sefa.errors import ArgumentError

MAX_SEED = 2**63 - 1


@dataclass(frozen=True)
class Draw:
    """Random numbers that one call of the module drew.

    Attributes:
        sort: `normal` (of mean 0 and deviation 1), `uniform` (from 0 to 1), `integer` or `order`.
        shape: Their shape.
        bounds: The smallest integer, and the first that is too large.
        operator: The function that drew them.
        place: File and line of the user's code that called it; empty if unknown.
        owner: Name of the module whose forward that is; empty if unknown.
    """

    sort: str
    shape: tuple[int, ...]
    bounds: tuple[int, int] = field(default=(0, 1), kw_only=True)
    operator: str
    place: str
    owner: str

    @property
    def key(self) -> tuple[object, ...]:
        """What tells it from other draws, wherever in a run it comes."""
        return self.owner, self.place, self.sort, len(self.shape)

    def numbers(self, random: torch.Generator) -> Tensor:
        """Draw such numbers."""
        if self.sort == "normal":
            return torch.randn(self.shape, generator=random)
        if self.sort == "uniform":
            return torch.rand(self.shape, generator=random)
        if self.sort == "order":
            return torch.randperm(self.shape[0], generator=random)
        return torch.randint(*self.bounds, self.shape, generator=random)


class FrozenNoise(nn.Module):
    """The constants that stand for a module's random numbers, as buffers.

    A draw is recognised by its line and by the layer that the line belongs to, so that a layer may also run alone, or
    once more. Several draws of one line in one layer take turns.

    Attributes:
        draws: What each constant stands for; its shape has 1 where the batch size was.
    """

    def __init__(self, draws: Sequence[Draw] = (), seed: int = 0) -> None:
        super().__init__()
        self.draws = tuple(draws)
        random = torch.Generator().manual_seed(seed)
        for index, draw in enumerate(draws):
            self.register_buffer(f"constant_{index}", draw.numbers(random))

    @contextmanager
    def in_place(self, module: nn.Module) -> Iterator[None]:
        """Give the constants instead of random numbers to a module that draws them."""
        if not self.draws:
            yield
            return
        names = _names(module)
        turns: dict[tuple[object, ...], Iterator[Tensor]] = {}
        for draw in self.draws:
            turns.setdefault(draw.key, self._in_turn(draw.key))

        def give(sort: str, shape: Sequence[Any], operator: str, bounds: tuple[int, int]) -> Tensor:
            draw = _draw(names, sort, shape, operator, bounds)
            constant = next(turns[draw.key]) if draw.key in turns else None
            if constant is None or any(
                type(size) is int and size != length and length != 1
                for size, length in zip(shape, constant.shape, strict=True)
            ):
                raise ArgumentError(
                    f"it draws other random numbers from call to call ({operator} at {draw.place}), which cannot be "
                    "frozen"
                )
            # A copy, because the caller may work in place.
            return constant.expand(*shape).clone()

        with _Drawing(give):
            yield

    def _in_turn(self, key: tuple[object, ...]) -> Iterator[Tensor]:
        indices = [index for index, draw in enumerate(self.draws) if draw.key == key]
        return cycle([self.get_buffer(f"constant_{index}") for index in indices])

    @property
    def in_words(self) -> str:
        """What was frozen: operators and places."""
        drawn = Counter(f"{draw.operator} at {draw.place}" if draw.place else draw.operator for draw in self.draws)
        return ", ".join(what + (f" ({count} times)" if count > 1 else "") for what, count in drawn.items())


def make_noise(module: nn.Module, run: Callable[[Tensor], object], codes: Tensor, seed: int) -> FrozenNoise:
    """Make constants for the random numbers that a module draws.

    Args:
        module: The module, for messages.
        run: Calls it with codes [N, D].
        codes: Codes, [3, D].
        seed: Seed of the constants.

    Raises:
        ArgumentError: If it draws none from Python, or how many depends on the batch in more than their shapes.
    """
    if type(seed) is not int or not 0 <= seed <= MAX_SEED:
        raise ArgumentError(f"freeze_noise must be a seed, 0 to {MAX_SEED}, got {seed!r}")
    three, two = _record(module, run, codes), _record(module, run, codes[:2])
    if not three and not two:
        raise ArgumentError(
            f"{kind(module)} draws no random numbers that could be frozen: leave out --freeze-noise"
            + ("; those of compiled TorchScript stay" if any(map(_is_compiled, module.modules())) else "")
        )
    for one, other in zip(three, two, strict=False):
        if one.key != other.key:
            raise ArgumentError(f"{kind(module)} draws other random numbers for other batches: {_in_batches(one)}")
        if one.sort == "order" and one.shape != other.shape:
            raise ArgumentError(f"{kind(module)} draws an order of its batch: {_in_batches(one)}")
    if len(three) != len(two):
        raise ArgumentError(
            f"{kind(module)} draws random numbers image by image: {_in_batches(max(three, two, key=len)[-1])}"
        )
    draws = []
    for one, other in zip(three, two, strict=True):
        shape = tuple(a if a == b else 1 for a, b in zip(one.shape, other.shape, strict=True))
        draws.append(replace(one, shape=shape))
    return FrozenNoise(draws, seed)


def _is_compiled(module: nn.Module) -> bool:
    return isinstance(module, torch.jit.ScriptModule)


def _in_batches(draw: Draw) -> str:
    return (
        f"{draw.operator}{f' at {draw.place}' if draw.place else ''}; frozen numbers are the same in every image: draw "
        "them for the whole batch at once, or make them a buffer"
    )


def _names(module: nn.Module) -> dict[int, str]:
    return {id(layer): name for name, layer in module.named_modules()}


def _draw(names: dict[int, str], sort: str, shape: Sequence[Any], operator: str, bounds: tuple[int, int]) -> Draw:
    """Describe a draw that is being made, with the line and the layer that make it."""
    frame = users_frame(sys._getframe(1))
    place = users_line(frame)
    owner = ""
    while frame is not None and not owner:
        owner = names.get(id(frame.f_locals.get("self")), "")
        frame = users_frame(frame.f_back)
    return Draw(sort, tuple(shape), operator, place, owner, bounds=bounds)


def _record(module: nn.Module, run: Callable[[Tensor], object], codes: Tensor) -> list[Draw]:
    """Run the module and return what it draws."""
    draws: list[Draw] = []
    names = _names(module)
    random = torch.Generator().manual_seed(0)

    def give(sort: str, shape: Sequence[Any], operator: str, bounds: tuple[int, int]) -> Tensor:
        draws.append(_draw(names, sort, shape, operator, bounds))
        return draws[-1].numbers(random)

    with _Drawing(give):
        run(codes)
    return draws


Give = Callable[[str, Sequence[Any], str, tuple[int, int]], Tensor]


class _Drawing(TorchFunctionMode):
    """Calls `give` where torch would draw random numbers.

    This is the level of Python's calls, above the operators, so that exporters see the constants.
    """

    def __init__(self, give: Give) -> None:
        super().__init__()
        self._give = give

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        replacement = REPLACEMENTS.get(func)
        if replacement is None:
            return func(*args, **(kwargs or {}))

        def draw(sort: str, shape: Sequence[Any], bounds: tuple[int, int] = (0, 1)) -> Tensor:
            return self._give(sort, shape, func.__name__, bounds)

        keywords = {key: value for key, value in (kwargs or {}).items() if key not in IGNORED}
        tensors = [keywords.pop(key) for key in TENSORS if key in keywords]
        return replacement(draw, *tensors, *args, **keywords)


# What the constants do not depend on: they have the seed, and lie where the module does.
IGNORED = ("generator", "device", "layout", "pin_memory", "requires_grad", "memory_format", "names")
TENSORS = ("input", "tensor")  # names of a first argument


def _as(numbers: Tensor, dtype: torch.dtype | None, out: Tensor | None = None) -> Tensor:
    numbers = numbers if dtype is None else numbers.to(dtype)
    return numbers if out is None else out.copy_(numbers)


def _sizes(args: Sequence[Any], size: Any) -> Sequence[Any]:
    if size is None:
        size = args[0] if len(args) == 1 and isinstance(args[0], Sequence) else args
    return tuple(size) if isinstance(size, Sequence) else (size,)


def _factory(sort: str) -> Callable[..., Tensor]:
    def made(draw: Any, *args: Any, size: Any = None, dtype: Any = None, out: Any = None) -> Tensor:
        return _as(draw(sort, _sizes(args, size)), dtype or torch.get_default_dtype(), out)

    return made


def _like(sort: str) -> Callable[..., Tensor]:
    def made(draw: Any, x: Tensor, *, dtype: Any = None) -> Tensor:
        return _as(draw(sort, x.shape), dtype or x.dtype)

    return made


def _normal(draw: Any, mean: Any = 0.0, std: Any = 1.0, size: Any = None, *, dtype: Any = None, out: Any = None) -> Any:
    tensors = [value.shape for value in (mean, std) if isinstance(value, Tensor)]
    shape = torch.broadcast_shapes(*tensors) if tensors else _sizes((), size)  # type: ignore[no-untyped-call]
    numbers = draw("normal", shape)
    return _as(numbers * std + mean, dtype, out)


def _normal_(draw: Any, x: Tensor, mean: float = 0.0, std: float = 1.0) -> Tensor:
    return x.copy_(draw("normal", x.shape) * std + mean)


def _uniform_(draw: Any, x: Tensor, a: float = 0.0, b: float = 1.0, **named: float) -> Tensor:
    low, high = named.get("from", a), named.get("to", b)  # No argument of Python's can be called `from`.
    return x.copy_(draw("uniform", x.shape) * (high - low) + low)


def _exponential_(draw: Any, x: Tensor, lambd: float = 1.0) -> Tensor:
    return x.copy_(-torch.log1p(-draw("uniform", x.shape)) / lambd)


def _bernoulli(draw: Any, x: Tensor, p: Any = None, *, out: Any = None) -> Tensor:
    return _as(draw("uniform", x.shape) < (x if p is None else p), x.dtype, out)


def _bernoulli_(draw: Any, x: Tensor, p: Any = 0.5) -> Tensor:
    return x.copy_(draw("uniform", x.shape) < p)


def _dropout(shape_of: Callable[[Tensor], Sequence[Any]]) -> Callable[..., Tensor]:
    def made(
        draw: Any, x: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False, *, train: bool = True
    ) -> Tensor:
        if not (training and train):
            return x
        scale = 0.0 if p == 1 else 1 / (1 - p)
        kept = x * ((draw("uniform", shape_of(x)) >= p).to(x.dtype) * scale)
        return x.copy_(kept) if inplace else kept

    return made


def _channels(x: Tensor) -> Sequence[Any]:
    return (*x.shape[:2], *[1] * (x.ndim - 2))


def _integers(draw: Any, *args: Any, low: int = 0, high: Any = None, size: Any = None, dtype: Any = None) -> Tensor:
    if size is None:
        *args, size = args  # type: ignore[assignment]
    return _as(draw("integer", _sizes((), size), _bounds(args, low, high)), dtype or torch.int64)


def _integers_like(draw: Any, x: Tensor, *args: Any, low: int = 0, high: Any = None, dtype: Any = None) -> Tensor:
    return _as(draw("integer", x.shape, _bounds(args, low, high)), dtype or x.dtype)


def _bounds(args: Sequence[Any], low: int, high: Any) -> tuple[int, int]:
    """Return low and high, of (high), (low, high) or keywords."""
    if len(args) == 2:
        low, high = args
    elif args and high is None:
        high = args[0]
    elif args:
        low = args[0]
    return int(low), int(high)


def _order(draw: Any, n: int, *, dtype: Any = None) -> Tensor:
    return _as(draw("order", (n,)), dtype)


REPLACEMENTS: dict[Any, Callable[..., Tensor]] = {
    torch.randn: _factory("normal"),
    torch.rand: _factory("uniform"),
    torch.randn_like: _like("normal"),
    torch.rand_like: _like("uniform"),
    torch.normal: _normal,
    Tensor.normal_: _normal_,
    nn.init.normal_: _normal_,
    Tensor.uniform_: _uniform_,
    nn.init.uniform_: _uniform_,
    Tensor.exponential_: _exponential_,
    torch.bernoulli: _bernoulli,
    Tensor.bernoulli: _bernoulli,
    Tensor.bernoulli_: _bernoulli_,
    torch.dropout: _dropout(lambda x: x.shape),
    F.dropout: _dropout(lambda x: x.shape),
    F.dropout1d: _dropout(_channels),
    F.dropout2d: _dropout(_channels),
    F.dropout3d: _dropout(_channels),
    torch.randint: _integers,
    torch.randint_like: _integers_like,
    torch.randperm: _order,
}
