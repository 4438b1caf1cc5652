"""The latency record: what was measured, on which machine, with which software.

`record.schema.json` beside this file is the contract for readers of the JSON; docs/latency-record.md explains it.
"""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from reprlib import repr as short
from typing import Any

from sefa_runtime.errors import InputError
from sefa_runtime.files import input_problem
from sefa_runtime.json_text import read_json
from sefa_runtime.latency.graph_facts import GraphFacts
from sefa_runtime.latency.roofline import Rates, Roofline
from sefa_runtime.latency.scenarios import WarmUp
from sefa_runtime.session.placement import Placement
from sefa_runtime.session.providers import short_name

# Increased whenever a reader of the earlier format would misunderstand a record.
RECORD_VERSION = 3
# Of a file: a million samples take 20 MB.
MAX_RECORD = 32 * 2**20


@dataclass(frozen=True)
class Arrivals:
    """How requests arrived in the scenario `server`."""

    rate: float  # asked for: requests per second
    seed: int
    requests: int
    unserved: int  # still waiting when the measurement ended
    load: float  # rate times the mean time of a run; at 1 or more the queue grows without end


@dataclass(frozen=True)
class BatchResult:
    """What was measured with one batch size.

    Percentiles are None if there are too few runs for them, see `statistics`. Latency statistics are also None if they
    depend on requests that were never served.
    """

    batch: int  # images per run
    edits: int  # per image
    first_run_ms: float  # the first run of this batch size, not counted below
    warm_up: WarmUp  # the runs before those that count
    runs: int  # that count
    seconds: float  # how long the measurement took
    mean_ms: float | None
    min_ms: float | None
    p50_ms: float | None
    p90_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    max_ms: float | None
    images_per_second: float
    arrivals: Arrivals | None  # scenario `server`: what came and what waited
    shortfalls: tuple[str, ...]  # what this measurement lacks, in words
    samples_ms: tuple[float | None, ...] | None  # every latency, in order; None: never served
    # Held against the machine's rates; None: those were not measured, the model does not say its multiply-adds, or
    # latencies include waiting.
    roofline: Roofline | None = None


@dataclass(frozen=True)
class LatencyRecord:
    """One measurement of one model."""

    record_version: int  # of the record's format
    created: str  # UTC, ISO 8601
    scenario: str
    model: dict[str, Any]  # what the file says of itself, and its sha256
    graph: GraphFacts  # its inputs, outputs and operators
    provider_requested: str  # as the caller wrote it
    provider: str  # what actually ran
    provider_reason: str  # why, if it is not the one requested by name
    provider_options: dict[str, str]  # what the provider was given
    session_entries: dict[str, str]  # onnxruntime's settings of the session
    placement: Placement  # which provider runs how many nodes
    io_binding: bool  # whether inputs and image stay in buffers on the device
    tf32: bool | None  # whether factors of float32 products may be rounded to 10 bits; None: unknown
    threads: int  # per operator, on the CPU
    load_ms: float  # to build the onnxruntime session
    load_first_run_ms: float | None  # of the run by which loading tests the provider; None: no such run
    results: tuple[BatchResult, ...]
    best_batch: int | None  # scenario `offline`: the batch size with the most images per second
    machine: dict[str, Any]  # at the start of the measurement
    versions: dict[str, str]  # of the packages that ran
    rates: Rates | None = None  # the machine's; None: not measured
    static_batch: int | None = None  # the batch size that was fixed at export or on loading; None: any
    styles_on_cpu: bool = False  # whether what precedes the convolutions ran on the CPU, see `load`

    @property
    def ran_as_asked(self) -> bool:
        """Whether the provider that ran is the one requested."""
        return self.provider_requested.lower() == "auto" or short_name(self.provider_requested) == self.provider

    def to_dict(self, samples: bool = False) -> dict[str, Any]:
        """Return the record as plain values for JSON, with every latency sample if `samples`."""
        results = tuple(result if samples else replace(result, samples_ms=None) for result in self.results)
        return asdict(replace(self, results=results))


def read_record(path: Path) -> dict[str, Any]:
    """Read a record's JSON.

    Raises:
        InputError: If the file is missing, not a latency record, or one of another version.
    """
    problem = input_problem(path)
    if problem:
        raise InputError(f"{path}: {problem}; a latency record was expected")
    try:
        document = read_json(path, MAX_RECORD)
    except ValueError as error:
        raise InputError(f"{path}: not a latency record: no JSON, or more than {MAX_RECORD >> 20} MB") from error
    if not isinstance(document, dict) or "record_version" not in document:
        raise InputError(f"{path}: not a latency record: no record_version")
    if document["record_version"] != RECORD_VERSION:
        raise InputError(
            f"{path}: a record of version {short(document['record_version'])}, this sefa reads version "
            f"{RECORD_VERSION}; measure again"
        )
    return document
