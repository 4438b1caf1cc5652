"""Single-stream latency: one request after another, each waiting for the one before."""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

import numpy as np

from sefa_runtime.editor import Editor
from sefa_runtime.errors import InputError
from sefa_runtime.files import sha256_of
from sefa_runtime.latents import latents_from_seeds
from sefa_runtime.machine import describe_machine, describe_versions

RECORD_VERSION = 1
# Below this many runs a 99th percentile is the maximum by another name.
MIN_RUNS = 100
MAX_BATCH, MAX_EDITS, MAX_SECONDS = 4096, 4096, 86400  # a day
WARM_UP_SECONDS = 0.5
WARM_UP_RUNS = 5

Progress = Callable[[float], None]


@dataclass(frozen=True)
class BatchLatency:
    """Latency of one batch size, in milliseconds per run."""

    batch: int
    edits: int
    runs: int
    seconds: float
    first_run_ms: float  # the first run of this batch size, not part of the percentiles
    mean_ms: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    images_per_second: float


@dataclass(frozen=True)
class LatencyRecord:
    """One benchmark: what was measured, on what, with what."""

    record_version: int
    created: str  # UTC, ISO 8601
    scenario: str
    model: dict[str, object]
    provider_requested: str
    provider: str  # what really ran
    provider_reason: str
    provider_options: dict[str, str]
    threads: int  # 0: onnxruntime's choice
    load_ms: float
    warm_up_ms: float | None
    results: tuple[BatchLatency, ...]
    machine: dict[str, object]
    versions: dict[str, str]

    def to_dict(self) -> dict[str, object]:
        """The record as plain values for JSON."""
        return asdict(self)


def measure(
    editor: Editor,
    batches: Sequence[int] = (1,),
    edits: int = 1,
    seconds: float = 5.0,
    progress: Progress = lambda share: None,
) -> LatencyRecord:
    """Measure `Editor.run` from arrays to arrays.

    Args:
        editor: A freshly loaded model, so that the first run is a first run.
        batches: Batch sizes, measured one after another.
        edits: Edits per image.
        seconds: Time for each batch size; it goes on until there are `MIN_RUNS` runs as well.
        progress: Called with the share that is done, 0 to 1.

    Raises:
        InputError: If a number is out of range.
    """
    if not batches:
        raise InputError("at least one batch size is needed")
    for name, values, least, most in (
        ("batch", batches, 1, MAX_BATCH),
        ("edits", (edits,), 0, MAX_EDITS),
        ("seconds", (seconds,), 0.001, MAX_SECONDS),
    ):
        for value in values:
            if not least <= value <= most:
                raise InputError(f"{name} must be in {least}..{most}, got {value}")
    results = []
    for index, batch in enumerate(batches):

        def show(share: float, done: int = index) -> None:
            progress((done + share) / len(batches))

        results.append(_measure_batch(editor, batch, edits, seconds, show))
    session = editor.session
    return LatencyRecord(
        record_version=RECORD_VERSION,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        scenario="single_stream",
        model={
            "file": editor.path.name,
            "bytes": editor.path.stat().st_size,
            "sha256": sha256_of(editor.path),
            "family": editor.info.family,
            "resolution": list(editor.info.resolution),
            "precision": editor.info.precision,
            "output": editor.info.output,
        },
        provider_requested=session.requested,
        provider=session.provider,
        provider_reason=session.reason,
        provider_options=session.options,
        threads=session.threads,
        load_ms=round(session.load_ms, 3),
        warm_up_ms=None if session.warm_up_ms is None else round(session.warm_up_ms, 3),
        results=tuple(results),
        machine=describe_machine(),
        versions=describe_versions(),
    )


def _measure_batch(editor: Editor, batch: int, edits: int, seconds: float, progress: Progress) -> BatchLatency:
    z = latents_from_seeds(range(batch), editor.info.z_dim)
    random = np.random.default_rng(0)
    direction = random.integers(len(editor.info.directions), size=(batch, edits))
    alpha = random.uniform(-3, 3, size=(batch, edits)).astype(np.float32)
    label = random.integers(editor.info.num_classes, size=batch) if editor.info.num_classes else None

    def run_ms() -> float:
        started = time.perf_counter_ns()
        editor.run(z, direction, alpha, label)
        return (time.perf_counter_ns() - started) / 1e6

    first_run_ms = run_ms()
    warm_until = time.perf_counter() + min(WARM_UP_SECONDS, seconds)
    warm_runs = 0
    while warm_runs < WARM_UP_RUNS or time.perf_counter() < warm_until:
        run_ms()
        warm_runs += 1

    times_ms: list[float] = []
    started = time.perf_counter()
    while len(times_ms) < MIN_RUNS or time.perf_counter() - started < seconds:
        times_ms.append(run_ms())
        progress(min(len(times_ms) / MIN_RUNS, (time.perf_counter() - started) / seconds))
    elapsed = time.perf_counter() - started
    progress(1.0)
    p50, p90, p99 = np.percentile(times_ms, (50, 90, 99))
    return BatchLatency(
        batch=batch,
        edits=edits,
        runs=len(times_ms),
        seconds=round(elapsed, 3),
        first_run_ms=round(first_run_ms, 3),
        mean_ms=round(float(np.mean(times_ms)), 3),
        p50_ms=round(float(p50), 3),
        p90_ms=round(float(p90), 3),
        p99_ms=round(float(p99), 3),
        images_per_second=round(batch * len(times_ms) / elapsed, 2),
    )
