"""sefa bench: measure latency and throughput; sefa bench compare: two such measurements side by side."""

import json as json_format
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sefa_cli.options import (
    CpuFallbackOption,
    JsonOption,
    ModelArgument,
    ProviderOption,
    ProviderOptionsOption,
    ThreadsOption,
    parse_integers,
    parse_provider_options,
)
from sefa_cli.output import print_facts, print_json, print_table, progress_bar, say
from sefa_runtime.errors import ProviderError
from sefa_runtime.files import check_output, write_whole
from sefa_runtime.model.reading import files_of

if TYPE_CHECKING:
    from sefa_runtime.latency import Comparison, LatencyRecord


class Scenario(StrEnum):
    """How requests come."""

    SINGLE_STREAM = "single_stream"
    OFFLINE = "offline"
    SERVER = "server"


def bench(
    model: ModelArgument,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="RECORD.json", help="Write the record here.")
    ] = None,
    scenario: Annotated[
        Scenario,
        typer.Option(
            help="[b]single_stream[/b]: one run after another, what one caller sees. [b]offline[/b]: the batch size of "
            "the highest throughput. [b]server[/b]: requests at random moments that wait for each other."
        ),
    ] = Scenario.SINGLE_STREAM,
    batch: Annotated[
        str | None,
        typer.Option(metavar="SIZES", help="Batch sizes, as [b]1,8[/b].", show_default="1; offline 1,2,4,8,16,32"),
    ] = None,
    edits: Annotated[int | None, typer.Option(metavar="N", help="Edits per image.", show_default="1")] = None,
    seconds: Annotated[
        float,
        typer.Option(
            metavar="S", help="Time for each batch size; up to six times as long if there are not 100 runs by then."
        ),
    ] = 10.0,
    rate: Annotated[
        float | None,
        typer.Option(metavar="R", help="Scenario server: requests per second, on average.", show_default=False),
    ] = None,
    seed: Annotated[int, typer.Option(metavar="N", help="Scenario server: of the moments at which they come.")] = 0,
    plot: Annotated[
        Path | None,
        typer.Option(metavar="FILE.png", help="Draw latency and throughput (needs matplotlib)."),
    ] = None,
    samples: Annotated[bool, typer.Option("--samples", help="Put every single latency into the record.")] = False,
    provider: ProviderOption = "auto",
    provider_options: ProviderOptionsOption = None,
    allow_cpu_fallback: CpuFallbackOption = False,
    threads: ThreadsOption = None,
    json: JsonOption = False,
) -> None:
    """Measure latency and throughput, from arrays to arrays.

    [b]sefa bench faces.onnx --batch 1,8 -o here.json[/b]

    Load time, first run and warm-up are told apart from the percentiles, and a percentile is given only if at least ten
    runs lie beyond it. The record says what provider really ran, on what machine, and what it falls short of. If it is
    not the provider asked for, the exit code is 1, also where the CPU was allowed instead. Two records are compared by
    [b]sefa bench compare[/b].
    """
    from sefa_runtime import load
    from sefa_runtime.latency import measure
    from sefa_runtime.latency.plot import check_plot, save_plot

    for path in (output, plot):
        if path is not None:
            check_output(path, *files_of(model))
    if plot is not None:
        check_plot(plot)
    batches = None if batch is None else parse_integers(batch)
    options = parse_provider_options(provider_options)
    with progress_bar("Measuring") as show:
        editor = load(model, provider, options, threads, allow_cpu_fallback=allow_cpu_fallback)
        record = measure(editor, batches, edits, seconds, scenario, rate, seed, show)
    if output is not None:
        save_record(record, output, samples)
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
        bool, typer.Option("--across-machines", help="Compare although the machines differ.")
    ] = False,
    across_models: Annotated[bool, typer.Option("--across-models", help="Compare although the models differ.")] = False,
    json: JsonOption = False,
) -> None:
    """Set two records in relation: B over A, for each batch size that both have.

    [b]sefa bench compare before.json after.json[/b]

    They must be of the same scenario (and rate), and, unless you say otherwise, of the same model and machine. A model
    whose file is called [b]compare[/b] is measured with [b]sefa bench ./compare[/b].
    """
    from sefa_runtime.latency import compare_records, read_record

    comparison = compare_records(read_record(a), read_record(b), across_machines, across_models)
    if json:
        print_json(asdict(comparison))
    else:
        _print_comparison(comparison, a, b)


def save_record(record: "LatencyRecord", path: Path, samples: bool = False) -> None:
    """Write a record as JSON, whole or not at all."""
    document = json_format.dumps(record.to_dict(samples), indent=2, ensure_ascii=False) + "\n"
    write_whole(path, document.encode())


def print_record(record: "LatencyRecord") -> None:
    """Print a record for people."""
    from sefa_runtime.machine.description import load_in_words, machine_in_words

    why = f" ({record.provider_reason})" if record.provider_reason else ""
    graph = record.graph
    facts: list[tuple[str, object]] = [
        ("scenario", record.scenario),
        ("model", f"{record.model['file']}, {graph.nodes} nodes, {graph.parameters:,} parameters"),
        ("provider", f"{record.provider}, asked for: {record.provider_requested}{why}"),
        ("threads", record.threads),
        ("machine", f"{machine_in_words(record.machine)}; {load_in_words(record.machine['load_average'])}"),
        ("versions", ", ".join(f"{name} {number}" for name, number in record.versions.items())),
        ("load", f"{record.load_ms:.1f} ms"),
    ]
    if record.load_first_run_ms is not None:
        facts.append(("first run", f"{record.load_first_run_ms:.1f} ms, while loading"))
    print_facts(facts)
    say()
    server = record.scenario == "server"
    print_table(
        (
            "batch",
            "edits",
            *(("asked/s", "load") if server else ()),
            "runs",
            "first run ms",
            "p50 ms",
            "p90 ms",
            "p95 ms",
            "p99 ms",
            "images/s",
        ),
        [
            (
                result.batch,
                result.edits,
                *((result.arrivals.rate, round(result.arrivals.load, 2)) if result.arrivals else ()),
                result.runs,
                result.first_run_ms,
                *(
                    "-" if value is None else value
                    for value in (result.p50_ms, result.p90_ms, result.p95_ms, result.p99_ms)
                ),
                result.images_per_second,
            )
            for result in record.results
        ],
    )
    if record.best_batch is not None:
        say("", f"highest throughput at batch {record.best_batch}")
    shortfalls = [f"batch {result.batch}: {text}" for result in record.results for text in result.shortfalls]
    if shortfalls:
        say("", "falls short of a full measurement:", *(f"  {text}" for text in shortfalls))


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
