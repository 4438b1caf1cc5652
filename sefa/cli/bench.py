"""sefa bench: single-stream latency."""

import json as json_format
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sefa.cli.options import JsonOption, ModelArgument, ProviderOption, ThreadsOption, parse_integers
from sefa.cli.output import print_facts, print_json, print_table, progress_bar
from sefa_runtime.files import check_output, write_whole

if TYPE_CHECKING:
    from sefa_runtime.latency import LatencyRecord


def bench(
    model: ModelArgument,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="RECORD.json", help="Write the record here.")
    ] = None,
    batch: Annotated[str, typer.Option(metavar="SIZES", help="Batch sizes, as [b]1,8[/b].")] = "1",
    edits: Annotated[int, typer.Option(metavar="N", help="Edits per image.")] = 1,
    seconds: Annotated[
        float, typer.Option(metavar="S", help="Time for each batch size; there are at least 100 runs.")
    ] = 5.0,
    provider: ProviderOption = "auto",
    threads: ThreadsOption = None,
    json: JsonOption = False,
) -> None:
    """Measure latency: one request after another, from arrays to arrays.

    Reports load time and first run apart from the percentiles, and the provider that really ran.
    """
    from sefa_runtime import load
    from sefa_runtime.latency import measure

    if output is not None:
        check_output(output, model)
    batches = parse_integers(batch)
    with progress_bar("Measuring") as show:
        record = measure(load(model, provider, threads=threads), batches, edits, seconds, show)
    if output is not None:
        save_record(record, output)
    if json:
        print_json(record.to_dict())
    else:
        print_record(record)
        if output is not None:
            typer.echo(f"\n{output}: the record as JSON")


def save_record(record: "LatencyRecord", path: Path) -> None:
    """Write a record as JSON, whole or not at all."""
    write_whole(path, (json_format.dumps(record.to_dict(), indent=2, ensure_ascii=False) + "\n").encode())


def print_record(record: "LatencyRecord") -> None:
    """Print a record for people."""
    machine = record.machine
    why = f" ({record.provider_reason})" if record.provider_reason else ""
    facts: list[tuple[str, object]] = [
        ("model", record.model["file"]),
        ("provider", f"{record.provider}, asked for: {record.provider_requested}{why}"),
        ("threads", record.threads or "onnxruntime's choice"),
        ("machine", f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB"),
        ("versions", ", ".join(f"{name} {number}" for name, number in record.versions.items())),
        ("load", f"{record.load_ms:.1f} ms"),
    ]
    if record.warm_up_ms is not None:
        facts.append(("warm-up", f"{record.warm_up_ms:.1f} ms"))
    print_facts(facts)
    typer.echo()
    print_table(
        ("batch", "edits", "runs", "first run ms", "p50 ms", "p90 ms", "p99 ms", "images/s"),
        [
            (
                result.batch,
                result.edits,
                result.runs,
                result.first_run_ms,
                result.p50_ms,
                result.p90_ms,
                result.p99_ms,
                result.images_per_second,
            )
            for result in record.results
        ],
    )
