"""How a module is called, written as a user writes a call: `z,None,truncation_psi=1,noise_mode='const'`."""

import ast
from collections.abc import Mapping
from dataclasses import dataclass

from sefa.errors import ArgumentError

LATENT, LABEL = "z", "label"  # the names that stand for what differs between images
MAX_LENGTH = 1000
FORM = "it looks like z,None,truncation_psi=1,noise_mode='const'"


@dataclass(frozen=True)
class Name:
    """The place of the latent or the label in a call."""

    name: str


@dataclass(frozen=True)
class Call:
    """The arguments of a module: constants, and `Name` where the latent and the label go.

    Attributes:
        text: As a user writes it.
        positional: Arguments by position.
        keywords: Arguments by keyword.
        takes_label: Whether the label is among them.
    """

    text: str
    positional: tuple[object, ...]
    keywords: Mapping[str, object]
    takes_label: bool

    def filled(self, values: Mapping[str, object]) -> tuple[list[object], dict[str, object]]:
        """Return the arguments with these values in the places of the names."""
        return (
            [_fill(value, values) for value in self.positional],
            {key: _fill(value, values) for key, value in self.keywords.items()},
        )


def parse_call(text: str) -> Call:
    """Parse the arguments of a call: `z`, `label`, literals, and lists, tuples and dicts of them; nothing is evaluated.

    Raises:
        ArgumentError: If the text is anything else, or does not have `z` exactly once.
    """
    shown = f"got {text[:80]!r}"
    if len(text) > MAX_LENGTH:
        raise ArgumentError(f"--call may have {MAX_LENGTH} characters, {shown}")
    try:
        tree = ast.parse(f"forward({text}\n)", mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        tree = None
    if not isinstance(tree, ast.Call) or not isinstance(tree.func, ast.Name):
        raise ArgumentError(f"--call has the arguments of forward as in Python: {FORM}, {shown}")
    given = [keyword.arg for keyword in tree.keywords]
    for argument in given:
        if argument is None or given.count(argument) > 1:
            raise ArgumentError(f"--call has {f'{argument} twice' if argument else 'no **'}: {FORM}, {shown}")
    names = [node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and node is not tree.func]
    if names.count(LATENT) != 1 or names.count(LABEL) > 1:
        raise ArgumentError(f"--call needs z once, where the latent goes, and label at most once: {FORM}, {shown}")
    positional = tuple(_read(node) for node in tree.args)
    keywords = {str(keyword.arg): _read(keyword.value) for keyword in tree.keywords}
    return Call(text.strip(), positional, keywords, LABEL in names)


def _read(node: ast.expr) -> object:
    if isinstance(node, ast.Name):
        if node.id not in (LATENT, LABEL):
            raise ArgumentError(
                f"--call knows the names z and label, and literals, got {node.id}: write a text with quotes, "
                f"{node.id!r}, and a class, if it is one, as label"
            )
        return Name(node.id)
    if isinstance(node, ast.List):
        return [_read(item) for item in node.elts]
    if isinstance(node, ast.Tuple):
        return tuple(_read(item) for item in node.elts)
    if isinstance(node, ast.Dict) and all(isinstance(key, ast.Constant) for key in node.keys):
        return {ast.literal_eval(key): _read(value) for key, value in zip(node.keys, node.values, strict=True) if key}
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        raise ArgumentError(
            f"--call takes z, label and literals, nothing that is computed, got {ast.unparse(node)[:80]!r}"
        ) from None


def _fill(value: object, values: Mapping[str, object]) -> object:
    if isinstance(value, Name):
        return values[value.name]
    if isinstance(value, list):
        return [_fill(item, values) for item in value]
    if isinstance(value, tuple):
        return tuple(_fill(item, values) for item in value)
    if isinstance(value, dict):
        return {key: _fill(item, values) for key, item in value.items()}
    return value
