"""Descriptions of models, directions and measurements that several commands print."""

from collections.abc import Iterable
from itertools import groupby
from typing import TYPE_CHECKING

from sefa_cli.output import Cell, print_facts, print_table, say
from sefa_runtime.model.info import ModelInfo

if TYPE_CHECKING:
    from sefa.bank.direction_bank import DirectionBank
    from sefa.generators import Generator
    from sefa_runtime.latency import BatchResult, LatencyRecord
    from sefa_runtime.latency.roofline import Rates
    from sefa_runtime.session.session import Session


def origin_facts(about: "ModelInfo | Generator") -> list[tuple[str, str]]:
    """Return which entry of the checkpoint was read, what was assumed, where directions come from, licence and note."""
    others = getattr(about, "bank_sha256", ())  # Only exported files have it.
    facts = [
        ("read", about.source_entry),
        ("assumed", "; ".join(about.assumptions)),
        ("directions of", f"another checkpoint, sha256 {', '.join(others)}" if others else ""),
        ("license", about.license),
        ("note", about.note),
    ]
    return [(name, value) for name, value in facts if value]


def checkpoint_fact(sha256: str, source_format: str = "") -> tuple[str, str]:
    """Return which checkpoint something was made from."""
    return "checkpoint", f"{source_format}sha256 {sha256}" if sha256 else "not from a file"


def where_it_ran(session: "Session") -> str:
    """Return `on cuda`; if another provider was asked for by name, also say why that one did not run."""
    fallback = session.requested.lower() != "auto" and session.reason
    return f"on {session.provider}" + (f" ({session.reason})" if fallback else "")


def describe_parity(info: ModelInfo) -> str:
    """Return the measured parity in words."""
    parity = info.parity
    if parity.psnr_db is not None:
        return f"PSNR at least {parity.psnr_db:.1f} dB to float32, over {parity.images} edits"
    batches, edits = ("/".join(map(str, numbers)) for numbers in (parity.batches, parity.edits))
    cases = f"over {parity.images} images, batches {batches}, edits {edits}"
    if info.output_type == "float32":
        return f"largest error {parity.max_abs_error:.1e} (images in -1 to 1) {cases}"
    if parity.max_abs_error == 0:
        return f"equal to the bit {cases}"
    share, levels = f"{parity.changed_fraction:.4%}", f"{parity.max_abs_error:.0f}"
    return f"{share} of the values differ, by at most {levels} of 255 levels, {cases}"


def spans(indices: Iterable[int]) -> str:
    """Return indices in ascending order as `0-3,7`."""
    runs = [
        [index for _, index in run]
        for _, run in groupby(enumerate(indices), lambda pair: pair[1] - pair[0])  # One number for neighbours.
    ]
    return ",".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)


def alpha_range(bank: "DirectionBank", index: int) -> str:
    """Return `-3 to 3`, with σ if alpha counts standard deviations."""
    low, high = bank.alpha_range[index].tolist()
    return f"{low:g} to {high:g}" + (" σ" if bank.origin(index).alpha_unit == "sigma" else "")


def print_directions(bank: "DirectionBank") -> None:
    """Print a table of the directions, each with its strength relative to the strongest of the same source."""
    eigenvalues = bank.eigenvalues.tolist()
    strongest = {bank.origin(index): 0.0 for index in range(len(bank))}
    for index, eigenvalue in enumerate(eigenvalues):
        strongest[bank.origin(index)] = max(strongest[bank.origin(index)], eigenvalue)
    rows: list[tuple[Cell, ...]] = []
    for index, (name, eigenvalue) in enumerate(zip(bank.names, eigenvalues, strict=True)):
        most = strongest[bank.origin(index)]
        bar = "█" * max(1, round(20 * (eigenvalue / most) ** 0.5 if most else 0))
        rows.append((index, name, f"{eigenvalue:.4g}", bar, alpha_range(bank, index)))
    print_table(("index", "name", "eigenvalue", "strength", "alpha"), rows)


def print_record(record: "LatencyRecord") -> None:
    """Print a latency record."""
    from sefa_runtime.machine.description import load_in_words, machine_in_words

    why = f" ({record.provider_reason})" if record.provider_reason else ""
    parts = " with the styles on the CPU" if record.styles_on_cpu else ""
    graph = record.graph
    facts: list[tuple[str, object]] = [
        ("scenario", record.scenario),
        ("model", f"{record.model['file']}, {graph.nodes} nodes, {graph.parameters:,} parameters"),
        ("provider", f"{record.provider}{parts}, asked for: {record.provider_requested}{why}"),
        ("threads", record.threads),
        ("machine", f"{machine_in_words(record.machine)}; {load_in_words(record.machine['load_average'])}"),
        ("versions", ", ".join(f"{name} {number}" for name, number in record.versions.items())),
        ("load", f"{record.load_ms:.1f} ms"),
    ]
    if record.load_first_run_ms is not None:
        facts.append(("first run", f"{record.load_first_run_ms:.1f} ms, while loading"))
    print_facts(facts)
    say()
    arrivals = ("asked/s", "load") if record.scenario == "server" else ()
    times = ("p50_ms", "p90_ms", "p95_ms", "p99_ms")
    rows: list[tuple[Cell, ...]] = []
    for result in record.results:
        asked = (result.arrivals.rate, round(result.arrivals.load, 2)) if result.arrivals else ()
        percentiles = ("-" if (value := getattr(result, name)) is None else value for name in times)
        rows.append((
            result.batch, result.edits, *asked, result.runs, result.first_run_ms, *percentiles,
            result.images_per_second,
        ))  # fmt: skip
    headings = ("batch", "edits", *arrivals, "runs", "first run ms", *(name.replace("_", " ") for name in times))
    print_table((*headings, "images/s"), rows)
    rates = record.rates
    if rates is not None and any(result.roofline for result in record.results):
        say("", *filter(None, (roofline_line(result, rates) for result in record.results)))
    if record.best_batch is not None:
        say("", f"highest throughput at batch {record.best_batch}")
    shortfalls = [f"batch {result.batch}: {text}" for result in record.results for text in result.shortfalls]
    if shortfalls:
        say("", "falls short of a full measurement:", *(f"  {text}" for text in shortfalls))


def roofline_line(result: "BatchResult", rates: "Rates") -> str:
    """Say how close a run comes to the machine's rates; empty if that is not known."""
    reached = result.roofline
    if reached is None:
        return ""
    if reached.bound == "copy":
        share, what = reached.of_copy, f"a copy's rate here: {reached.gb_per_s:g} of {rates.copy_gb_per_s:g} GB/s"
    else:
        what = f"the best convolution's rate here: {reached.gflops:g} of {rates.convolution_gflops:g} GFLOP/s"
        share = reached.of_convolution
    return f"batch {result.batch}: {share:.0%} of {what}"
