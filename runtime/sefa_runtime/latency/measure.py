"""Measuring the latency of `Editor.run`, arrays in and arrays out, in one of the scenarios."""

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import numpy as np

from sefa_runtime.editor import Editor
from sefa_runtime.errors import InputError
from sefa_runtime.files import sha256_of
from sefa_runtime.inputs.examples import as_arguments, random_inputs, seeded_latents
from sefa_runtime.inputs.latents import MAX_SEED
from sefa_runtime.latency.graph_facts import GraphFacts, read_graph_facts
from sefa_runtime.latency.record import RECORD_VERSION, Arrivals, BatchResult, LatencyRecord
from sefa_runtime.latency.roofline import Rates, least_bytes, rates_for, roofline
from sefa_runtime.latency.scenarios import (
    LONGEST,
    WANTED_RUNS,
    WANTED_SECONDS,
    Clock,
    Progress,
    Run,
    WarmUp,
    on_schedule,
    one_after_another,
    poisson_schedule,
    warm_up,
)
from sefa_runtime.latency.statistics import PERCENTILES, mean, percentile
from sefa_runtime.machine.description import describe_machine
from sefa_runtime.machine.packages import describe_versions
from sefa_runtime.model.info import ModelInfo
from sefa_runtime.session.styles import StylesFirst

SCENARIOS = ("single_stream", "offline", "server")
OFFLINE_BATCHES = (1, 2, 4, 8, 16, 32)
# The machine's rates take a second or two: a measurement with less time for each batch size leaves them out.
SECONDS_WITH_RATES = 1.0
MAX_BATCH, MAX_EDITS, MAX_SECONDS, MAX_RATE = 4096, 4096, 86400, 1_000_000  # a day


def measure(
    editor: Editor,
    batches: Sequence[int] | None = None,
    edits: int | None = None,
    seconds: float = WANTED_SECONDS,
    scenario: str = "single_stream",
    rate: float | None = None,
    seed: int = 0,
    progress: Progress = lambda share: None,
) -> LatencyRecord:
    """Measure a model's latency, and describe the model and the machine.

    Args:
        editor: A freshly loaded model, so that its first run is really the first.
        batches: Batch sizes, measured one after another; None: 1, `OFFLINE_BATCHES` in the scenario `offline`, or the
            size fixed at export.
        edits: Edits per image; None: 1, or the number fixed at export.
        seconds: Time for each batch size. Measuring continues until there are `WANTED_RUNS` runs, but for at most
            `LONGEST` times as long; a result with less than `WANTED_SECONDS` or `WANTED_RUNS` says so.
        scenario: `single_stream`: one run after another, as a single caller sees it. `offline`: the same, to find the
            batch size with the highest throughput. `server`: requests at random moments, served one at a time.
        rate: Scenario `server`: requests per second.
        seed: Seed of the random moments.
        progress: Called with the share done, 0 to 1, about once a second and never while a run is timed.

    Raises:
        InputError: If a number is out of range, `rate` does not fit the scenario, or the model was loaded from bytes.

    Examples:
        >>> record = measure(sefa_runtime.load("faces.onnx"), batches=[1], seconds=0.02)
        >>> record.results[0].batch, record.results[0].p50_ms > 0
        (1, True)
    """
    info = editor.info
    if editor.path is None:
        raise InputError("a record names the model's file: load it by its path, not from bytes")
    if batches is None:
        usual = OFFLINE_BATCHES if scenario == "offline" else (1,)
        batches = usual if info.batch is None else (info.batch,)
    if edits is None:
        edits = 1 if info.num_edits is None else info.num_edits
    _check(batches, edits, seconds, scenario, rate, seed)
    machine = describe_machine()
    clock = Clock()
    results = []
    for index, batch in enumerate(batches):

        def show(share: float, done: int = index, total: int = len(batches)) -> None:
            progress((done + share) / total)

        run = run_of_new_latents(editor, example_inputs(info, batch, edits))
        requests = None if rate is None else (rate, seed)
        results.append(_measure_batch(run, batch, edits, seconds, requests, clock, show))
    session = editor.session
    graph = read_graph_facts(editor.path)
    rates = rates_for(editor) if seconds >= SECONDS_WITH_RATES else None
    if rates is not None and scenario != "server":
        results = [_with_roofline(result, info, graph, rates) for result in results]
    return LatencyRecord(
        record_version=RECORD_VERSION,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        scenario=scenario,
        model={
            "file": editor.path.name,
            "bytes": editor.path.stat().st_size,
            "sha256": sha256_of(editor.path),
            "content_sha256": None if info.payload is None else info.payload.content_sha256,
            "family": info.family,
            "latent": info.latent,
            "resolution": list(info.resolution),
            "channels": info.channels,
            "precision": info.precision,
            "output": info.output_type,
            "macs": info.macs,
        },
        graph=graph,
        provider_requested=session.requested,
        provider=session.provider,
        provider_reason=session.reason,
        provider_options=session.options,
        session_entries=session.entries,
        placement=session.placement,
        io_binding=session.bound is not None,
        tf32=may_use_tf32(session.provider, session.options),
        threads=session.threads,
        load_ms=round(session.load_ms, 3),
        load_first_run_ms=None if session.warm_up_ms is None else round(session.warm_up_ms, 3),
        results=tuple(results),
        best_batch=max(results, key=lambda result: result.images_per_second).batch if scenario == "offline" else None,
        machine=machine,
        versions=describe_versions(),
        rates=rates,
        static_batch=info.batch,
        styles_on_cpu=isinstance(session.prefix, StylesFirst),
    )


def _with_roofline(result: BatchResult, info: ModelInfo, graph: GraphFacts, rates: Rates) -> BatchResult:
    milliseconds = result.p50_ms or result.mean_ms
    if info.macs is None or not milliseconds:
        return result
    moved = least_bytes(info, graph.parameter_bytes, result.batch, result.edits)
    return replace(result, roofline=roofline(result.batch * info.macs, moved, milliseconds, rates))


def example_inputs(info: ModelInfo, batch: int, edits: int) -> dict[str, Any]:
    """Return arguments for `Editor.run` that are the same in every measurement."""
    signature = info.signature
    random = np.random.Generator(np.random.PCG64(0))
    return as_arguments(random_inputs(signature, random, batch, edits, seeded_latents(signature, batch)))


def run_of_new_latents(editor: Editor, inputs: Mapping[str, Any]) -> Run:
    """Return a run that computes everything each time, as for latents that the editor has never seen."""

    def run() -> None:
        editor.session.forget_latents()
        editor.run(**inputs)

    return run


def _check(batches: Sequence[int], edits: int, seconds: float, scenario: str, rate: float | None, seed: int) -> None:
    if scenario not in SCENARIOS:
        raise InputError(f"scenario must be one of {', '.join(SCENARIOS)}, got {scenario!r}")
    if (rate is not None) != (scenario == "server"):
        raise InputError(
            "the scenario server needs a rate: requests per second"
            if rate is None
            else f"a rate belongs to the scenario server, not to {scenario}"
        )
    if not batches:
        raise InputError("at least one batch size is needed")
    for name, values, least, most in (
        ("batch", batches, 1, MAX_BATCH),
        ("edits", (edits,), 0, MAX_EDITS),
        ("seconds", (seconds,), 0.001, MAX_SECONDS),
        ("rate", (() if rate is None else (rate,)), 0.001, MAX_RATE),
        ("seed", (seed,), 0, MAX_SEED),
    ):
        for value in values:
            if not least <= value <= most:
                raise InputError(f"{name} must be in {least}..{most}, got {value}")


def _measure_batch(
    run: Run,
    batch: int,
    edits: int,
    seconds: float,
    requests: tuple[float, int] | None,
    clock: Clock,
    progress: Progress,
) -> BatchResult:
    """Measure one batch size; `requests` has the rate and seed of the scenario `server`, None in the others."""
    moments = None if requests is None else poisson_schedule(requests[0], seconds, requests[1])
    began = clock.now()
    run()
    first_run = clock.now() - began
    warmed = warm_up(run, seconds, clock)
    if requests is None or moments is None:
        timing = one_after_another(run, seconds, clock, progress)
        arrivals, elapsed = None, timing.elapsed
    else:
        timing = on_schedule(run, moments, LONGEST * seconds, clock, progress)
        load = requests[0] * timing.busy / timing.runs
        arrivals = Arrivals(*requests, len(moments), len(moments) - timing.runs, round(load, 4))
        elapsed = max(timing.elapsed, seconds)  # At least the time in which requests could come.
    progress(1.0)
    samples_ms = [1000 * latency for latency in timing.latencies]
    percentiles = {f"p{percent}_ms": _rounded(percentile(samples_ms, percent)) for percent in PERCENTILES}
    return BatchResult(
        batch=batch,
        edits=edits,
        first_run_ms=round(1000 * first_run, 3),
        warm_up=WarmUp(warmed.runs, round(warmed.seconds, 3), warmed.stable),
        runs=timing.runs,
        seconds=round(elapsed, 3),
        mean_ms=_rounded(mean(samples_ms)),
        min_ms=round(min(samples_ms), 3),
        **percentiles,
        max_ms=_rounded(max(samples_ms)),
        images_per_second=round(batch * timing.runs / elapsed, 2),
        arrivals=arrivals,
        shortfalls=tuple(_shortfalls(timing.runs, elapsed, warmed, arrivals)),
        samples_ms=tuple(map(_rounded, samples_ms)),
        roofline=None,
    )


def _shortfalls(runs: int, elapsed: float, warmed: WarmUp, arrivals: Arrivals | None) -> Iterator[str]:
    if elapsed < WANTED_SECONDS:
        yield f"{elapsed:.1f} s of {WANTED_SECONDS:g} s"
    if runs < WANTED_RUNS:
        yield f"{runs} of {WANTED_RUNS} runs"
    if not warmed.stable:
        yield f"not stable after {warmed.seconds:.1f} s of warm-up"
    if arrivals is not None and arrivals.load >= 1:
        yield f"asked for {arrivals.load:.2f} times what can be served: the longer it lasts, the higher the latency"
    if arrivals is not None and arrivals.unserved:
        yield f"{arrivals.unserved} of {arrivals.requests} requests were not served"


def may_use_tf32(provider: str, options: Mapping[str, str]) -> bool | None:
    """Return whether a provider may round the factors of float32 products to 10 bits; None if unknown."""
    if provider == "cpu":
        return False
    if provider not in ("cuda", "tensorrt"):
        return None
    if os.environ.get("NVIDIA_TF32_OVERRIDE") == "0":  # NVIDIA's libraries obey it.
        return False
    # onnxruntime's default for CUDA is 1. TensorRT decides for itself.
    return options.get("use_tf32", "1") != "0" if provider == "cuda" else None


def _rounded(value: float | None) -> float | None:
    """Round to the microsecond; None if the value is unknown."""
    return round(value, 3) if value is not None and math.isfinite(value) else None
