"""Compare `sefa bench` with MLCommons' LoadGen on the same model: python benchmarks/loadgen.py [-o RECORD.json]

Two checks, on the demo's faces generator:

- same runs: while LoadGen measures, each run is also timed by our clock, and the percentiles that our code computes
  from these times are compared with those that LoadGen reports. In the scenario `server`, LoadGen's arrival times and
  the durations of the runs are fed to our queue, which must give LoadGen's latencies.
- side by side: LoadGen and `measure` take turns, each with its own runs; on a busy machine the tails differ.

The scenario `offline` is only measured side by side. Exit code 1 if the same runs give percentiles that differ by more
than `TOLERANCE_PERCENT`.
"""

import re
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import mlperf_loadgen
import numpy as np
from numpy.typing import NDArray

import sefa
import sefa_runtime
from records import Record, make_parser
from sefa.demo import find_faces
from sefa_export import export_onnx
from sefa_runtime.latency.measure import example_inputs, measure
from sefa_runtime.latency.scenarios import Clock, on_schedule
from sefa_runtime.latency.statistics import PERCENTILES, percentile

ROUNDS, SECONDS = 9, 5.0
RATE_SHARE = 0.6  # of the rate that one run after another would serve
BATCH = 8  # in the scenario offline
TOLERANCE_PERCENT = 2.0
# The beginning of a sample in LoadGen's trace; the trace as a whole is not always valid JSON.
SAMPLE = r'"name":"Sample","cat":"default","ph":"b","pid":\d+,"id":(\d+),"ts":([\d.]+)'

Percentiles = dict[str, float]


class Replay(Clock):
    """A clock that is advanced by runs of known durations."""

    def __init__(self, durations: Sequence[float]) -> None:
        self.time = 0.0
        self.durations: Iterator[float] = iter(durations)

    def now(self) -> float:
        return self.time

    def wait_until(self, moment: float) -> None:
        self.time = max(self.time, moment)

    def run(self) -> None:
        """Advance by the next duration."""
        self.time += next(self.durations)


def main() -> None:
    """Measure, print, and write the record."""
    output: Path | None = make_parser(__doc__).parse_args().output
    record = Record("64x64 faces, one edit; latencies in ms; medians over the rounds", ("mlcommons-loadgen",))

    generator = sefa.load(find_faces())
    with tempfile.TemporaryDirectory() as folder:
        editor = sefa_runtime.load(export_onnx(generator, sefa.factorize(generator), Path(folder, "faces.onnx")), "cpu")
        single = compare_single_stream(editor)
        rate = round(RATE_SHARE * 1000 / single["side_by_side"]["ours"]["p50_ms"])
        results = {"single_stream": single, "server": compare_server(editor, rate), "offline": compare_offline(editor)}
    worst = max(
        single["same_runs"]["largest_difference_percent"], results["server"]["same_runs"]["largest_difference_percent"]
    )
    problems = [f"the same runs give percentiles that differ by {worst} %"] if worst > TOLERANCE_PERCENT else []
    record.finish({"rounds": ROUNDS, "seconds": SECONDS, "results": results}, output, problems)


def compare_single_stream(editor: sefa_runtime.Editor) -> dict[str, Any]:
    """Compare the scenario with one run after another."""
    theirs, same, ours = [], [], []
    for _ in range(ROUNDS):
        summary, _, runs = run_loadgen(editor, "SingleStream", 1)
        theirs.append(summary)
        same.append(percentiles((runs[:, 1] - runs[:, 0]).tolist()))
        ours.append(measured(editor))
    return agreement(theirs, same, ours)


def compare_server(editor: sefa_runtime.Editor, rate: float) -> dict[str, Any]:
    """Compare the scenario in which requests arrive as a Poisson process."""
    theirs, same, ours = [], [], []
    for _ in range(ROUNDS):
        summary, moments, runs = run_loadgen(editor, "Server", 1, rate)
        _, ends = (runs - (runs[:, 0] - moments).min()).T  # On LoadGen's clock: no run begins before its moment.
        possible = np.maximum(moments, np.append(-np.inf, ends[:-1]))  # Its moment has come and the last run has ended.
        clock = Replay((ends - possible).tolist())  # Includes the time the operating system took to wake LoadGen.
        timing = on_schedule(clock.run, moments, np.inf, clock, lambda share: None)
        theirs.append(summary)
        same.append(percentiles(timing.latencies))
        ours.append(measured(editor, scenario="server", rate=rate))
    return {"rate": rate, **agreement(theirs, same, ours)}


def compare_offline(editor: sefa_runtime.Editor) -> dict[str, Any]:
    """Compare the scenario with all samples at once, in batches."""
    theirs, ours = [], []
    for _ in range(ROUNDS):
        summary, _, _ = run_loadgen(editor, "Offline", BATCH)
        theirs.append(summary["samples_per_second"])
        (result,) = measure(editor, (BATCH,), seconds=SECONDS, scenario="offline").results
        ours.append(result.images_per_second)
    return {
        "batch": BATCH,
        "loadgen_images_per_second": round(float(np.median(theirs)), 1),
        "our_images_per_second": round(float(np.median(ours)), 1),
        "ours_over_loadgen": round(float(np.median(np.divide(ours, theirs))), 3),
    }


def measured(editor: sefa_runtime.Editor, **scenario: Any) -> Percentiles:
    """Return the percentiles that `measure` reports: those for which there were enough runs."""
    (result,) = measure(editor, (1,), seconds=SECONDS, **scenario).results
    found = {f"p{percent}_ms": getattr(result, f"p{percent}_ms") for percent in PERCENTILES}
    return {name: value for name, value in found.items() if value is not None}


def percentiles(latencies: Sequence[float]) -> Percentiles:
    """Compute the percentiles of latencies in seconds with our code: those for which there are enough runs."""
    found = {f"p{percent}_ms": percentile(latencies, percent) for percent in PERCENTILES}
    return {name: 1000 * value for name, value in found.items() if value is not None}


def agreement(theirs: list[Percentiles], same: list[Percentiles], ours: list[Percentiles]) -> dict[str, Any]:
    """Compare with LoadGen: the ratio in each round, and the median of the ratios."""
    names = [name for name in theirs[0] if all(name in found for found in (*theirs, *same, *ours))]

    def ratios(values: list[Percentiles]) -> Percentiles:
        return {
            name: round(float(np.median([a[name] / b[name] for a, b in zip(values, theirs, strict=True)])), 4)
            for name in names
        }

    def medians(values: list[Percentiles]) -> Percentiles:
        return {name: round(float(np.median([value[name] for value in values])), 3) for name in names}

    of_same = ratios(same)
    return {
        "loadgen": medians(theirs),
        "same_runs": {
            "ours": medians(same),
            "ours_over_loadgen": of_same,
            "largest_difference_percent": round(100 * max(abs(ratio - 1) for ratio in of_same.values()), 2),
        },
        "side_by_side": {"ours": medians(ours), "ours_over_loadgen": ratios(ours)},
    }


def run_loadgen(
    editor: sefa_runtime.Editor, scenario: str, batch: int, rate: float | None = None
) -> tuple[Percentiles, NDArray[np.float64], NDArray[np.float64]]:
    """Run one LoadGen test.

    Returns:
        What LoadGen reports; the moments for which it scheduled its requests, [requests], in seconds; begin and end of
        each run on our clock, [runs, 2], in seconds.
    """
    inputs = example_inputs(editor.info, batch, 1)
    runs: list[tuple[float, float]] = []

    def issue(queries: list[Any]) -> None:
        for start in range(0, len(queries), batch):
            began = time.perf_counter()
            editor.run(**inputs)
            runs.append((began, time.perf_counter()))
            done = queries[start : start + batch]
            mlperf_loadgen.QuerySamplesComplete([mlperf_loadgen.QuerySampleResponse(query.id, 0, 0) for query in done])

    settings = mlperf_loadgen.TestSettings()
    settings.scenario = getattr(mlperf_loadgen.TestScenario, scenario)
    settings.mode = mlperf_loadgen.TestMode.PerformanceOnly
    settings.min_duration_ms = int(1000 * SECONDS)
    settings.min_query_count = 1 if scenario == "Offline" else 100
    settings.offline_expected_qps = throughput(editor.run, inputs, batch)
    settings.server_target_qps = rate or 1.0
    settings.server_target_latency_ns = 10**9
    with tempfile.TemporaryDirectory() as folder:
        log_output = mlperf_loadgen.LogOutputSettings()
        log_output.outdir = folder
        log = mlperf_loadgen.LogSettings()
        log.log_output = log_output
        log.enable_trace = True
        system = mlperf_loadgen.ConstructSUT(issue, lambda: None)
        library = mlperf_loadgen.ConstructQSL(64, 64, lambda indices: None, lambda indices: None)
        mlperf_loadgen.StartTestWithLogSettings(system, library, settings, log, str(Path(folder, "no audit.config")))
        mlperf_loadgen.DestroyQSL(library)
        mlperf_loadgen.DestroySUT(system)
        summary = Path(folder, "mlperf_log_summary.txt").read_text()
        trace = Path(folder, "mlperf_log_trace.json").read_text()
    # A sample begins when it was scheduled; the trace is in microseconds.
    begun = {int(number): float(moment) for number, moment in re.findall(SAMPLE, trace)}
    moments = np.array([(begun[number] - begun[0]) / 1e6 for number in sorted(begun)])
    reported = {
        f"p{percent}_ms": float(value) / 1e6
        for percent in PERCENTILES
        for value in re.findall(rf"{percent}\.00 percentile latency \(ns\)\s*: (\d+)", summary)
    }
    for throughput_text in re.findall(r"Samples per second: ([\d.]+)", summary):
        reported["samples_per_second"] = float(throughput_text)
    return reported, moments, np.array(runs)


def throughput(run: Callable[..., object], inputs: dict[str, Any], batch: int) -> float:
    """Estimate images per second: LoadGen needs it to decide how many samples fill its time."""
    run(**inputs)
    began = time.perf_counter()
    for _ in range(20):
        run(**inputs)
    return 20 * batch / (time.perf_counter() - began)


if __name__ == "__main__":
    main()
