"""sefa name: change the names, signs and ranges of directions."""

from pathlib import Path
from typing import Annotated

import typer

from sefa.bank.naming import Change, find_all, parse_change, parse_range, renamed, resolve
from sefa.errors import ArgumentError
from sefa.opening import Kind, kind_of
from sefa_cli.options import JsonOption
from sefa_cli.output import print_json, print_table, say
from sefa_runtime.files import check_output
from sefa_runtime.model.reading import read_info


def name(
    file: Annotated[
        Path, typer.Argument(metavar="BANK|MODEL", help="A direction bank, or an .onnx file of [b]sefa export[/b].")
    ],
    changes: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="DIRECTION=NAME...",
            help="[b]0=pose[/b] renames, [b]3=smile:-1[/b] also reverses the direction, "
            "[b]'0=pose:\\[-4,4]'[/b] also sets its suggested range. A direction is an index or a name.",
        ),
    ] = None,
    ranges: Annotated[
        list[str] | None,
        typer.Option(
            "--range",
            metavar="DIRECTION=LOW:HIGH",
            help="Suggested range of alpha, such as [b]0=-4:4[/b]; may be repeated.",
        ),
    ] = None,
    keep: Annotated[
        str | None,
        typer.Option(
            metavar="LIST",
            help="Keep only these directions, in this order: [b]0,3,1[/b] or [b]0-7[/b], or names, old or new.",
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE", help="Where to write.", show_default="in place")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Name directions in a bank or in an exported model.

    [b]sefa name faces.safetensors 1=turn 2=nod:-1 --range turn=-4:4[/b]

    [b]sefa edit[/b], [b]sefa sweep[/b] and [b]sefa serve[/b] know the directions by these names. In an exported ONNX
    model only the description is rewritten, which needs neither torch nor onnx. What changes the vectors, reversing and
    [b]--keep[/b], works on banks, which are then exported again with [b]sefa export --bank[/b].
    """
    wanted = [*(parse_change(text) for text in changes or ()), *(parse_range(text) for text in ranges or ())]
    if not wanted and keep is None:
        raise ArgumentError(f"{file}: nothing to change: give names as 0=pose, --range or --keep")
    kind = kind_of(file)
    check_output(output or file)
    name_in = _name_in_model if kind.is_model or kind == Kind.ARCHIVE else _name_in_bank
    rows = name_in(file, wanted, keep, output)
    if json:
        print_json([{"index": index, "name": name, "alpha_range": [low, high]} for index, name, low, high in rows])
        return
    print_table(("index", "name", "alpha"), [(index, name, f"{low:g} to {high:g}") for index, name, low, high in rows])
    say("", f"{output or file}: {len(rows)} directions")


Row = tuple[int, str, float, float]  # index, name, lowest and highest alpha


def _name_in_model(file: Path, wanted: list[tuple[str, Change]], keep: str | None, output: Path | None) -> list[Row]:
    from sefa_runtime.model.renaming import rename_directions

    names = read_info(file).names
    changes = resolve(names, wanted)
    turned = [names[index] for index, change in changes.items() if change.flip]
    if turned or keep is not None:
        what = f"turning {turned[0]}" if turned else "--keep"
        raise ArgumentError(
            f"{file}: {what} would change the vectors inside the model: do it in the bank, and export that again with "
            "`sefa export --bank`"
        )
    info = rename_directions(
        file,
        {index: change.name for index, change in changes.items() if change.name},
        {index: change.alpha_range for index, change in changes.items() if change.alpha_range},
        output,
    )
    return [(index, direction.name, *direction.alpha_range) for index, direction in enumerate(info.directions)]


def _name_in_bank(file: Path, wanted: list[tuple[str, Change]], keep: str | None, output: Path | None) -> list[Row]:
    from sefa.bank.direction_bank import DirectionBank
    from sefa.bank.editing import change, subset

    bank = DirectionBank.load(file)
    changes = resolve(bank.names, wanted)
    kept = None if keep is None else find_all(_old_and_new(bank.names, changes, keep), keep)
    bank = change(bank, changes)
    if kept is not None:
        bank = subset(bank, kept)
    bank.save(output or file)
    return [(index, name, *bank.alpha_range[index].tolist()) for index, name in enumerate(bank.names)]


def _old_and_new(names: tuple[str, ...], changes: dict[int, Change], keep: str) -> list[str]:
    """Return the name that `--keep` may use for each direction: the new name, or the old one if `--keep` lists that."""
    new = renamed(names, changes)
    listed = {part.strip() for part in keep.split(",")}
    return [old if old in listed and old not in new else now for old, now in zip(names, new, strict=True)]
