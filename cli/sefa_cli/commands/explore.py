"""sefa explore: what every direction does, measured and on one page."""

from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sefa.errors import ArgumentError
from sefa_cli.commands.factorize import Finding, Method, find_directions, load_any
from sefa_cli.custom import (
    CustomOptions,
    ImageLayoutOption,
    ImageRangeOption,
    KwargsOption,
    LabelInputOption,
    LatentDimOption,
    OutputKeyOption,
    RunCodeOption,
    WeightsOption,
    is_custom,
)
from sefa_cli.options import (
    AssumeOption,
    CodesOption,
    CpuFallbackOption,
    Device,
    DeviceOption,
    EntryOption,
    JsonOption,
    LatentFileOption,
    Normalize,
    NumClassesOption,
    OtherCheckpointOption,
    ProviderOption,
    ProviderOptionsOption,
    ThreadsOption,
    choose_latents,
    parse_integers,
    parse_provider_options,
)
from sefa_cli.output import (
    Cell,
    format_bytes,
    print_json,
    print_table,
    progress_bar,
    say,
    say_how_long,
    where_it_ran,
    working,
)
from sefa_cli.surprises import warn_of_truncation
from sefa_runtime.errors import InputError
from sefa_runtime.files import check_output, input_problem
from sefa_runtime.model.reading import files_of, is_onnx

if TYPE_CHECKING:
    from sefa.bank.direction_bank import DirectionBank
    from sefa_runtime import Editor
    from sefa_runtime.explore import Exploration
    from sefa_runtime.explore.resume_cache import Kept

PANEL = "Of a checkpoint"


@dataclass(frozen=True)
class CheckpointOptions:
    """The options that only a checkpoint takes, as given; None, empty or False: not given."""

    bank: Path | None = None
    layers: tuple[str, ...] = ()
    edit_layers: str | None = None
    top: int | None = None
    method: Method | None = None
    normalize: Normalize | None = None
    num_classes: int | None = None
    entry: str | None = None
    assume: tuple[str, ...] = ()
    weights: Path | None = None
    kwargs: str | None = None
    latent_dim: int | None = None
    label_input: Any = None
    image_range: str | None = None
    image_layout: Any = None
    output_key: str | None = None
    run_code: bool | None = None
    allow_other_checkpoint: bool | None = None
    save_bank: Path | None = None

    def given(self, *names: str) -> list[str]:
        """Of these options, or of all, the names of those that were given."""
        return [f"--{name.replace('_', '-')}" for name in names or vars(self) if getattr(self, name) not in (None, ())]


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
            help="[b].html[/b] is a page that needs no other file, [b].png[/b], [b].webp[/b] or [b].jpg[/b] a sheet "
            "of images, [b].json[/b] the measures; may be repeated.",
        ),
    ],
    samples: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Images to measure: those of seeds 0, 1, 2, ...; ranges are looked for on at most 16 of them.",
            show_default="200, or all codes; 2 with --quick",
        ),
    ] = None,
    quick: Annotated[
        bool,
        typer.Option(
            "--quick",
            help="A first look: measure only the images that are shown, and settle for ranges that are roughly right.",
        ),
    ] = False,
    seeds: Annotated[
        str | None,
        typer.Option(
            "--seeds",
            "--seed",
            metavar="SEEDS",
            help="Images to show.",
            show_default="0-3; those measured with --quick",
        ),
    ] = None,
    z: LatentFileOption = None,
    codes: CodesOption = None,
    label: Annotated[
        int | None, typer.Option(metavar="CLASS", help="Class of all images, for a class-conditional model.")
    ] = None,
    truncation: Annotated[
        float | None,
        typer.Option(
            metavar="PSI",
            help="Truncation psi, for a checkpoint or a model exported with [b]--truncation-input[/b]; 0.7 is "
            "customary for StyleGANs.",
        ),
    ] = None,
    alpha_range: Annotated[
        str | None,
        typer.Option(
            "--range",
            metavar="LOW:HIGH",
            help="Measure and show all directions from LOW to HIGH, as [b]-3:3[/b].",
            show_default="each one's suggested range",
        ),
    ] = None,
    write_ranges: Annotated[
        bool, typer.Option("--write-ranges", help="Write the suggested ranges into the exported MODEL.")
    ] = False,
    save_bank: Annotated[
        Path | None,
        typer.Option(metavar="BANK", help="Save the directions with their suggested ranges.", rich_help_panel=PANEL),
    ] = None,
    bank: Annotated[
        Path | None,
        typer.Option(
            metavar="BANK",
            help="Directions from [b]sefa factorize[/b]; without it they are found now.",
            rich_help_panel=PANEL,
        ),
    ] = None,
    layers: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SPEC",
            help="Layers to analyse, as for [b]sefa factorize[/b]; several groups, each with directions of its own, "
            "stand side by side: [b]--layers 0-3 --layers 4-7[/b].",
            show_default="all",
            rich_help_panel=PANEL,
        ),
    ] = None,
    edit_layers: Annotated[
        str | None,
        typer.Option(metavar="SPEC", help="Layers that an edit touches, if not those analysed.", rich_help_panel=PANEL),
    ] = None,
    top: Annotated[
        int | None,
        typer.Option(metavar="K", help="Directions of each group.", show_default="16", rich_help_panel=PANEL),
    ] = None,
    method: Annotated[
        Method | None,
        typer.Option(help="As for [b]sefa factorize[/b].", show_default="sefa", rich_help_panel=PANEL),
    ] = None,
    normalize: Annotated[
        Normalize | None,
        typer.Option(help="As for [b]sefa factorize[/b].", show_default="none", rich_help_panel=PANEL),
    ] = None,
    device: DeviceOption = Device.AUTO,
    num_classes: NumClassesOption = None,
    entry: EntryOption = None,
    assume: AssumeOption = None,
    weights: WeightsOption = None,
    kwargs: KwargsOption = None,
    latent_dim: LatentDimOption = None,
    label_input: LabelInputOption = None,
    image_range: ImageRangeOption = None,
    image_layout: ImageLayoutOption = None,
    output_key: OutputKeyOption = None,
    run_code: RunCodeOption = False,
    allow_other_checkpoint: OtherCheckpointOption = False,
    provider: ProviderOption = "auto",
    provider_options: ProviderOptionsOption = None,
    allow_cpu_fallback: CpuFallbackOption = False,
    threads: ThreadsOption = None,
    json: JsonOption = False,
) -> None:
    """See and measure what every direction does: a page with all of them.

    [b]sefa explore faces.onnx -o sheet.html[/b]

    For each direction: strips of several images that move when pointed at, where in the image it acts, how
    strongly, how locally and how steadily, which others do the same, and a suggested range of alpha. Interrupted, the
    same command goes on where it was.
    """
    from sefa_runtime import load
    from sefa_runtime.explore.resume_cache import Kept
    from sefa_runtime.explore.writing import check_output_name, save_exploration

    options = CheckpointOptions(
        bank, tuple(layers or ()), edit_layers, top, method, normalize, num_classes,
        entry, tuple(assume or ()),
        weights, kwargs, latent_dim, label_input, image_range, image_layout, output_key, run_code or None,
        allow_other_checkpoint or None, save_bank,
    )  # fmt: skip
    for output in outputs:
        check_output_name(output)
        check_output(output, *files_of(source), z, codes, bank, weights)
    warn_of_truncation(truncation)
    kept = Kept(outputs[0])
    is_model = is_onnx(source)
    _check_options(source, options, is_model=is_model, write_ranges=write_ranges)
    if alpha_range is not None and (write_ranges or save_bank is not None):
        raise ArgumentError("--range leaves no ranges to suggest: write or save them without it")
    wanted_range = None if alpha_range is None else _parse_range(alpha_range)
    runtime_options = parse_provider_options(provider_options)
    with TemporaryDirectory(prefix="sefa-") as folder:
        if is_model:
            model, directions = source, None
        else:
            model = Path(folder) / "model.onnx"
            directions = _export(source, model, options, device, codes, 1.0 if truncation is None else truncation)
            truncation = None
        editor = load(model, provider, runtime_options, threads, allow_cpu_fallback=allow_cpu_fallback)
        exploration = _explore(
            editor, kept, model=source.name, samples=samples, label=label, truncation=truncation,
            alpha_range=wanted_range, quick=quick, **_choose_images(editor, seeds, z, codes),
        )  # fmt: skip
        for output in outputs:
            save_exploration(exploration, output)
    ranges = {effect.direction: effect.alpha_range for effect in exploration.effects if not effect.is_nothing}
    if write_ranges:
        from sefa_runtime.model.renaming import rename_directions

        rename_directions(source, {}, ranges)
    if directions is not None and save_bank is not None:
        from sefa.bank.editing import change
        from sefa.bank.naming import Change

        change(directions, {index: Change(alpha_range=found) for index, found in ranges.items()}).save(save_bank)
    kept.remove()
    if json:
        print_json(exploration.to_dict())
        return
    _print_effects(exploration)
    say("", f"measured on {exploration.samples} images, {where_it_ran(editor.session)}")
    for output in outputs:
        say(f"{output}: {format_bytes(output.stat().st_size)}")
    if write_ranges or save_bank is not None:
        say(f"{save_bank or source}: suggested ranges of {len(ranges)} directions")


def _check_options(source: Path, options: CheckpointOptions, *, is_model: bool, write_ranges: bool) -> None:
    """Refuse options that do not go together.

    Raises:
        ArgumentError: If so.
        InputError: If the file is missing.
    """
    problem = None if is_custom(source) else input_problem(source)
    if problem:
        raise InputError(f"{source}: {problem}")
    if is_model:
        given = options.given()
        if given == ["--save-bank"]:
            raise ArgumentError(f"{source}: its directions are inside the model: --write-ranges writes ranges into it")
        if given:
            raise ArgumentError(f"{source}: {given[0]} is for checkpoints; this model has its directions inside")
        if write_ranges:
            check_output(source)
        return
    if write_ranges:
        raise ArgumentError(f"{source}: --write-ranges is for exported models; --save-bank keeps those of a checkpoint")
    if options.save_bank is not None:
        check_output(options.save_bank, source, options.weights)
    finding = options.given("layers", "edit_layers", "top", "method", "normalize")
    if options.bank is not None and finding:
        raise ArgumentError(f"--bank brings its directions: leave out {', '.join(finding)}")
    if options.allow_other_checkpoint and options.bank is None:
        raise ArgumentError("--allow-other-checkpoint is for --bank: without one the directions are of this checkpoint")
    if is_custom(source) and len(options.layers) > 1:
        raise ArgumentError(f"{source}: a generator of your own is analysed in one group: give one --layers")


def _export(
    source: Path, model: Path, options: CheckpointOptions, device: Device, codes: Path | None, truncation: float
) -> "DirectionBank":
    """Find directions of a checkpoint and bake them; gives them as a bank."""
    from sefa.bank.direction_bank import DirectionBank
    from sefa.bank.editing import merge
    from sefa_export import export_onnx

    custom = CustomOptions(
        options.weights,
        options.kwargs,
        options.latent_dim,
        options.label_input,
        options.image_range,
        options.image_layout,
        options.output_key,
        bool(options.run_code),
    )
    groups = options.layers or ("all",)
    with working("Loading the checkpoint"):
        generator, first = load_any(
            source,
            device,
            groups[0],
            custom,
            num_classes=options.num_classes,
            entry=options.entry,
            assume=list(options.assume),
            need_layers=options.bank is None,
        )
    if options.bank is not None:
        directions = DirectionBank.load(options.bank)
    else:
        finding = Finding(
            edit_layers=options.edit_layers,
            top=options.top,
            method=options.method or Method.SEFA,
            normalize=options.normalize or Normalize.NONE,
        )
        directions = merge(
            [find_directions(generator, replace(finding, layers=group)) for group in (first, *groups[1:])]
        )
    with working("Exporting and verifying against PyTorch"):
        export_onnx(
            generator,
            directions,
            model,
            latent="z" if codes is None else "w+",
            truncation=truncation,
            allow_other_checkpoint=bool(options.allow_other_checkpoint),
        )
    return directions


def _choose_images(editor: "Editor", seeds: str | None, z: Path | None, codes: Path | None) -> dict[str, Any]:
    """The arguments `seeds` or `latents` of `explore`."""
    if z is None and codes is None:
        if editor.info.latent != "z":
            choose_latents(None, None, None, editor.info)  # Says what is needed.
        return {"seeds": None if seeds is None else parse_integers(seeds)}
    (latents,) = choose_latents(seeds, z, codes, editor.info).values()
    return {"latents": latents}


def _explore(editor: "Editor", kept: "Kept", **arguments: Any) -> "Exploration":
    from sefa_runtime.explore import explore

    try:
        with progress_bar("Measuring") as show:
            return explore(editor, **arguments, kept=kept, progress=show, estimate=say_how_long)
    except (KeyboardInterrupt, SystemExit):
        if kept.folder.is_dir():
            say(f"sefa: stopped; the same command goes on from what {kept.folder} has", err=True)
        raise


def _parse_range(text: str) -> tuple[float, float]:
    try:
        low, high = map(float, text.split(":"))
    except ValueError:
        raise InputError(f"a range looks like -3:3, got {text!r}") from None
    return low, high


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
            alike,
        ))  # fmt: skip
    print_table(("index", "name", "alpha", "strength", "half in", "monotone", "looks like"), rows)
