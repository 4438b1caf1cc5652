"""Finding the threads, concurrent runs, provider options and images per run that suit a model best on this machine."""

import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from sefa_runtime.editor import Editor
from sefa_runtime.errors import InputError, SefaRuntimeError
from sefa_runtime.instances import load_instances
from sefa_runtime.latency.measure import MAX_SECONDS, example_inputs, run_of_new_latents
from sefa_runtime.latency.scenarios import Progress, Run
from sefa_runtime.machine.cores import usable_cores
from sefa_runtime.machine.description import describe_machine
from sefa_runtime.machine.packages import describe_versions
from sefa_runtime.model.info import ModelInfo

BATCHES = (1, 4, 16)
# Settings are tried in turn, this many times, since a machine's speed drifts.
ROUNDS = 3
# A batch is left out if its images, run one by one, would take longer.
LONGEST_RUN_S = 10.0
# Trials this close to the best count as equal to it; the first of them wins, being nearest to the defaults.
NOISE = 0.03


@dataclass(frozen=True)
class Setting:
    """One way of running a model."""

    instances: int = 1  # concurrent runs
    threads: int | None = None  # per run; None: the provider's default
    options: Mapping[str, str] = field(default_factory=dict)  # provider options, in addition to those given


@dataclass(frozen=True)
class Trial:
    """What was measured with one setting and batch."""

    setting: Setting
    batch: int
    runs: int
    p50_ms: float  # of one run
    images_per_second: float  # all instances together, median of the rounds


@dataclass(frozen=True)
class Tuning:
    """The results; as plain values, what `sefa tune --json` prints."""

    model: str  # the file's name
    provider: str  # what ran
    seconds: float  # per trial
    trials: tuple[Trial, ...]  # one of each setting
    one_caller: Trial  # the shortest run of the smallest batch, with one instance
    many_callers: Trial  # the most images per second
    failures: tuple[str, ...]  # settings that did not run, and why
    machine: dict[str, Any]  # what it was measured on
    versions: dict[str, str]  # of the packages that ran


@dataclass(frozen=True)
class Times:
    """The times of one round of a trial, in seconds."""

    runs: list[float]
    elapsed: float  # from the common start to the end of the last run


def tune(
    path: str | Path,
    provider: str = "auto",
    provider_options: Mapping[str, object] | None = None,
    seconds: float = 1.0,
    progress: Progress = lambda share: None,
    estimate: Callable[[float], None] = lambda seconds: None,
) -> Tuning:
    """Measure a model with different numbers of threads and instances, options and batches.

    Args:
        path: As for `load`, which also lists the errors.
        provider: As for `load`.
        provider_options: As for `load`.
        seconds: Time per setting and batch over all rounds; runs that have begun are finished.
        progress: Called with the share done, 0 to 1.
        estimate: Called once, before the first trial, with the seconds that all trials are likely to take.

    Raises:
        InputError: If `seconds` is out of range.
    """
    if not 0.001 <= seconds <= MAX_SECONDS:
        raise InputError(f"seconds must be in 0.001..{MAX_SECONDS}, got {seconds}")
    path = Path(path)
    machine = describe_machine()
    (editor,) = load_instances(path, 1, provider, provider_options)
    used, inputs = editor.provider, partial(_inputs, editor.info)
    batches, single_s = _batches(editor)
    load_s = editor.session.load_ms / 1000
    del editor
    given = dict(provider_options or {})
    settings = [setting for setting in candidates(used, usable_cores()) if not set(setting.options) & set(given)]

    estimate(sum(_trial_s(setting, batches, single_s, load_s, seconds) for setting in settings))

    def try_out(setting: Setting) -> Iterator[tuple[int, Times]]:
        options = given | dict(setting.options) or None
        editors = load_instances(path, setting.instances, used, options, setting.threads)
        for batch in batches:
            runs = [run_of_new_latents(editor, inputs(batch)) for editor in editors]
            yield batch, run_together(runs, seconds / ROUNDS)

    found: dict[tuple[int, int], list[Times]] = defaultdict(list)  # by setting and batch
    failures: dict[int, str] = {}
    for turn in range(ROUNDS):
        for index, setting in enumerate(settings):
            progress((turn + index / len(settings)) / ROUNDS)
            if index in failures:
                continue
            try:
                for batch, times in try_out(setting):
                    found[index, batch].append(times)
            except SefaRuntimeError as error:
                if index == 0:
                    raise
                failures[index] = f"{setting_in_words(setting)}: {error}"
    trials = [
        _trial(setting, batch, found[index, batch])
        for index, setting in enumerate(settings)
        if index not in failures
        for batch in batches
    ]
    return Tuning(
        model=path.name,
        provider=used,
        seconds=seconds,
        trials=tuple(trials),
        one_caller=best_for_one_caller(trials),
        many_callers=best_for_many_callers(trials),
        failures=tuple(failures.values()),
        machine=machine,
        versions=describe_versions(),
    )


def candidates(provider: str, cores: int) -> list[Setting]:
    """Return the settings to try, the default first.

    Args:
        provider: Its short name.
        cores: How many cores the process may use.
    """
    if provider == "cuda":
        options = ({"cudnn_conv_algo_search": "EXHAUSTIVE"}, {"prefer_nhwc": "1"}, {"enable_cuda_graph": "1"})
        return [Setting(), *(Setting(options=option) for option in options), Setting(instances=2)]
    if provider not in ("cpu", "openvino"):
        return [Setting(), Setting(instances=2)]
    counts = [*(1 << power for power in range(16) if 1 << power < cores), cores]
    settings = [Setting(1, threads) for threads in reversed(counts)]
    if provider == "cpu" and cores > 1:
        settings.append(Setting(1, cores, {"session.intra_op.spin_duration_us": "2000"}))
    return settings + [Setting(count, max(1, cores // count)) for count in counts if count > 1]


def run_together(runs: Sequence[Run], seconds: float) -> Times:
    """Call each of the runs repeatedly, all concurrently, for `seconds` and at least once."""
    for run in runs:
        run()  # Lets it plan memory for this batch.
    started = time.perf_counter()

    def loop(run: Run) -> tuple[list[float], float]:
        times: list[float] = []
        now = time.perf_counter()
        while now - started < seconds or not times:
            then = now
            run()
            now = time.perf_counter()
            times.append(now - then)
        return times, now

    with ThreadPoolExecutor(len(runs)) as pool:
        loops = list(pool.map(loop, runs))
    return Times([single for times, _ in loops for single in times], max(ended for _, ended in loops) - started)


def best_for_one_caller(trials: Sequence[Trial]) -> Trial:
    """Return the trial with the shortest run of the smallest batch, among those with one instance."""
    smallest = min(trial.batch for trial in trials)
    alone = [trial for trial in trials if trial.batch == smallest and trial.setting.instances == 1]
    least = min(trial.p50_ms for trial in alone)
    return next(trial for trial in alone if trial.p50_ms <= least * (1 + NOISE))


def best_for_many_callers(trials: Sequence[Trial]) -> Trial:
    """Return the trial with the most images per second."""
    most = max(trial.images_per_second for trial in trials)
    return next(trial for trial in trials if trial.images_per_second >= most * (1 - NOISE))


def setting_in_words(setting: Setting) -> str:
    """Describe a setting in words: `2 instances of 1 thread`, and the options."""
    words = f"{setting.instances} instance{'s' if setting.instances > 1 else ''}"
    if setting.threads is not None:
        words += f" of {setting.threads} thread{'s' if setting.threads > 1 else ''}"
    return ", ".join([words, *(f"{key}={value}" for key, value in setting.options.items())])


def _inputs(info: ModelInfo, batch: int) -> dict[str, Any]:
    return example_inputs(info, batch, edits=1 if info.num_edits is None else info.num_edits)


def _batches(editor: Editor) -> tuple[list[int], float]:
    """Return those of `BATCHES` that take an acceptable time, and the seconds that one image takes."""
    batch = editor.info.batch or 1
    single = run_together([run_of_new_latents(editor, _inputs(editor.info, batch))], 0.0).elapsed / batch
    if editor.info.batch is not None:
        return [batch], single
    return [batch for batch in BATCHES if batch == 1 or batch * single <= LONGEST_RUN_S], single


def _trial_s(setting: Setting, batches: Sequence[int], single_s: float, load_s: float, seconds: float) -> float:
    """Estimate the seconds for a setting in all rounds: loading, and per batch an uncounted run before the others."""
    runs = [setting.instances * batch * single_s for batch in batches]
    return ROUNDS * (setting.instances * load_s + sum(run + max(seconds / ROUNDS, run) for run in runs))


def _trial(setting: Setting, batch: int, rounds: Sequence[Times]) -> Trial:
    runs = [single for times in rounds for single in times.runs]
    return Trial(
        setting=setting,
        batch=batch,
        runs=len(runs),
        p50_ms=round(1000 * statistics.median(runs), 3),
        images_per_second=round(statistics.median(batch * len(times.runs) / times.elapsed for times in rounds), 2),
    )
