"""sefa compare-methods: compare SeFa with GANSpace on one generator."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sefa.errors import ArgumentError
from sefa.opening import OpenOptions
from sefa_cli.from_checkpoint import open_checkpoint
from sefa_cli.options import OPENING, CheckpointArgument, JsonOption, LayersOption
from sefa_cli.output import format_bytes, print_facts, print_json, print_table, progress_bar, save_json, say
from sefa_runtime.files import check_output

if TYPE_CHECKING:
    from sefa.method_comparison.methods import MethodComparison, MethodResult

SUFFIXES = (".png", ".json")


def compare_methods(
    checkpoint: CheckpointArgument,
    *,
    outputs: Annotated[
        list[Path] | None,
        typer.Option(
            "-o",
            "--output",
            metavar="REPORT",
            help="Write an image, [b].png[/b] (needs matplotlib), or a record, [b].json[/b]; may be repeated.",
        ),
    ] = None,
    layers: LayersOption = "all",
    top: Annotated[
        int | None,
        typer.Option(
            metavar="K", help="How many directions to take of each method.", show_default="8, or the latent's size"
        ),
    ] = None,
    samples: Annotated[
        int | None, typer.Option(metavar="N", help="How many latents ganspace samples.", show_default="50000")
    ] = None,
    seed: Annotated[int, typer.Option(metavar="S", help="Seed of these latents and of the images.")] = 0,
    images: Annotated[
        int, typer.Option(metavar="N", help="How many images the edits are measured on, twice for each direction.")
    ] = 4,
    repeats: Annotated[int, typer.Option(metavar="N", help="How many times each method is timed.")] = 3,
    opening: Annotated[OpenOptions, OPENING.only("num_classes", "entry", "assume", "device")],
    json: JsonOption = False,
) -> None:
    """Compare SeFa with GANSpace on a generator: time, memory, agreement, and what the edits change.

    [b]sefa compare-methods netG.pth -o report.png -o report.json[/b]

    SeFa runs with and without normalised rows; random directions serve as a baseline. Methods are timed in turns, and
    the median counts. Let nothing else run meanwhile; the load average is in the record.
    """
    from sefa.directions.ganspace import DEFAULT_SAMPLES
    from sefa.method_comparison.methods import compare_methods as compare
    from sefa.method_comparison.plot import save_methods
    from sefa_runtime.latency.plot import check_plot

    for output in outputs or ():
        if output.suffix.lower() not in SUFFIXES:
            raise ArgumentError(f"{output}: the name must end in {' or '.join(SUFFIXES)}")
        check_output(output, checkpoint)
        if output.suffix.lower() == ".png":
            check_plot(output)
    generator = open_checkpoint(checkpoint, opening)
    with progress_bar("Comparing") as show:
        drawn = DEFAULT_SAMPLES if samples is None else samples
        comparison = compare(generator, layers, top, drawn, seed, images, show, repeats)
    for output in outputs or ():
        if output.suffix.lower() == ".png":
            save_methods(comparison, output)
        else:
            save_json(comparison.to_dict(), output)
    if json:
        print_json(comparison.to_dict())
    else:
        _print(comparison)
        for output in outputs or ():
            say("", f"{output}: the {'image' if output.suffix.lower() == '.png' else 'record'}")


def _times(method: "MethodResult") -> str:
    """Return the median time, with the shortest and longest if there are several runs."""
    from sefa.method_comparison.plot import seconds_in_words

    if method.seconds is None:
        return ""
    spread = f" ({seconds_in_words(min(method.runs_s))} to {seconds_in_words(max(method.runs_s))})"
    return seconds_in_words(method.seconds) + (spread if len(method.runs_s) > 1 else "")


def _print(comparison: "MethodComparison") -> None:
    from sefa.method_comparison.plot import times_in_words
    from sefa_runtime.machine.description import load_in_words, machine_in_words

    facts = comparison.generator
    height, width = facts["resolution"]
    print_facts(
        [
            ("generator", f"{facts['family']}, {width}x{height} pixels, latent of {facts['latent_dim']}"),
            ("directions", f"{comparison.top} of each method, layers {facts['layers']}"),
            ("machine", f"{machine_in_words(comparison.machine)}; on {comparison.device}"),
            ("", load_in_words(comparison.machine["load_average"], comparison.load_average_after)),
        ]
    )
    say()
    print_table(
        ("method", "samples", "time", "memory", "change", "of the first"),
        [
            (
                method.name,
                method.samples or "none",
                _times(method),
                "" if method.peak_bytes is None else format_bytes(method.peak_bytes),
                f"{method.mean_change:.2f}",
                f"{method.change[0]:.2f}",
            )
            for method in comparison.methods
        ],
    )
    say("change: mean absolute change of the image for a move of length 1, in levels of 255", "")
    print_table(
        ("spaces of", "and", "shared", "principal angles, degrees"),
        [
            (
                agreement.a,
                agreement.b,
                f"{agreement.overlap:.1%}",
                " ".join(f"{angle:.0f}" if angle >= 9.5 else f"{angle:.1f}" for angle in agreement.angles_deg),
            )
            for agreement in comparison.agreements
        ],
    )
    say(f"shared by chance: {comparison.chance:.1%}")
    say("", f"SeFa needs no samples and was {times_in_words(comparison.sefa_is_faster)} as fast as GANSpace")
