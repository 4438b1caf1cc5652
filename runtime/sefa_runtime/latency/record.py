"""The latency record: what was measured, on what, with what.

`record.schema.json` beside this file is the contract for readers of its JSON; docs/latency-record.md explains it.
"""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from sefa_runtime.errors import InputError
from sefa_runtime.files import input_problem
from sefa_runtime.latency.graph_facts import GraphFacts
from sefa_runtime.latency.scenarios import WarmUp
from sefa_runtime.session.placement import Placement
from sefa_runtime.session.providers import short_name

# Raised when a reader of the earlier format would misunderstand a record.
RECORD_VERSION = 3


@dataclass(frozen=True)
class Arrivals:
    """How the requests of the scenario `server` came."""

    rate: float  # asked for: requests per second
    seed: int
    requests: int
    unserved: int  # still waiting when the measurement ended
    load: float  # rate times the mean time of a run: from 1 on the queue grows without end


@dataclass(frozen=True)
class BatchResult:
    """What was measured with one batch size.

    Percentiles are None where there are too few runs for them, see `statistics`; all of a latency's statistics are also
    None where they depend on requests that were never served.
    """

    batch: int  # images per run
    edits: int  # per image
    first_run_ms: float  # the first run of this batch size, not among those that count
    warm_up: WarmUp
    runs: int
    seconds: float  # that the measurement took
    mean_ms: float | None
    min_ms: float | None
    p50_ms: float | None
    p90_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    max_ms: float | None
    images_per_second: float
    arrivals: Arrivals | None
    shortfalls: tuple[str, ...]  # what this measurement lacks, in words
    samples_ms: tuple[float | None, ...] | None  # every latency, in order; None: never served


@dataclass(frozen=True)
class LatencyRecord:
    """One measurement of one model."""

    record_version: int
    created: str  # UTC, ISO 8601
    scenario: str
    model: dict[str, Any]
    graph: GraphFacts
    provider_requested: str
    provider: str  # what really ran
    provider_reason: str  # why, if it is not the one asked for by name
    provider_options: dict[str, str]
    session_entries: dict[str, str]  # onnxruntime's settings of the session
    placement: Placement  # which provider runs how many nodes
    io_binding: bool  # whether inputs and image stay in buffers on the device
    tf32: bool | None  # whether float32 products may be rounded to 10 bits; None: not known of this provider
    threads: int  # of one operator, on the CPU
    load_ms: float
    load_first_run_ms: float | None  # of the run with which loading proves the provider; None: it made none
    results: tuple[BatchResult, ...]
    best_batch: int | None  # scenario `offline`: the batch size with the most images per second
    machine: dict[str, Any]  # as it was when the measurement began
    versions: dict[str, str]

    @property
    def ran_as_asked(self) -> bool:
        """Whether the provider that ran is the one asked for."""
        return self.provider_requested.lower() == "auto" or short_name(self.provider_requested) == self.provider

    def to_dict(self, samples: bool = False) -> dict[str, Any]:
        """Return the record as plain values for JSON, with every single latency if `samples`."""
        results = tuple(result if samples else replace(result, samples_ms=None) for result in self.results)
        return asdict(replace(self, results=results))


def read_record(path: Path) -> dict[str, Any]:
    """Read a record's JSON.

    Raises:
        InputError: If the file is missing, no latency record, or one of another version.
    """
    problem = input_problem(path)
    if problem:
        raise InputError(f"{path}: {problem}; a latency record was expected")
    try:
        document = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not a latency record: no JSON") from error
    if not isinstance(document, dict) or "record_version" not in document:
        raise InputError(f"{path}: not a latency record: no record_version")
    if document["record_version"] != RECORD_VERSION:
        raise InputError(
            f"{path}: a record of version {document['record_version']}, this sefa reads version {RECORD_VERSION}; "
            "measure again"
        )
    return document
