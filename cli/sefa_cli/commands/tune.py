"""sefa tune: find the provider and the settings that run a model best on this machine."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sefa_cli.options import PROVIDER, JsonOption, ModelArgument, SessionChoices
from sefa_cli.output import (
    command_line,
    print_facts,
    print_json,
    print_table,
    progress_bar,
    save_json,
    say,
    say_how_long,
)
from sefa_runtime.errors import InputError
from sefa_runtime.files import check_output
from sefa_runtime.model.reading import files_of

if TYPE_CHECKING:
    from sefa_runtime.latency.tuning import Trial, Tuning


def tune(
    model: ModelArgument,
    variants: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="VARIANT",
            help="Other exports of the same generator and directions, such as one with [b]--precision fp16[/b].",
            show_default=False,
        ),
    ] = None,
    *,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            metavar="FILE.json",
            help="Write everything that was tried, for [b]--tuned[/b] of edit, sweep, explore, bench and serve.",
        ),
    ] = None,
    seconds: Annotated[float, typer.Option(metavar="S", help="Time for each setting and batch size.")] = 1.0,
    min_psnr: Annotated[
        float,
        typer.Option(
            metavar="DB",
            help="How near the images must be to those of MODEL on the CPU: the worst image's PSNR. [b]60[/b] leaves "
            "float32 alone.",
        ),
    ] = 40.0,
    provider: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Try this provider, which must run here; may be repeated.",
            show_default="all that onnxruntime offers and that run here",
        ),
    ] = None,
    session: Annotated[SessionChoices, PROVIDER.only("provider_options")],
    json: JsonOption = False,
) -> None:
    """Find the provider, precision, shapes, threads, instances and batch size that run a model best on this machine.

    [b]sefa tune faces.onnx -o tuned.json[/b]

    [b]sefa tune faces.onnx --provider cpu --min-psnr 60 -o tuned.json[/b]

    Settings are measured in turns, in three rounds; what is twice as slow as the best is given up after the first. A
    single caller wants the shortest run, many callers want the most images per second. Among equally good settings,
    the one nearest to the defaults is taken. Let nothing else run meanwhile.
    """
    from sefa_runtime.latency.tuning import tune as tune_model
    from sefa_runtime.machine.description import load_average, load_in_words, machine_in_words
    from sefa_runtime.session.tuned import relative_files, unsafe_options

    variants = variants or []
    if output is not None:
        check_output(output, *(file for one in (model, *variants) for file in files_of(one)))
        unsafe = unsafe_options(session.provider_options)
        if unsafe:
            raise InputError(f"a tuned file cannot carry the option {unsafe[0]}: leave out -o, or the option")

    def announce(duration: float) -> None:
        say_how_long(duration)
        say(f"sefa: {load_in_words(load_average())}; what else runs meanwhile spoils the figures", err=True)

    with progress_bar("Measuring") as show:
        tuning = tune_model(
            model,
            provider or "auto",
            session.provider_options,
            seconds,
            show,
            announce,
            variants=variants,
            min_psnr_db=min_psnr,
        )
    document = asdict(tuning if output is None else _renamed(tuning, relative_files([model, *variants], output)))
    if output is not None:
        save_json(document, output)
    if json:
        print_json(document)
        return
    load = load_in_words(tuning.machine["load_average"], tuning.load_average_after)
    budget = f"PSNR of the worst of {tuning.images} images at least {tuning.min_psnr_db:g} dB, to {model} on the CPU"
    print_facts([("machine", f"{machine_in_words(tuning.machine)}; {load}"), ("parity", budget)])
    say()
    _print_trials(tuning)
    for failure in tuning.failures:
        say(f"did not run: {failure}")
    say()
    _print_best(tuning, model, output)


def _print_trials(tuning: "Tuning") -> None:
    from sefa_runtime.latency.tuning import ROUNDS
    from sefa_runtime.latency.tuning_settings import in_words
    from sefa_runtime.verification import MAX_PSNR_DB

    rows = []
    for trial in tuning.trials:
        setting = trial.setting
        misses = trial.psnr_db < tuning.min_psnr_db
        note = "misses the budget" if misses else "given up" if trial.rounds < ROUNDS else ""
        how = ", ".join(filter(None, [setting.provider, in_words(setting)]))
        psnr = "equal" if trial.psnr_db >= MAX_PSNR_DB else f"{trial.psnr_db:.1f}"
        threads = "" if setting.threads is None else setting.threads
        row = (
            how,
            setting.instances,
            threads,
            trial.batch,
            trial.p50_ms,
            round(trial.images_per_second, 1),
            psnr,
            note,
        )
        rows.append((Path(setting.model).name, *row) if len(tuning.models) > 1 else row)
    headings = ("runs on", "instances", "threads", "batch", "p50 ms", "images/s", "PSNR dB", "")
    print_table(("file", *headings) if len(tuning.models) > 1 else headings, rows)


def _print_best(tuning: "Tuning", model: Path, output: Path | None) -> None:
    from sefa_runtime.latency.tuning_settings import described

    for who, trial, figure in (
        ("one caller", tuning.one_caller, f"{tuning.one_caller.p50_ms:g} ms"),
        ("many callers", tuning.many_callers, f"{tuning.many_callers.images_per_second:.0f} images/s"),
    ):
        file = f"{Path(trial.setting.model).name}: " if len(tuning.models) > 1 else ""
        batch = f", batches of up to {trial.batch}" if trial.batch > 1 else ""
        say(f"{who:<12}  {figure:<16}  {file}{described(trial.setting)}{batch}")
    say()
    if output is None:
        say("with -o tuned.json, `sefa edit`, `sefa bench` and `sefa serve` take these by --tuned tuned.json")
        return
    say(f"{output}: all of it as JSON, and for", "")
    say(f"  {command_line('sefa', 'edit', model, '-o', 'image.png', '--tuned', output)}")
    say(f"  {command_line('sefa', 'serve', _served(model), '--tuned', output)}")


def _renamed(tuning: "Tuning", names: list[str]) -> "Tuning":
    """Return the same with other names of its models, those by which a tuned file finds them."""
    new = dict(zip((entry.file for entry in tuning.models), names, strict=True))

    def renamed(trial: "Trial") -> "Trial":
        return replace(trial, setting=replace(trial.setting, model=new[trial.setting.model]))

    return replace(
        tuning,
        models=tuple(replace(entry, file=new[entry.file]) for entry in tuning.models),
        trials=tuple(map(renamed, tuning.trials)),
        one_caller=renamed(tuning.one_caller),
        many_callers=renamed(tuning.many_callers),
    )


def _served(model: Path) -> str:
    """Return the model as an argument of `sefa serve`, with a name if the file's own cannot be part of an address."""
    from sefa_runtime.server.models import parse_model

    try:
        parse_model(str(model))
    except InputError:
        return f"model={model}"
    return str(model)
