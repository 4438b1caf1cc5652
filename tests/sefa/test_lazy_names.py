"""What a package offers is what type checkers read in it."""

import ast
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

import sefa
import sefa_runtime


@pytest.mark.parametrize("package", [sefa, sefa_runtime], ids=lambda package: package.__name__)
def test_names_come_from_where_type_checkers_look(package: ModuleType) -> None:
    assert package.__file__ is not None
    body = ast.parse(Path(package.__file__).read_text()).body
    (typed,) = (node.body for node in body if isinstance(node, ast.If))
    seen = []
    for node in typed:
        assert isinstance(node, ast.ImportFrom)
        assert node.module is not None
        for alias in node.names:
            assert alias.name == alias.asname  # Else it is no name of the package's to them.
            assert getattr(package, alias.name) is getattr(import_module(node.module), alias.name)
            seen.append(alias.name)
    assert sorted([*seen, "__version__"]) == sorted(package.__all__)


def test_other_names_are_no_attributes() -> None:
    with pytest.raises(AttributeError, match="module 'sefa' has no attribute 'Loader'"):
        sefa.Loader  # type: ignore[attr-defined]  # noqa: B018
