"""sefa tune: find the settings that serve a model best on this machine."""

from dataclasses import asdict
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
    *,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE.json", help="Write what was measured here.")
    ] = None,
    seconds: Annotated[float, typer.Option(metavar="S", help="Time for each setting and batch size.")] = 1.0,
    session: Annotated[SessionChoices, PROVIDER.only("provider", "provider_options")],
    json: JsonOption = False,
) -> None:
    """Find the threads, instances and batch size that serve a model best on this machine.

    [b]sefa tune faces.onnx[/b]

    Settings are measured in turns, in three rounds. A single caller wants the shortest run, many callers want the most
    images per second; the commands that serve each best are printed. Among equally good settings, the one nearest to
    the defaults is taken. Let nothing else run meanwhile.
    """
    from sefa_runtime.latency.tuning import tune as tune_model
    from sefa_runtime.machine.description import load_in_words, machine_in_words

    if output is not None:
        check_output(output, *files_of(model))
    with progress_bar("Measuring") as show:
        tuning = tune_model(model, session.provider, session.provider_options, seconds, show, say_how_long)
    if output is not None:
        save_json(asdict(tuning), output)
    if json:
        print_json(asdict(tuning))
        return
    machine = f"{machine_in_words(tuning.machine)}; {load_in_words(tuning.machine['load_average'])}"
    print_facts([("provider", tuning.provider), ("machine", machine)])
    say()
    _print_trials(tuning)
    for failure in tuning.failures:
        say(f"did not run: {failure}")
    say()
    for who, trial, figure in (
        ("one caller", tuning.one_caller, f"{tuning.one_caller.p50_ms:g} ms"),
        ("many callers", tuning.many_callers, f"{tuning.many_callers.images_per_second:.0f} images/s"),
    ):
        say(
            f"{who:<12}  {figure:<16}  {command_line('sefa', 'serve', _served(model), *_flags(trial, tuning.provider))}"
        )
    if output is not None:
        say("", f"{output}: all of it as JSON")


def _print_trials(tuning: "Tuning") -> None:
    rows = []
    for trial in tuning.trials:
        setting = trial.setting
        options = ", ".join(f"{key}={value}" for key, value in setting.options.items())
        threads = "" if setting.threads is None else setting.threads
        rows.append((setting.instances, threads, trial.batch, trial.p50_ms, round(trial.images_per_second, 1), options))
    print_table(("instances", "threads", "batch", "p50 ms", "images/s", "options"), rows)


def _flags(trial: "Trial", provider: str) -> list[object]:
    """Return the options that make `sefa serve` run with the trial's settings."""
    setting = trial.setting
    flags: list[object] = ["--provider", provider]
    if setting.instances > 1:
        flags += "--instances", setting.instances
    if setting.threads is not None:
        flags += "--threads", setting.threads
    for key, value in setting.options.items():
        flags += "--provider-option", f"{key}={value}"
    if trial.batch > 1:
        flags += "--max-batch", trial.batch
    return flags


def _served(model: Path) -> str:
    """Return the model as an argument of `sefa serve`, with a name if the file's own cannot be part of an address."""
    from sefa_runtime.server.models import parse_model

    try:
        parse_model(str(model))
    except InputError:
        return f"model={model}"
    return str(model)
