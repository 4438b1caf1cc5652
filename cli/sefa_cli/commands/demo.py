"""sefa demo: the whole workflow on a generator of faces."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sefa.bank.naming import parse_change, resolve
from sefa.opening import OpenOptions, open_checkpoint
from sefa_cli.descriptions import describe_parity, print_record
from sefa_cli.options import OPENING, ProviderOption
from sefa_cli.output import command_line, format_bytes, progress_bar, save_json, say, working
from sefa_runtime.files import check_output
from sefa_runtime.model.reading import read_info

if TYPE_CHECKING:
    from sefa_runtime import Editor
    from sefa_runtime.images import Images

PEOPLE = (7, 15, 35)
SHEET_DIRECTIONS = 8
SHEET_ALPHAS = (-3.0, -1.5, 0.0, 1.5, 3.0)
TURN = "turn"
ANIMATION_FRAMES = 24
BENCH_SECONDS = 5.0


def demo(
    output: Annotated[
        Path,
        typer.Option("-o", "--output", metavar="DIR", help="A folder for the results; created if missing."),
    ],
    *,
    opening: Annotated[OpenOptions, OPENING.only("device")],
    provider: ProviderOption = "auto",
) -> None:
    """Run the whole workflow on a trained generator of faces, and show the commands for it.

    [b]sefa demo -o demo[/b]

    Writes to DIR: [b]faces.safetensors[/b], the directions; [b]faces.onnx[/b] and [b]faces.ts[/b], the exported models;
    [b]sheet.png[/b], what the directions do; [b]turn.gif[/b]; [b]latency.json[/b].
    """
    from sefa.bank.editing import change
    from sefa.demo import NAMES, find_faces
    from sefa.directions.factorization import factorize
    from sefa_export import export_onnx, export_torchscript
    from sefa_runtime import load
    from sefa_runtime.images import eased, enlarge, mosaic, save_animation, save_image
    from sefa_runtime.latency import measure
    from sefa_runtime.session.doctor import probe

    probe(provider)
    checkpoint = find_faces()
    output.mkdir(exist_ok=True)
    bank_path, onnx_path, torchscript_path = (output / f"faces.{kind}" for kind in ("safetensors", "onnx", "ts"))
    sheet_path, gif_path, record_path = (output / name for name in ("sheet.png", "turn.gif", "latency.json"))
    check_output(bank_path)

    _show_command(f"FACES={command_line(_short(checkpoint))}")
    _show_command(f"sefa factorize $FACES {command_line('-o', bank_path)}")
    generator = open_checkpoint(checkpoint, opening)
    started = time.perf_counter()
    bank = factorize(generator)
    milliseconds = (time.perf_counter() - started) * 1000
    bank.save(bank_path)
    say(f"{len(bank)} directions of {bank.code_dim} components in {milliseconds:.0f} ms")

    _show_command(command_line("sefa", "name", bank_path, *NAMES))
    changes = resolve(bank.names, [parse_change(text) for text in NAMES])
    bank = change(bank, changes)
    bank.save(bank_path)
    say(", ".join(f"{index} is {bank.names[index]}" for index in changes))

    kinds: tuple[tuple[Path, tuple[str, ...], Callable[..., object]], ...] = (
        (onnx_path, (), export_onnx),
        (torchscript_path, ("--format", "torchscript"), export_torchscript),
    )
    for path, kind, write in kinds:
        _show_command(f"sefa export $FACES {command_line('--bank', bank_path, '-o', path, *kind)}")
        with working("Exporting and verifying against PyTorch"):
            write(generator, bank, path)
        say(f"{format_bytes(path.stat().st_size)}, {describe_parity(read_info(path))}")

    editor = load(onnx_path, provider)
    save_image(_sheet(editor), sheet_path)
    say("", f"# {sheet_path}: {SHEET_DIRECTIONS} sweeps, one for each direction", bold=True)
    say(f"rows are directions, columns are alphas, {len(PEOPLE)} people; on {editor.provider}")

    low, high = editor.info.directions[editor.direction_index(TURN)].alpha_range
    sweep = ("-o", gif_path, "--direction", TURN, "--seeds", _list(PEOPLE), "--scale", 3)
    _show_command(command_line("sefa", "sweep", onnx_path, *sweep))
    alphas = eased(low, high, ANIMATION_FRAMES)
    turns = editor.sweep(seed=PEOPLE, direction=TURN, alphas=alphas)  # [people, alphas, H, W, C]
    save_animation(mosaic(enlarge(turns, 3)), gif_path)
    say(f"{len(alphas)} steps from alpha {low:g} to {high:g} and back")

    bench = ("--batch", "1,8", "--seconds", f"{BENCH_SECONDS:g}", "-o", record_path)
    _show_command(command_line("sefa", "bench", onnx_path, *bench))
    with progress_bar("Measuring") as show:
        record = measure(load(onnx_path, provider), (1, 8), seconds=BENCH_SECONDS, progress=show)
    save_json(record.to_dict(), record_path)
    print_record(record)
    edit = command_line("sefa", "edit", onnx_path, "-o", "face.png", "--seed", 7, "--edit", f"{TURN}=2")
    say("", f"Look at {sheet_path} and {gif_path}; then: {edit}")


def _sheet(editor: "Editor") -> "Images":
    import numpy as np

    from sefa_runtime.images import contact_sheet

    directions = range(min(SHEET_DIRECTIONS, len(editor.info.directions)))
    sweeps = [editor.sweep(seed=PEOPLE, direction=index, alphas=SHEET_ALPHAS) for index in directions]
    return contact_sheet(
        np.stack(sweeps, axis=1),  # [people, directions, alphas, H, W, C]
        titles=[f"seed {seed}" for seed in PEOPLE],
        row_labels=[editor.info.names[index] for index in directions],
        column_labels=[f"{alpha:+g}" if alpha else "0" for alpha in SHEET_ALPHAS],
    )


def _short(path: Path) -> str:
    """Return the path, relative to the current folder if it lies inside."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def _list(numbers: tuple[int, ...]) -> str:
    return ",".join(map(str, numbers))


def _show_command(command: str) -> None:
    say("", f"$ {command}", bold=True)
