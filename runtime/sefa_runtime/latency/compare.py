"""Comparing two latency records, if they can be compared at all."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sefa_runtime.errors import InputError

# What must agree for two machines to count as the same; load and driver change from day to day.
MACHINE = ("cpu", "cpu_extensions", "cores", "cores_limit", "memory_gib", "memory_limit_gib", "system")
# What may differ, and is reported.
CONDITIONS = ("provider", "provider_options", "session_entries", "io_binding", "tf32", "threads")
# Likewise; older records lack them.
LATER_CONDITIONS = ("static_batch", "styles_on_cpu")
MEASURES = ("first_run_ms", "mean_ms", "p50_ms", "p90_ms", "p95_ms", "p99_ms", "images_per_second")

Record = dict[str, Any]
Numbers = dict[str, float | None]


@dataclass(frozen=True)
class Difference:
    """Something that differs between the two records."""

    what: str
    a: object
    b: object


@dataclass(frozen=True)
class Ratio:
    """One number that both records have."""

    batch: int | None  # None: about loading, not about a batch size
    edits: int | None
    measure: str  # its name in the record
    a: float
    b: float
    b_over_a: float


@dataclass(frozen=True)
class Comparison:
    """Two records of the same scenario, compared."""

    scenario: str  # of both
    rate: float | None  # scenario `server`: requests per second
    differences: tuple[Difference, ...]  # conditions that differ, such as provider and threads
    ratios: tuple[Ratio, ...]  # of B to A, of each number that both have
    shortfalls: tuple[str, ...]  # of either record


def compare_records(a: Record, b: Record, across_machines: bool = False, across_models: bool = False) -> Comparison:
    """Compare the numbers of two records, as `read_record` returns them.

    Only like measurements are compared: the same scenario, rate, batch size and number of edits. The records must have
    at least one such measurement in common. Percentiles that either of them lacks are left out.

    Args:
        a: The record that ratios are relative to.
        b: The other record.
        across_machines: Compare even if the machines differ.
        across_models: Compare even if the models differ.

    Raises:
        InputError: If the records differ where they must not, or one is damaged.
    """
    first, second = _facts(a), _facts(b)
    machines = list(_differences(first.machine, second.machine))
    if machines and not across_machines:
        raise InputError(f"measured on different machines ({_words(machines)}): --across-machines compares them")
    models = list(_different_models(first.model, second.model))
    if models and not across_models:
        raise InputError(f"measured with different models ({_words(models)}): --across-models compares them")
    if first.scenario != second.scenario:
        raise InputError(f"measured in different scenarios: {first.scenario} and {second.scenario}")
    rates = first.rates | second.rates
    if len(rates) > 1:
        raise InputError(f"measured at different rates: {' and '.join(f'{rate:g}' for rate in sorted(rates))}/s")
    ratios = tuple(
        ratio
        for size in first.results
        if size in second.results
        for ratio in _ratios(size, first.results[size], second.results[size])
    )
    if not ratios:
        raise InputError(f"no batch size and number of edits in common: {_sizes(first)} and {_sizes(second)}")
    return Comparison(
        scenario=first.scenario,
        rate=rates.pop() if rates else None,
        differences=(*machines, *models, *_differences(first.conditions, second.conditions)),
        ratios=(*ratios, *_ratios((None, None), first.loading, second.loading)),
        shortfalls=tuple(
            f"{name}, batch {batch}: {shortfall}"
            for name, facts in (("A", first), ("B", second))
            for batch, shortfall in facts.shortfalls
        ),
    )


@dataclass(frozen=True)
class _Facts:
    """The parts of a record that are compared."""

    scenario: str
    machine: Record
    model: Record
    conditions: Record
    rates: set[float]
    loading: Numbers
    results: dict[tuple[int, int], Numbers]  # by batch and edits
    shortfalls: list[tuple[int, str]]  # batch and what its measurement lacks


def _facts(record: Record) -> _Facts:
    try:
        machine, results = record["machine"], record["results"]
        drivers = [gpu["driver"] for gpu in machine["gpus"]]
        later = {name: record.get(name) or None for name in LATER_CONDITIONS}
        return _Facts(
            scenario=record["scenario"],
            machine={name: machine[name] for name in MACHINE} | {"gpus": [gpu["name"] for gpu in machine["gpus"]]},
            model={"sha256": record["model"]["sha256"], "content_sha256": record["model"].get("content_sha256")},
            conditions={name: record[name] for name in CONDITIONS} | later | {"drivers": drivers} | record["versions"],
            rates={float(result["arrivals"]["rate"]) for result in results if result["arrivals"]},
            loading=_numbers(record, ("load_ms",)),
            results={(result["batch"], result["edits"]): _numbers(result, MEASURES) for result in results},
            shortfalls=[(result["batch"], shortfall) for result in results for shortfall in result["shortfalls"]],
        )
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
        raise InputError(f"one of the records is damaged ({type(error).__name__}: {str(error)[:200]})") from error


def _numbers(record: Record, names: tuple[str, ...]) -> Numbers:
    return {name: None if record[name] is None else float(record[name]) for name in names}


def _different_models(a: Record, b: Record) -> Iterator[Difference]:
    """Compare graph and weights, not names; if a record does not tell these apart, compare the whole files."""
    if a["sha256"] != b["sha256"]:
        what = "content_sha256" if a["content_sha256"] and b["content_sha256"] else "sha256"
        if a[what] != b[what]:
            yield Difference(what, a[what], b[what])


def _differences(a: Record, b: Record) -> Iterator[Difference]:
    for name in dict.fromkeys((*a, *b)):
        if a.get(name) != b.get(name):
            yield Difference(name, a.get(name), b.get(name))


def _ratios(size: tuple[int | None, int | None], a: Numbers, b: Numbers) -> Iterator[Ratio]:
    for measure, ours in a.items():
        theirs = b[measure]
        if ours and theirs:
            yield Ratio(*size, measure, ours, theirs, round(theirs / ours, 4))


def _words(differences: list[Difference]) -> str:
    return "; ".join(f"{difference.what}: {difference.a} and {difference.b}" for difference in differences)


def _sizes(facts: _Facts) -> str:
    return ", ".join(f"{batch}x{edits}" for batch, edits in facts.results)
