"""The comment beside a dataclass's field says what it holds; the reference shows it as it shows `Attributes:`."""

import io
import tokenize
from pathlib import Path
from typing import Any

from griffe import Attribute, Class, DocstringAttribute, DocstringSectionAttributes, Extension


class FieldComments(Extension):
    """An extension of griffe, which reads the code for mkdocstrings."""

    def on_class(self, *, cls: Class, **others: Any) -> None:
        """List the fields of a class, with their comments, unless its docstring already does."""
        if cls.docstring is None or "Attributes:" in cls.docstring.value:
            return
        if not any(decorator.callable_path == "dataclasses.dataclass" for decorator in cls.decorators):
            return
        own = [member for member in cls.members.values() if isinstance(member, Attribute)]
        fields = [
            one for one in own if one.annotation and not one.name.startswith("_") and "property" not in one.labels
        ]
        assert isinstance(cls.filepath, Path)
        lines = cls.lines_collection[cls.filepath]
        said = comments("\n".join(lines))
        described = []
        for field in fields:
            assert field.lineno is not None
            assert field.endlineno is not None
            words = [said[line] for line in range(field.lineno, field.endlineno + 1) if line in said]
            above = field.lineno - 1
            while not words[:1] and lines[above - 1].strip().startswith("#"):
                above -= 1
            words = words or [said[line] for line in range(above + 1, field.lineno)]
            described.append(
                DocstringAttribute(field.name, annotation=field.annotation, description=sentence(" ".join(words)))
            )
        cls.docstring.parsed.insert(1, DocstringSectionAttributes(described))


def comments(source: str) -> dict[int, str]:
    """Return the comments of a module by their lines, from 1."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return {token.start[0]: token.string.lstrip("# ") for token in tokens if token.type == tokenize.COMMENT}


def sentence(text: str) -> str:
    """Return a comment as a sentence."""
    return f"{text[0].upper()}{text[1:]}{'' if text.endswith('.') else '.'}" if text else ""
