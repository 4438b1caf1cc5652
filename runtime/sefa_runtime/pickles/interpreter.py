"""An interpreter for pickles that runs nothing in them.

The standard library's `pickletools` takes a pickle apart, and what each opcode does is decided here. A name in a pickle
stays a name. When the pickle calls it, a table says which of our functions is called instead; a name that is not in
the table makes a placeholder. Nothing is imported, and only our own stand-ins accept a state.
"""

import pickletools
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeGuard

from sefa_runtime.errors import ContentError
from sefa_runtime.pickles.limits import Limits
from sefa_runtime.pickles.names import Name, look_up, refuse_to_run
from sefa_runtime.pickles.placeholders import Placeholder, StandIn

# Integers below this have distinct hashes: a file cannot fill a dict with colliding keys.
MAX_INTEGER_KEY = 2**60
# Longer text takes long to compare with equal text. No format has such keys.
MAX_KEY_LENGTH = 8192
# Binary opcodes cannot hold a larger index; the opcode written in digits can.
MAX_MEMO_INDEX = 2**32
# Longer byte strings are not kept in memory but read again when the pickle refers back to them.
MAX_REMEMBERED = 4096
# Characters of a name that cost one step, since names are searched for anything that runs code.
CHARACTERS_A_STEP = 20
# How Python pickles most objects: as a new instance of a class, without arguments; a state may follow.
NEW_OBJECT = {("copyreg", "_reconstructor"), ("copyreg", "__newobj__")}
# What `pickletools`, the stacks below, and calls with wrong arguments raise on damaged pickles.
DAMAGED = (ArithmeticError, LookupError, TypeError, ValueError)

# By module and name, the function called instead: with the limits, then the pickle's arguments.
Table = Mapping[tuple[str, str], Callable[..., Any]]


class Source(Protocol):
    """What a pickle is read from: an open file, an `io.BytesIO` or an `mmap.mmap`."""

    def read(self, size: int, /) -> bytes: ...
    def readline(self) -> bytes: ...
    def tell(self) -> int: ...
    def seek(self, position: int, /) -> object: ...


@dataclass(frozen=True)
class Literal:
    """The position of a byte string in the source."""

    start: int
    length: int


class Interpreter:
    """A reader of one pickle: a stack machine whose objects are plain data and stand-ins.

    Args:
        source: Positioned at the pickle's beginning.
        table: The functions called in place of the names in the pickle.
        limits: What reading it may cost.
        load_storage: Returns the object for a persistent id; None if there are none, as outside torch's files.
        refuse_unknown: Whether calling a name that is not in the table is refused, rather than making a placeholder.
    """

    def __init__(
        self,
        source: Source,
        table: Table,
        limits: Limits,
        load_storage: Callable[[Any], Any] | None = None,
        *,
        refuse_unknown: bool = False,
    ) -> None:
        self._source = source
        self._table = table
        self._limits = limits
        self._load_storage = load_storage
        self._refuse_unknown = refuse_unknown
        self._stack: list[Any] = []
        self._below: list[list[Any]] = []  # The stacks below the marks.
        self._memo: dict[int, Any] = {}
        self._last_bytes: tuple[bytes, Literal] = (b"", Literal(0, 0))

    def load(self) -> Any:
        """Return the pickle's object, and leave the source just after the pickle's end.

        Raises:
            ContentError: If it is damaged, wants to run code, or takes too much.
        """
        with warnings.catch_warnings():
            # Damaged strings may contain escape sequences unknown to Python, which keeps them as they are.
            warnings.simplefilter("ignore", DeprecationWarning)
            try:
                for opcode, argument, _ in pickletools.genops(self._source):  # type: ignore[arg-type]
                    self._limits.spend_work(COSTS.get(opcode.name, 1))
                    act = ACTIONS.get(opcode.name)
                    if act is None:
                        raise ContentError(
                            f"a pickle with the opcode {opcode.name}, which no checkpoint needs: refused"
                        )
                    act(self, argument)
                return self.pop()
            except DAMAGED as error:
                raise ContentError("truncated or damaged: a pickle that cannot be read") from error

    # The stack.

    def push(self, value: Any) -> None:
        self._stack.append(value)

    def pop(self) -> Any:
        return self._stack.pop()

    def duplicate(self) -> None:
        self.push(self._stack[-1])

    def mark(self) -> None:
        self._below.append(self._stack)
        self._stack = []

    def pop_to_mark(self) -> list[Any]:
        items, self._stack = self._stack, self._below.pop()
        return items

    def discard_to_mark(self) -> None:
        self.pop_to_mark()

    def pop_tuple(self, length: int) -> tuple[Any, ...]:
        return tuple(reversed([self.pop() for _ in range(length)]))

    def discard(self) -> None:
        if self._stack:
            self.pop()
        else:
            self.discard_to_mark()

    # The memo, by which a pickle refers back to objects.

    def push_bytes(self, value: bytes) -> None:
        self.push(value)
        self._last_bytes = value, Literal(self._source.tell() - len(value), len(value))

    def remember(self, index: int) -> None:
        value = self._stack[-1]
        last, literal = self._last_bytes
        # Pickles memoize every literal, and the tuple of arguments that contains it, mostly for nothing. Weights are
        # literals of megabytes.
        if literal.length > MAX_REMEMBERED and value is last:
            value = literal
        elif literal.length > MAX_REMEMBERED and _is_tuple_of_one(value) and value[0] is last:
            value = (literal,)
        if not 0 <= index < MAX_MEMO_INDEX:
            raise ContentError("damaged: it refers back too far")
        self._memo[index] = value

    def remember_next(self) -> None:
        self.remember(len(self._memo))

    def recall(self, index: int) -> None:
        value = self._memo[index]
        if isinstance(value, Literal):
            value = self._read_again(value)
        elif _is_tuple_of_one(value) and isinstance(value[0], Literal):
            value = (self._read_again(value[0]),)
        self.push(value)

    def _read_again(self, literal: Literal) -> bytes:
        self._limits.spend_bytes(literal.length)
        position = self._source.tell()
        self._source.seek(literal.start)
        value = self._source.read(literal.length)
        self._source.seek(position)
        return value

    # Containers.

    def append(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if isinstance(target, list):
            target.extend(items)
        elif not isinstance(target, StandIn):
            raise ContentError("damaged: items of something that is no list")

    def set_items(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if isinstance(target, dict):
            target.update(dict_of(items))
        elif not isinstance(target, StandIn):
            raise ContentError("damaged: keys of something that is no dict")

    def add(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if isinstance(target, set):
            target.update(filter(is_key, items))
        elif not isinstance(target, StandIn):
            raise ContentError("damaged: items of something that is no set")

    # Objects.

    def push_name(self, module: object, name: object) -> None:
        if not isinstance(module, str) or not isinstance(name, str):
            raise ContentError("damaged: a name that is no text")
        self._limits.spend_work((len(module) + len(name)) // CHARACTERS_A_STEP)
        self.push(look_up(module, name))

    def call(self, callee: object, arguments: object) -> None:
        if not isinstance(arguments, tuple):
            raise ContentError("damaged: a call without its arguments")
        if isinstance(callee, Name) and (callee.module, callee.name) in NEW_OBJECT and arguments:
            callee, arguments = arguments[0], ()
        if not isinstance(callee, Name):
            self.push(Placeholder("what another object made"))
        elif (callee.module, callee.name) in self._table:
            self.push(self._table[callee.module, callee.name](self._limits, *arguments))
        elif self._refuse_unknown:
            refuse_to_run(callee)
        else:
            self.push(Placeholder(str(callee)))

    def build(self, state: object) -> None:
        if isinstance(self._stack[-1], StandIn):
            self._stack[-1].set_state(state)

    def persistent(self, reference: object) -> None:
        if self._load_storage is None:
            raise ContentError("damaged: a reference to something outside the file")
        self.push(self._load_storage(reference))


def _is_tuple_of_one(value: object) -> TypeGuard[tuple[Any]]:
    return isinstance(value, tuple) and len(value) == 1


def is_key(value: object) -> bool:
    """Return whether a value may be a dict's key: a number or short text, which are quick to hash and compare."""
    if isinstance(value, int):
        return abs(value) < MAX_INTEGER_KEY
    if isinstance(value, str | bytes):
        return len(value) <= MAX_KEY_LENGTH
    return value is None or isinstance(value, float)


def dict_of(items: list[Any]) -> dict[Any, Any]:
    """Make a dict from alternating keys and values, without entries whose keys are objects: no format needs those."""
    return {key: value for key, value in zip(items[::2], items[1::2], strict=True) if is_key(key)}


Action = Callable[[Interpreter, Any], None]


def _always(value: Callable[[], Any]) -> Action:
    return lambda machine, _: machine.push(value())


def _instance(machine: Interpreter, argument: str) -> None:
    arguments = tuple(machine.pop_to_mark())
    machine.push_name(*argument.split(" ", 1))
    machine.call(machine.pop(), arguments)


def _object(machine: Interpreter, _: None) -> None:
    callee, *arguments = machine.pop_to_mark()
    machine.call(callee, tuple(arguments))


# What each opcode does with its argument. Opcodes for registries and buffers outside the file are left out.
ACTIONS: Mapping[str, Action] = {
    **dict.fromkeys(("PROTO", "FRAME", "STOP"), lambda machine, _: None),
    **dict.fromkeys(("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4"), Interpreter.push),
    **dict.fromkeys(("FLOAT", "BINFLOAT", "STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE"), Interpreter.push),
    **dict.fromkeys(("SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "BYTEARRAY8"), Interpreter.push),
    **dict.fromkeys(("SHORT_BINBYTES", "BINBYTES", "BINBYTES8"), Interpreter.push_bytes),
    "NONE": _always(lambda: None),
    "NEWTRUE": _always(lambda: True),
    "NEWFALSE": _always(lambda: False),
    "EMPTY_TUPLE": _always(tuple),
    "EMPTY_LIST": _always(list),
    "EMPTY_DICT": _always(dict),
    "EMPTY_SET": _always(set),
    "MARK": lambda machine, _: machine.mark(),
    "POP": lambda machine, _: machine.discard(),
    "POP_MARK": lambda machine, _: machine.discard_to_mark(),
    "DUP": lambda machine, _: machine.duplicate(),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), Interpreter.recall),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), Interpreter.remember),
    "MEMOIZE": lambda machine, _: machine.remember_next(),
    "TUPLE": lambda machine, _: machine.push(tuple(machine.pop_to_mark())),
    "TUPLE1": lambda machine, _: machine.push(machine.pop_tuple(1)),
    "TUPLE2": lambda machine, _: machine.push(machine.pop_tuple(2)),
    "TUPLE3": lambda machine, _: machine.push(machine.pop_tuple(3)),
    "LIST": lambda machine, _: machine.push(machine.pop_to_mark()),
    "DICT": lambda machine, _: machine.push(dict_of(machine.pop_to_mark())),
    "FROZENSET": lambda machine, _: machine.push(frozenset(filter(is_key, machine.pop_to_mark()))),
    "APPEND": lambda machine, _: machine.append([machine.pop()]),
    "APPENDS": lambda machine, _: machine.append(machine.pop_to_mark()),
    "SETITEM": lambda machine, _: machine.set_items(list(machine.pop_tuple(2))),
    "SETITEMS": lambda machine, _: machine.set_items(machine.pop_to_mark()),
    "ADDITEMS": lambda machine, _: machine.add(machine.pop_to_mark()),
    "GLOBAL": lambda machine, argument: machine.push_name(*argument.split(" ", 1)),
    "STACK_GLOBAL": lambda machine, _: machine.push_name(*machine.pop_tuple(2)),
    "REDUCE": lambda machine, _: machine.call(*machine.pop_tuple(2)),
    "NEWOBJ": lambda machine, _: machine.call(*machine.pop_tuple(2)),
    # The last item holds keyword arguments, which none of our functions takes.
    "NEWOBJ_EX": lambda machine, _: machine.call(*machine.pop_tuple(3)[:2]),
    "INST": _instance,
    "OBJ": _object,
    "BUILD": lambda machine, _: machine.build(machine.pop()),
    "BINPERSID": lambda machine, _: machine.persistent(machine.pop()),
}

# Opcodes that cost more than one step, because what they make is larger, or a function makes it.
CONTAINER_COST, CALL_COST = 4, 10
COSTS: Mapping[str, int] = {
    **dict.fromkeys(
        ("MARK", "EMPTY_LIST", "EMPTY_DICT", "EMPTY_SET", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"), CONTAINER_COST
    ),
    **dict.fromkeys(("LIST", "DICT", "FROZENSET", "GLOBAL", "STACK_GLOBAL"), CONTAINER_COST),
    **dict.fromkeys(("REDUCE", "NEWOBJ", "NEWOBJ_EX", "INST", "OBJ", "BUILD", "BINPERSID"), CALL_COST),
}
