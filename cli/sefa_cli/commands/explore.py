"""sefa explore: what every direction does, measured and on one page."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sefa.errors import ArgumentError
from sefa.finding import DirectionChoices
from sefa.opening import Device, Kind, OpenOptions, kind_of
from sefa_cli.descriptions import where_it_ran
from sefa_cli.from_checkpoint import check_bank_options, find_directions, open_generator
from sefa_cli.image_warnings import warn_of_truncation
from sefa_cli.latent_options import LatentOptions
from sefa_cli.option_groups import Group, Typed, given
from sefa_cli.options import BANK, FINDING, OPENING, OTHER_CHECKPOINT, JsonOption, SessionOptions, latent_options
from sefa_cli.output import (
    Cell,
    format_bytes,
    print_json,
    print_table,
    progress_bar,
    say,
    say_how_long,
    working,
)
from sefa_cli.parsing import parse_alpha_range
from sefa_runtime.errors import InputError
from sefa_runtime.files import check_output
from sefa_runtime.model.reading import files_of

if TYPE_CHECKING:
    from sefa.bank.direction_bank import DirectionBank
    from sefa_runtime import Editor
    from sefa_runtime.explore import Exploration
    from sefa_runtime.explore.resume_cache import ResumeCache

PANEL = "Of a checkpoint"


@dataclass(frozen=True)
class CheckpointChoices:
    """Which directions of a checkpoint to explore, and where to save them."""

    save_bank: Path | None = None
    bank: Path | None = None
    layers: tuple[str, ...] = ()  # one specification per group; empty: all layers in one group
    allow_other_checkpoint: bool = False


CHECKPOINT = Group(
    save_bank=typer.Option(metavar="BANK", help="Save the directions with their suggested ranges."),
    bank=BANK,
    layers=(
        typer.Option(
            metavar="SPEC",
            help="Layers to analyse, as for [b]sefa factorize[/b]; several groups, each with its own directions, are "
            "shown side by side: [b]--layers 0-3 --layers 4-7[/b].",
            show_default="all",
        ),
        Typed(list[str] | None, tuple),
    ),
    allow_other_checkpoint=OTHER_CHECKPOINT,
).in_panel(PANEL)
# Without `--samples`, `--seed` and `--label`, which concern the images here.
CHOICES = FINDING.only("edit_layers", "top", "method", "normalize").in_panel(PANEL)


def explore(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="CHECKPOINT|MODEL",
            help="An .onnx file made by [b]sefa export[/b], which needs no torch; or a checkpoint, whose directions "
            "are found first; or a generator of your own, as for [b]sefa export[/b].",
        ),
    ],
    outputs: Annotated[
        list[Path],
        typer.Option(
            "-o",
            "--output",
            metavar="FILE",
            help="[b].html[/b] is a self-contained page, [b].png[/b], [b].webp[/b] or [b].jpg[/b] a sheet of images, "
            "[b].json[/b] the measurements; may be repeated.",
        ),
    ],
    *,
    samples: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="How many images to measure: seeds 0, 1, 2, ...; ranges are determined from at most 16 of them.",
            show_default="8 to 16, as many as make the numbers precise; 2 with --quick",
        ),
    ] = None,
    quick: Annotated[
        bool,
        typer.Option(
            "--quick",
            help="A first look: measure only the images shown, and settle for approximate ranges.",
        ),
    ] = False,
    latents: Annotated[
        LatentOptions,
        latent_options(
            "--seeds", "--seed", what="Seeds of the images to show.", show_default="0-3; those measured with --quick"
        ),
    ],
    label: Annotated[
        str | None,
        typer.Option(metavar="CLASS", help="Class of all images for a class-conditional model, its index or name."),
    ] = None,
    truncation: Annotated[
        float | None,
        typer.Option(
            metavar="PSI",
            help="Truncation psi for a checkpoint or a model exported with [b]--truncation-input[/b]; 0.7 is "
            "customary for StyleGANs.",
        ),
    ] = None,
    alpha_range: Annotated[
        tuple[float, float] | None,
        typer.Option(
            "--range",
            metavar="LOW:HIGH",
            help="Measure and show all directions from LOW to HIGH, such as [b]-3:3[/b].",
            show_default="each one's suggested range",
        ),
        Typed(str | None, parse_alpha_range),
    ] = None,
    write_ranges: Annotated[
        bool, typer.Option("--write-ranges", help="Write the suggested ranges into the exported MODEL.")
    ] = False,
    checkpoint: Annotated[CheckpointChoices, CHECKPOINT],
    choices: Annotated[DirectionChoices, CHOICES],
    opening: Annotated[OpenOptions, OPENING.without("noise")],
    session: SessionOptions,
    json: JsonOption = False,
) -> None:
    """See and measure what every direction does, on one page.

    [b]sefa explore faces.onnx -o sheet.html[/b]

    For each direction: strips of several images, animated under the pointer; where in the image it acts, how strongly,
    how locally and how steadily; which other directions do the same; and a suggested range of alpha. If interrupted,
    the same command resumes where it stopped.
    """
    from tempfile import TemporaryDirectory

    from sefa_runtime.explore.exploration import PREFIX_MB
    from sefa_runtime.explore.page import images_in_words
    from sefa_runtime.explore.resume_cache import ResumeCache
    from sefa_runtime.explore.writing import check_output_name, save_exploration

    for output in outputs:
        check_output_name(output)
        check_output(output, *files_of(source), latents.z, latents.codes, checkpoint.bank, opening.weights)
    warn_of_truncation(truncation)
    resume_cache = ResumeCache(outputs[0])
    kind = kind_of(source)
    if kind == Kind.ONNX:
        _check_model_options(
            source, [*given(checkpoint), *given(choices), *given(replace(opening, device=Device.AUTO))], write_ranges
        )
    else:
        _check_checkpoint_options(source, kind, checkpoint, choices, opening, write_ranges)
    if alpha_range is not None and (write_ranges or checkpoint.save_bank is not None):
        raise ArgumentError("--range leaves no ranges to suggest: write or save them without it")
    with TemporaryDirectory(prefix="sefa-") as folder:
        model, directions = source, None
        if kind != Kind.ONNX:
            model = Path(folder) / "model.onnx"
            directions = _export(source, model, checkpoint, choices, opening, latents.codes is not None, truncation)
            truncation = None
        editor = session.load(model, prefix_mb=PREFIX_MB)
        exploration = _explore(
            editor, resume_cache, model=source.name, samples=samples, label=_label(editor, label),
            truncation=truncation, alpha_range=alpha_range, quick=quick, **_choose_images(editor, latents),
        )  # fmt: skip
        for output in outputs:
            save_exploration(exploration, output)
    ranges = {effect.direction: effect.alpha_range for effect in exploration.effects if not effect.is_nothing}
    if write_ranges:
        from sefa_runtime.model.renaming import rename_directions

        rename_directions(source, {}, ranges)
    if directions is not None and checkpoint.save_bank is not None:
        from sefa.bank.editing import change
        from sefa.bank.naming import Change

        change(directions, {index: Change(alpha_range=found) for index, found in ranges.items()}).save(
            checkpoint.save_bank
        )
    resume_cache.remove()
    if json:
        print_json(exploration.to_dict())
        return
    _print_effects(exploration)
    say("", f"measured on {images_in_words(exploration)}, {where_it_ran(editor.session)}")
    for output in outputs:
        say(f"{output}: {format_bytes(output.stat().st_size)}")
    if write_ranges or checkpoint.save_bank is not None:
        say(f"{checkpoint.save_bank or source}: suggested ranges of {len(ranges)} directions")


def _check_model_options(source: Path, inapt: list[str], write_ranges: bool) -> None:
    """Check the options for an exported model.

    Raises:
        ArgumentError: If there is one that an exported model does not take.
    """
    if inapt == ["--save-bank"]:
        raise ArgumentError(f"{source}: its directions are inside the model: --write-ranges writes ranges into it")
    if inapt:
        raise ArgumentError(f"{source}: {inapt[0]} is for checkpoints; this model has its directions inside")
    if write_ranges:
        check_output(source)


def _check_checkpoint_options(
    source: Path,
    kind: Kind,
    checkpoint: CheckpointChoices,
    choices: DirectionChoices,
    opening: OpenOptions,
    write_ranges: bool,
) -> None:
    """Check the options for a checkpoint.

    Raises:
        ArgumentError: If options do not go together, or do not apply to this source.
    """
    if write_ranges:
        raise ArgumentError(f"{source}: --write-ranges is for exported models; --save-bank keeps those of a checkpoint")
    if checkpoint.save_bank is not None:
        from sefa.bank.direction_bank import check_bank_name

        check_bank_name(checkpoint.save_bank)
        check_output(checkpoint.save_bank, source, opening.weights)
    finding = [*given(checkpoint, "layers"), *given(choices)]
    check_bank_options(checkpoint.bank, checkpoint.allow_other_checkpoint, finding)
    if kind.is_own and len(checkpoint.layers) > 1:
        raise ArgumentError(f"{source}: a generator of your own is analysed in one group: give --layers once")


def _export(
    source: Path,
    model: Path,
    checkpoint: CheckpointChoices,
    choices: DirectionChoices,
    opening: OpenOptions,
    has_codes: bool,
    truncation: float | None,
) -> "DirectionBank":
    """Find a checkpoint's directions, or load them from a bank; bake them into a model, and return them."""
    from sefa.bank.direction_bank import DirectionBank
    from sefa.bank.editing import merge
    from sefa_export import export_onnx

    groups = checkpoint.layers or ("all",)
    generator = open_generator(source, opening, groups[0], need_layers=checkpoint.bank is None)
    if checkpoint.bank is None:
        directions = merge([find_directions(generator, replace(choices, layers=group)) for group in groups])
    else:
        directions = DirectionBank.load(checkpoint.bank)
    with working("Exporting and verifying against PyTorch"):
        export_onnx(
            generator,
            directions,
            model,
            latent="w+" if has_codes else "z",
            truncation=1.0 if truncation is None else truncation,
            allow_other_checkpoint=checkpoint.allow_other_checkpoint,
        )
    return directions


def _choose_images(editor: "Editor", latents: LatentOptions) -> dict[str, Any]:
    """Return the argument `seeds` or `latents` for `explore`."""
    chosen = latents.choose(editor.info)
    if "seed" in chosen:
        return {"seeds": latents.seeds}
    (given_latents,) = chosen.values()
    return {"latents": given_latents}


def _label(editor: "Editor", text: str | None) -> int | None:
    """Return the index of the class of all images."""
    from sefa_runtime.inputs.labels import parse_labels

    labels = [None] if text is None else parse_labels(editor.info, text)
    if len(labels) > 1:
        raise InputError(f"--label is one class for all images here, got {text!r:.80}")
    return labels[0]


def _explore(editor: "Editor", resume_cache: "ResumeCache", **arguments: Any) -> "Exploration":
    from sefa_runtime.explore import explore

    try:
        with progress_bar("Measuring") as show:
            return explore(editor, **arguments, resume_cache=resume_cache, progress=show, estimate=say_how_long)
    except (KeyboardInterrupt, SystemExit):
        if resume_cache.folder.is_dir():
            say(f"sefa: stopped; the same command resumes from what {resume_cache.folder} has", err=True)
        raise


def _print_effects(exploration: "Exploration") -> None:
    from sefa_runtime.explore.similarity import looks_like

    rows: list[tuple[Cell, ...]] = []
    for effect, direction in zip(exploration.effects, exploration.info.directions, strict=True):
        low, high = effect.alpha_range
        alike = ", ".join(
            f"{other} ({cosine:.2f})" for other, cosine in looks_like(exploration.similarity, effect.direction)
        )
        rows.append((
            effect.direction,
            direction.name,
            "changes nothing" if effect.is_nothing else f"{low:g} to {high:g}",
            f"{effect.strength:.3g}",
            f"{effect.area:.0%}",
            f"{effect.monotone:.0%}",
            effect.images,
            alike,
        ))  # fmt: skip
    print_table(("index", "name", "alpha", "strength", "half in", "monotone", "images", "looks like"), rows)
