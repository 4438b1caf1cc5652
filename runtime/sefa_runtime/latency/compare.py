"""Two latency records side by side, if they can be compared at all."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sefa_runtime.errors import InputError

# What must be the same for two machines to count as the same; load and driver differ from one day to the next.
MACHINE = ("cpu", "cpu_extensions", "cores", "cores_limit", "memory_gib", "memory_limit_gib", "system")
# What may differ, and is said.
CONDITIONS = ("provider", "provider_options", "session_entries", "io_binding", "tf32", "threads")
MEASURES = ("first_run_ms", "mean_ms", "p50_ms", "p90_ms", "p95_ms", "p99_ms", "images_per_second")

Record = dict[str, Any]


@dataclass(frozen=True)
class Difference:
    """Something that is not the same in both records."""

    what: str
    a: object
    b: object


@dataclass(frozen=True)
class Ratio:
    """One number of both records."""

    batch: int | None  # None: of loading, not of a batch size
    edits: int | None
    measure: str  # its name in the record
    a: float
    b: float
    b_over_a: float


@dataclass(frozen=True)
class Comparison:
    """What two records say about the same scenario."""

    scenario: str
    rate: float | None  # scenario `server`: requests per second
    differences: tuple[Difference, ...]
    ratios: tuple[Ratio, ...]
    shortfalls: tuple[str, ...]  # of either record


def compare_records(a: Record, b: Record, across_machines: bool = False, across_models: bool = False) -> Comparison:
    """Set the numbers of two records, as `read_record` gives them, in relation.

    Only what was measured in the same way is compared: the same scenario, at the same rate, with the same batch size
    and number of edits; at least one such measurement must be in both. Percentiles that one of them lacks are left out.

    Args:
        a: The one that ratios are relative to.
        b: The other.
        across_machines: Compare although the machines differ.
        across_models: Compare although the models differ.

    Raises:
        InputError: If the records differ in what may not, or one is damaged.
    """
    try:
        machines = list(_differences(_machine(a), _machine(b)))
        if machines and not across_machines:
            raise InputError(f"measured on different machines ({_words(machines)}): --across-machines compares them")
        models = list(_different_models(a["model"], b["model"]))
        if models and not across_models:
            raise InputError(f"measured with different models ({_words(models)}): --across-models compares them")
        if a["scenario"] != b["scenario"]:
            raise InputError(f"measured in different scenarios: {a['scenario']} and {b['scenario']}")
        rates = {result["arrivals"]["rate"] for record in (a, b) for result in record["results"] if result["arrivals"]}
        if len(rates) > 1:
            raise InputError(f"measured at different rates: {' and '.join(f'{rate:g}' for rate in sorted(rates))}/s")
        ratios = tuple(_ratios(a, b))
        if not ratios:
            raise InputError(f"no batch size and number of edits in common: {_sizes(a)} and {_sizes(b)}")
        conditions = _differences(_conditions(a), _conditions(b))
        return Comparison(
            scenario=a["scenario"],
            rate=rates.pop() if rates else None,
            differences=(*machines, *models, *conditions),
            ratios=(*ratios, *_ratio("load_ms", a, b)),
            shortfalls=tuple(
                f"{name}, batch {result['batch']}: {shortfall}"
                for name, record in (("A", a), ("B", b))
                for result in record["results"]
                for shortfall in result["shortfalls"]
            ),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"one of the records is damaged ({type(error).__name__}: {error})") from error


def _machine(record: Record) -> Record:
    machine = record["machine"]
    return {**{name: machine[name] for name in MACHINE}, "gpus": [gpu["name"] for gpu in machine["gpus"]]}


def _different_models(a: Record, b: Record) -> Iterator[Difference]:
    """Compare graph and weights, not names; of records of before, which do not tell these apart, the files."""
    if a["sha256"] != b["sha256"]:
        what = "content_sha256" if a.get("content_sha256") and b.get("content_sha256") else "sha256"
        if a[what] != b[what]:
            yield Difference(what, a[what], b[what])


def _conditions(record: Record) -> Record:
    drivers = [gpu["driver"] for gpu in record["machine"]["gpus"]]
    return {**{name: record[name] for name in CONDITIONS}, "drivers": drivers, **record["versions"]}


def _differences(a: Record, b: Record) -> Iterator[Difference]:
    for name in dict.fromkeys((*a, *b)):
        if a.get(name) != b.get(name):
            yield Difference(name, a.get(name), b.get(name))


def _ratios(a: Record, b: Record) -> Iterator[Ratio]:
    others = {(result["batch"], result["edits"]): result for result in b["results"]}
    for result in a["results"]:
        size = (result["batch"], result["edits"])
        if size in others:
            for measure in MEASURES:
                yield from _ratio(measure, result, others[size], size)


def _ratio(measure: str, a: Record, b: Record, size: tuple[int, int] | None = None) -> Iterator[Ratio]:
    if a[measure] and b[measure]:
        batch, edits = size or (None, None)
        yield Ratio(batch, edits, measure, a[measure], b[measure], round(b[measure] / a[measure], 4))


def _words(differences: list[Difference]) -> str:
    return "; ".join(f"{difference.what}: {difference.a} and {difference.b}" for difference in differences)


def _sizes(record: Record) -> str:
    return ", ".join(f"{result['batch']}x{result['edits']}" for result in record["results"])
