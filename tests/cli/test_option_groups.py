"""Dataclasses as options: what the command gets, and what typer sees of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from inspect import signature
from typing import Annotated, Any

import pytest
import typer
from typer.testing import CliRunner

from sefa.choices import Method
from sefa.finding import DirectionChoices
from sefa.opening import OpenOptions
from sefa_cli.option_groups import Group, Typed, given, spread
from sefa_cli.options import OPENING


@dataclass(frozen=True)
class Oven:
    degrees: int = 180
    method: Method = Method.SEFA
    spices: Mapping[str, int] = field(default_factory=dict)
    door: str = "shut"


OVEN = Group(
    degrees=typer.Option("--heat"),
    method=typer.Option(),
    spices=(typer.Option(), Typed(list[str] | None, lambda texts: dict.fromkeys(texts, 1))),
)


def run(*arguments: str) -> dict[str, Any]:
    """Run a command that takes an oven; return what it got."""
    got: dict[str, Any] = {}

    def bake(
        cake: Annotated[str, typer.Argument()],
        *,
        oven: Annotated[Oven, OVEN],
        minutes: Annotated[int, typer.Option(), Typed(str | None, len)] = 40,
    ) -> None:
        got.update(cake=cake, oven=oven, minutes=minutes)

    app = typer.Typer()
    app.command()(spread(bake))
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == 0, result.output
    return got


def test_what_is_not_given_is_the_dataclass_own() -> None:
    assert run("apple") == {"cake": "apple", "oven": Oven(), "minutes": 40}


def test_fields_are_set_and_values_are_made_of_what_is_typed() -> None:
    got = run(
        "apple", "--heat", "200", "--spices", "salt", "--spices", "mace", "--method", "ganspace", "--minutes", "abc"
    )
    assert got["oven"] == Oven(200, Method.GANSPACE, {"salt": 1, "mace": 1})
    assert got["minutes"] == 3


def test_options_keep_the_order_of_the_command_and_the_group() -> None:
    def command(
        a: Annotated[int, typer.Option()], *, oven: Annotated[Oven, OVEN], b: Annotated[int, typer.Option()] = 2
    ) -> None: ...

    assert list(signature(spread(command)).parameters) == ["a", "degrees", "method", "spices", "b"]


def test_a_part_of_a_group_leaves_the_rest_at_its_defaults() -> None:
    assert list(OVEN.only("method").options) == ["method"]
    assert list(OVEN.without("method").options) == ["degrees", "spices"]
    moved = OVEN.in_panel("Kitchen")
    assert {option.rich_help_panel for option, *_ in moved.options.values()} == {"Kitchen"}
    assert {option.rich_help_panel for option, *_ in OVEN.options.values()} == {None}


def test_what_was_given_is_called_as_on_the_command_line() -> None:
    assert given(DirectionChoices()) == []
    assert given(DirectionChoices(top=3, edit_layers="0")) == ["--edit-layers", "--top"]
    assert given(DirectionChoices(top=3, edit_layers="0"), "top") == ["--top"]


@pytest.mark.parametrize("name", OPENING.options)
def test_every_name_is_that_of_the_option(name: str) -> None:
    values = {"assume": {"a": "b"}, "device": "cpu", "noise": "none", "run_code": True}
    (told,) = given(OpenOptions(**{name: values.get(name, 7)}))  # type: ignore[arg-type]
    declared = OPENING.options[name][0].param_decls or (OPENING.options[name][0].default,)
    assert told in (declared if str(declared[0]).startswith("--") else (f"--{name.replace('_', '-')}",))
