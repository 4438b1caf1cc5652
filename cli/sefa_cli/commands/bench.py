"""sefa bench: measure latency and throughput; sefa bench compare: compare two such measurements."""

from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sefa_cli.descriptions import print_record
from sefa_cli.options import INTEGERS, JsonOption, ModelArgument, SessionOptions
from sefa_cli.output import print_facts, print_json, print_table, progress_bar, save_json, say
from sefa_runtime.errors import ProviderError
from sefa_runtime.files import check_output
from sefa_runtime.model.reading import files_of

if TYPE_CHECKING:
    from sefa_runtime.latency import Comparison


class Scenario(StrEnum):
    """How requests arrive."""

    SINGLE_STREAM = "single_stream"
    OFFLINE = "offline"
    SERVER = "server"


def bench(
    model: ModelArgument,
    *,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="RECORD.json", help="Write the record here.")
    ] = None,
    scenario: Annotated[
        Scenario,
        typer.Option(
            help="[b]single_stream[/b]: one run after another, as a single caller sees it. [b]offline[/b]: the batch "
            "size of the highest throughput. [b]server[/b]: requests at random moments, which queue."
        ),
    ] = Scenario.SINGLE_STREAM,
    batch: Annotated[
        list[int] | None,
        typer.Option(metavar="SIZES", help="Batch sizes, such as [b]1,8[/b].", show_default="1; offline 1,2,4,8,16,32"),
        INTEGERS,
    ] = None,
    edits: Annotated[int | None, typer.Option(metavar="N", help="Edits per image.", show_default="1")] = None,
    seconds: Annotated[
        float,
        typer.Option(metavar="S", help="Time for each batch size; up to six times as long until there are 100 runs."),
    ] = 10.0,
    rate: Annotated[
        float | None,
        typer.Option(metavar="R", help="Scenario server: average requests per second.", show_default=False),
    ] = None,
    seed: Annotated[int, typer.Option(metavar="N", help="Scenario server: seed of the arrival times.")] = 0,
    plot: Annotated[
        Path | None,
        typer.Option(metavar="FILE.png", help="Plot latency and throughput (needs matplotlib)."),
    ] = None,
    samples: Annotated[bool, typer.Option("--samples", help="Include every single latency in the record.")] = False,
    session: SessionOptions,
    json: JsonOption = False,
) -> None:
    """Measure latency and throughput, from arrays to arrays.

    [b]sefa bench faces.onnx --batch 1,8 -o here.json[/b]

    Load time, first run and warm-up are kept out of the percentiles, and a percentile is reported only if at least ten
    runs lie beyond it. The record says which provider really ran, on which machine, and what the measurement falls
    short of. If another provider than the one asked for ran, the exit code is 1, even where the CPU was allowed as a
    fallback. [b]sefa bench compare[/b] compares two records.
    """
    from sefa_runtime.latency import measure
    from sefa_runtime.latency.plot import check_plot, save_plot

    for path in (output, plot):
        if path is not None:
            check_output(path, *files_of(model))
    if plot is not None:
        check_plot(plot)
    with progress_bar("Measuring") as show:
        record = measure(session.load(model), batch, edits, seconds, scenario, rate, seed, show)
    if output is not None:
        save_json(record.to_dict(samples), output)
    if plot is not None:
        save_plot(record, plot)
    if json:
        print_json(record.to_dict(samples))
    else:
        print_record(record)
        for path, what in ((output, "the record as JSON"), (plot, "the record as an image")):
            if path is not None:
                say("", f"{path}: {what}")
    if not record.ran_as_asked:
        raise ProviderError(f"{record.provider_requested} was asked for, but {record.provider} ran")


def compare(
    a: Annotated[Path, typer.Argument(metavar="A.json", help="A record that [b]sefa bench[/b] wrote.")],
    b: Annotated[Path, typer.Argument(metavar="B.json", help="Another one.")],
    across_machines: Annotated[
        bool, typer.Option("--across-machines", help="Compare even if the machines differ.")
    ] = False,
    across_models: Annotated[bool, typer.Option("--across-models", help="Compare even if the models differ.")] = False,
    json: JsonOption = False,
) -> None:
    """Compare two records: the ratio of B to A for each batch size that both have.

    [b]sefa bench compare before.json after.json[/b]

    They must have the same scenario (and rate) and, unless you say otherwise, the same model and machine. A model file
    called [b]compare[/b] is measured with [b]sefa bench ./compare[/b].
    """
    from sefa_runtime.latency import compare_records, read_record

    comparison = compare_records(read_record(a), read_record(b), across_machines, across_models)
    if json:
        print_json(asdict(comparison))
    else:
        _print_comparison(comparison, a, b)


def _print_comparison(comparison: "Comparison", a: Path, b: Path) -> None:
    rate = "" if comparison.rate is None else f" at {comparison.rate:g} requests/s"
    print_facts([("A", a), ("B", b), ("scenario", f"{comparison.scenario}{rate}")])
    if comparison.differences:
        say("", "not the same in both:")
        print_facts([(f"  {item.what}", f"{item.a} -> {item.b}") for item in comparison.differences])
    say()
    print_table(
        ("batch", "edits", "", "A", "B", "B/A"),
        [
            (
                "" if ratio.batch is None else ratio.batch,
                "" if ratio.edits is None else ratio.edits,
                ratio.measure,
                ratio.a,
                ratio.b,
                round(ratio.b_over_a, 3),
            )
            for ratio in comparison.ratios
        ],
    )
    if comparison.shortfalls:
        say("", "fall short of a full measurement:", *(f"  {text}" for text in comparison.shortfalls))
