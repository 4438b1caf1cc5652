"""From a name to a module: classes, functions and modules, in packages and in files."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from sefa import ArgumentError
from sefa.custom import build_module

LAYERS = """
from torch import nn

def block(size):
    return nn.Linear(size, size)
"""
MODELS = """
from torch import nn
{imports}

class Generator(nn.Module):
    def __init__(self, size=3):
        super().__init__()
        self.first = block(size)

    @classmethod
    def from_config(cls, config):
        return cls(**config)

def make_generator(size, parallel=False):
    return nn.DataParallel(Generator(size)) if parallel else Generator(size)

netG = Generator(7)
size = 4
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where the user stands: a file beside which its layers lie, and a package."""
    monkeypatch.chdir(tmp_path)
    for path, imports in (
        ("gans/their_models.py", "from their_layers import block"),
        ("their_nets/gan.py", "from .their_layers import block"),
    ):
        file = Path(path)
        file.parent.mkdir()
        file.write_text(MODELS.format(imports=imports))
        (file.parent / "their_layers.py").write_text(LAYERS)
    before, path_before = set(sys.modules), list(sys.path)
    yield tmp_path
    for name in set(sys.modules) - before:
        if name.startswith(("their_", "_file_")):
            del sys.modules[name]
    sys.path[:] = path_before


@pytest.mark.parametrize("source", ["gans/their_models.py", "./gans/their_models.py", "their_nets.gan"])
@pytest.mark.parametrize(
    ("name", "arguments", "size"),
    [
        ("Generator", {}, 3),
        ("Generator", {"size": 5}, 5),
        ("make_generator", {"size": 5}, 5),
        ("make_generator", {"size": 5, "parallel": True}, 5),
        ("Generator.from_config", {"config": {"size": 6}}, 6),
        ("netG", {}, 7),
    ],
)
def test_what_is_named_becomes_a_module(source: str, name: str, arguments: dict[str, object], size: int) -> None:
    module = build_module(f"{source}:{name}", arguments)
    assert isinstance(module.first, nn.Linear)
    assert (type(module).__name__, module.first.in_features) == ("Generator", size)


def test_a_file_is_found_where_it_lies_and_its_folder_is_on_the_path_for_that(folder: Path) -> None:
    path = list(sys.path)
    build_module(str(folder / "gans" / "their_models.py") + ":Generator", {})
    assert sys.path == path


def test_a_file_may_be_called_like_a_module_of_pythons() -> None:
    (Path("gans") / "random.py").write_text(MODELS.format(imports=LAYERS))
    import random

    assert isinstance(build_module("gans/random.py:netG", {}), nn.Module)
    assert sys.modules["random"] is random


@pytest.mark.filterwarnings("ignore")
def test_a_compiled_module_is_taken_out() -> None:
    with Path("gans/their_models.py").open("a") as file:
        file.write("import torch\ncompiled = torch.compile(netG)\n")
    assert type(build_module("gans/their_models.py:compiled", {})).__name__ == "Generator"


@pytest.mark.parametrize(
    ("reference", "arguments", "message"),
    [
        ("their_nets/gan.py:Generator", {}, r"imports from its package .*relative.*, their_nets\.gan:NAME, in "),
        ("gans/their_models.py:netG", {"size": 3}, "it is a Generator already: leave out --kwargs"),
        ("gans/their_models.py:size", {}, "a function that makes one, was expected, it is a int"),
        ("gans/their_models.py:make_generator", {}, r"""'size'; give it with --kwargs '{"size": VALUE}'"""),
        ("gans/their_models.py:block", {"size": "a"}, r"block\(size='a'\) raised TypeError"),
        ("gans/their_models.py:Generator.first", {}, "gans/their_models.py has no Generator.first"),
        ("gans/their_layers.py:nn", {}, "expected, it is a module"),
        ("gans:Generator", {}, "gans has no Generator"),
    ],
)  # fmt: skip
def test_mistakes_are_one_line(reference: str, arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ArgumentError, match=message) as error:
        build_module(reference, arguments)
    assert "\n" not in str(error.value)
    assert torch.is_grad_enabled()
