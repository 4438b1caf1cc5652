"""Options as dataclasses: a command's parameter that is a dataclass stands for one option per field.

Types and defaults come from the dataclass, which is usually the library's; a `Group` adds the help texts.
"""

import copy
import inspect
from collections.abc import Callable, Iterable
from dataclasses import MISSING, fields
from typing import Annotated, Any, NamedTuple, get_args

from sefa.opening import option_name

Command = Callable[..., None]
KEYWORD = inspect.Parameter.KEYWORD_ONLY


class Typed(NamedTuple):
    """How an option is written on the command line if its value has another type.

    Attributes:
        kind: A type known to typer, for what is on the command line; it includes None, for an option not given.
        read: Turns that into the option's value, or raises one of our errors.
    """

    kind: Any
    read: Callable[[Any], Any]


class Group:
    """Some fields of a dataclass as options: `Annotated[Options, Group(top=typer.Option(...))]`.

    Args:
        options: For each field's name, the result of `typer.Option`, in a tuple with a `Typed` if one is needed. Fields
            that are not named keep their defaults.
    """

    def __init__(self, **options: Any) -> None:
        self.options = {name: one if isinstance(one, tuple) else (one,) for name, one in options.items()}

    def only(self, *names: str) -> "Group":
        """Return a group with only these fields."""
        return Group(**{name: self.options[name] for name in names})

    def without(self, *names: str) -> "Group":
        """Return a group with all fields but these."""
        return self.only(*(name for name in self.options if name not in names))

    def in_panel(self, panel: str) -> "Group":
        """Return the group with a panel of its own in the help."""
        moved = Group(**{name: (copy.copy(option), *rest) for name, (option, *rest) in self.options.items()})
        for option, *_ in moved.options.values():
            option.rich_help_panel = panel
        return moved


def given(options: Any, *names: str) -> list[str]:
    """Return the option names of the fields that differ from their defaults, among all fields or those named."""
    default = type(options)()
    return [option_name(name) for name in names or vars(options) if getattr(options, name) != getattr(default, name)]


def spread(command: Command) -> Command:
    """Return a command as typer takes it: groups become single options, with their types on the command line.

    Args:
        command: The command; all its parameters must be `Annotated`.
    """
    parameters: dict[str, inspect.Parameter] = {}
    groups: dict[str, tuple[type, tuple[str, ...]]] = {}
    readers: dict[str, Callable[[Any], Any]] = {}

    def add(name: str, kind: Any, words: Iterable[Any], default: Any) -> None:
        typed = next((word for word in words if isinstance(word, Typed)), None)
        if typed is not None:
            kind, default, readers[name] = typed.kind, None, typed.read
        annotation = Annotated[(kind, *(word for word in words if word is not typed))]
        parameters[name] = inspect.Parameter(name, KEYWORD, default=default, annotation=annotation)

    for name, parameter in inspect.signature(command).parameters.items():
        kind, *words = get_args(parameter.annotation)
        group = next((word for word in words if isinstance(word, Group)), None)
        if group is not None:
            groups[name] = kind, tuple(group.options)
            of_kind = {field.name: field for field in fields(kind)}
            for option, words_of_it in group.options.items():
                field = of_kind[option]
                add(option, field.type, words_of_it, None if field.default is MISSING else field.default)
        elif any(isinstance(word, Typed) for word in words):
            add(name, kind, words, parameter.default)
        else:
            parameters[name] = parameter.replace(kind=KEYWORD)

    def run(**values: Any) -> None:
        for name, read in readers.items():
            text = values.pop(name)
            if text is not None and text != []:
                values[name] = read(text)
        for name, (kind, members) in groups.items():
            values[name] = kind(**{member: values.pop(member) for member in members if member in values})
        command(**values)

    run.__name__, run.__doc__, run.__module__ = command.__name__, command.__doc__, command.__module__
    run.__signature__ = inspect.Signature(list(parameters.values()))  # type: ignore[attr-defined]
    run.__annotations__ = {name: parameter.annotation for name, parameter in parameters.items()}
    return run
