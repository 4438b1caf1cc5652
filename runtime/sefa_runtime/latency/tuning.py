"""Finding what suits a model best on this machine: provider, precision, static shapes, threads, instances and batch.

First each way in which a provider can compute the model is compared with the model on the CPU, image by image, and
timed with one caller. The fastest that keeps to the parity budget is then tried with other numbers of threads,
instances and images per run, beside the default.
"""

import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from sefa_runtime.editor import Editor, as_images, load
from sefa_runtime.errors import InputError, ProviderError, RunError, SefaRuntimeError
from sefa_runtime.inputs.batches import Feeds, split
from sefa_runtime.inputs.examples import as_arguments, latent_scale, random_inputs, seeded_latents
from sefa_runtime.instances import load_instances
from sefa_runtime.latency.measure import MAX_BATCH, MAX_SECONDS, example_inputs, run_of_new_latents
from sefa_runtime.latency.scenarios import Progress, Run
from sefa_runtime.latency.tuning_settings import arrangements, described, in_order, kinds
from sefa_runtime.machine.cores import usable_cores
from sefa_runtime.machine.description import describe_machine, load_average
from sefa_runtime.machine.packages import describe_versions
from sefa_runtime.model.info import ModelInfo
from sefa_runtime.model.reading import read_info
from sefa_runtime.session.doctor import probe
from sefa_runtime.session.importing import import_onnxruntime
from sefa_runtime.session.providers import full_name, offered, short_name
from sefa_runtime.session.tuned import TUNED_VERSION, Setting, content_of
from sefa_runtime.verification import MAX_PSNR_DB, MIN_PSNR_DB, psnr_db

BATCHES = (1, 4, 16)
# Settings are tried in turn, this many times, since a machine's speed drifts.
ROUNDS = 3
# A batch is left out if its images, run one by one, would take longer.
LONGEST_RUN_S = 2.0
# Trials this close to the best count as equal to it; the first of them wins, being nearest to the defaults.
NOISE = 0.03
# After the first round, a setting that is so many times as slow as the best is given up.
HOPELESS = 2.0
# Images that are compared, each of another latent with two edits, the first with none.
IMAGES = 8
Key = TypeVar("Key")
# Of a description: what variants of one model share.
SHARED = (
    "source_sha256", "source_entry", "latent", "latent_shape", "resolution", "channels", "output_type", "num_classes",
    "truncation", "optional_inputs", "noise", "names", "bank_sha256", "method", "normalize",
)  # fmt: skip


@dataclass(frozen=True)
class Trial:
    """What was measured with one setting and batch."""

    setting: Setting
    batch: int
    runs: int
    p50_ms: float  # of one run
    images_per_second: float  # all instances together, median of the rounds
    psnr_db: float  # of the worst image, to the model on the CPU; `MAX_PSNR_DB` where all are equal
    rounds: int  # fewer than `ROUNDS`: given up, being too slow or too far from the model


@dataclass(frozen=True)
class TunedModel:
    """One of the files that were tried."""

    file: str
    content_sha256: str


@dataclass(frozen=True)
class Tuning:
    """The results; as plain values, what `sefa tune -o` writes and `--tuned` reads."""

    tuned_version: int
    created: str  # UTC, ISO 8601
    models: tuple[TunedModel, ...]  # the model, then its variants
    seconds: float  # per setting and batch
    min_psnr_db: float  # the parity budget
    images: int  # compared
    trials: tuple[Trial, ...]  # one of each setting and batch
    one_caller: Trial  # the shortest run of the smallest batch, with one instance
    many_callers: Trial  # the most images per second
    failures: tuple[str, ...]  # settings and providers that did not run, and why
    machine: dict[str, Any]  # what it was measured on
    load_average_after: list[float] | None  # as `machine` has it from before
    versions: dict[str, str]  # of the packages that ran


@dataclass(frozen=True)
class Times:
    """The times of one round of a trial, in seconds."""

    runs: list[float]
    elapsed: float  # from the common start to the end of the last run


def tune(
    path: str | Path,
    provider: str | Sequence[str] = "auto",
    provider_options: Mapping[str, object] | None = None,
    seconds: float = 1.0,
    progress: Progress = lambda share: None,
    estimate: Callable[[float], None] = lambda seconds: None,
    *,
    variants: Sequence[str | Path] = (),
    min_psnr_db: float = MIN_PSNR_DB,
    batches: Sequence[int] = BATCHES,
) -> Tuning:
    """Measure a model with different providers, precisions, shapes, threads, instances and batches.

    Args:
        path: As for `load`, which also lists the errors.
        provider: One provider or several; `auto`: all that the installed onnxruntime offers and that run here.
        provider_options: As for `load`, of the one provider that is named; they are not varied.
        seconds: Time per setting and batch over all rounds; runs that have begun are finished.
        progress: Called with the share done, 0 to 1.
        estimate: Called once, before the first trial, with the seconds that all trials are likely to take at most.
        variants: Further exports of the same generator and directions, made with other options.
        min_psnr_db: How near a setting's images must be to those of `path` on the CPU: the worst image's PSNR.
        batches: Images per run, in ascending order; after the first, those that take too long are left out.

    Raises:
        InputError: If `seconds`, `min_psnr_db` or a batch is out of range, or a variant is of other weights or
            directions.
        ProviderError: If none of the providers runs here.
    """
    if not 0.001 <= seconds <= MAX_SECONDS:
        raise InputError(f"seconds must be in 0.001..{MAX_SECONDS}, got {seconds}")
    if not 0 <= min_psnr_db <= MAX_PSNR_DB:
        raise InputError(f"min_psnr_db must be in 0..{MAX_PSNR_DB:g}, got {min_psnr_db}")
    if not batches or not all(1 <= batch <= MAX_BATCH for batch in batches):
        raise InputError(f"batches must be in 1..{MAX_BATCH}, got {list(batches)}")
    paths = [Path(path), *map(Path, variants)]
    infos = [read_info(one) for one in paths]
    for one, info in zip(paths[1:], infos[1:], strict=True):
        _check_variant(one, info, paths[0], infos[0])
    machine = describe_machine()
    failures: list[str] = []
    providers = _providers([provider] if isinstance(provider, str) else list(provider), failures)
    given = {key: str(value) for key, value in (provider_options or {}).items()}
    if given and len(providers) > 1:
        raise InputError(f"options belong to one provider: name one of {', '.join(providers)}")
    search = _Search(dict(zip(map(str, paths), infos, strict=True)), batches, seconds, min_psnr_db, failures)
    cores = usable_cores()
    ways = [
        replace(kind, options={**given, **kind.options})
        for name in providers
        for file, info in search.infos.items()
        for kind in kinds(name, file, machine["cpu_extensions"] or ())
        if not set(kind.options) & set(given) and (kind.batch is None or info.batch is None)
    ]
    estimate(search.estimate_s(ways, cores))

    smallest = search.batches[:1]
    first = search.measure(
        [(arrangements(way, cores)[0], smallest) for way in ways], lambda share: progress(0.5 * share)
    )
    near = list(filter(search.keeps_to_budget, first))
    if not near:
        misses = [f"{described(trial.setting)}: {trial.psnr_db:.1f} dB" for trial in first]
        raise ProviderError(f"nothing runs and keeps to {min_psnr_db:g} dB: {'; '.join(misses + failures)}")
    best = best_for_one_caller(near).setting
    plan: list[tuple[Setting, list[int]]] = []
    for way in (near[0].setting, replace(best, batch=None), best):  # The default is the measure of the others.
        for setting in arrangements(way, cores):
            batches = [setting.batch] if setting.batch else search.batches
            if (setting, batches) not in plan:
                plan.append((setting, batches))
    last = search.measure(plan, lambda share: progress(0.5 + 0.5 * share))
    good = [trial for trial in last if search.keeps_to_budget(trial) and trial.rounds == ROUNDS]
    if not good:
        raise RunError(f"what ran at first no longer does: {'; '.join(failures)}")
    again = [(trial.setting, trial.batch) for trial in last]
    return Tuning(
        tuned_version=TUNED_VERSION,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        models=tuple(TunedModel(str(one), content_of(info)) for one, info in zip(paths, infos, strict=True)),
        seconds=seconds,
        min_psnr_db=min_psnr_db,
        images=IMAGES,
        trials=(*(trial for trial in first if (trial.setting, trial.batch) not in again), *last),
        one_caller=best_for_one_caller(good),
        many_callers=best_for_many_callers(good),
        failures=tuple(failures),
        machine=machine,
        load_average_after=load_average(),
        versions=describe_versions(),
    )


class _Search:
    """Runs settings of some files that hold one generator; the first of the files is what the others must be like.

    Attributes:
        infos: The files' descriptions.
        batches: Those that take an acceptable time, or the size that was fixed at export.
    """

    def __init__(
        self,
        infos: Mapping[str, ModelInfo],
        batches: Sequence[int],
        seconds: float,
        min_psnr_db: float,
        failures: list[str],
    ) -> None:
        """Load the first file on the CPU and render the images that all are compared with.

        Args:
            infos: The files' descriptions.
            batches: Images per run.
            seconds: Time per setting and batch.
            min_psnr_db: The parity budget.
            failures: Gets a line for each setting that does not run.
        """
        self.infos = infos
        self._seconds, self._min_psnr_db, self._failures = seconds, min_psnr_db, failures
        path, info = next(iter(infos.items()))
        editor = load(path, "cpu")
        self._load_s = editor.session.load_ms / 1000
        self._inputs = as_arguments(_compared_inputs(info))
        self._images = self._render(editor)
        batch = info.batch or 1
        run = run_of_new_latents(editor, _inputs(editor.info, batch))
        self._single_s = run_together([run], 0.0).elapsed / batch
        self.batches = [*batches[:1], *(one for one in batches[1:] if one * self._single_s <= LONGEST_RUN_S)]
        if info.batch is not None:
            self.batches = [info.batch]
        self._psnr_db: list[tuple[Setting, float]] = []

    def keeps_to_budget(self, trial: Trial) -> bool:
        """Return whether a trial's images are near enough to the model's."""
        return trial.psnr_db >= self._min_psnr_db

    def estimate_s(self, ways: Sequence[Setting], cores: int) -> float:
        """Return how many seconds all trials take if none is given up and each is as fast as the CPU's."""

        def rounds_s(setting: Setting, batches: Sequence[int]) -> float:
            runs = [setting.instances * batch * self._single_s for batch in batches]
            timed = sum(run + max(self._seconds / ROUNDS, run) for run in runs)
            return ROUNDS * (setting.instances * (self._load_s + self._single_s) + timed)

        compared = IMAGES * self._single_s
        total = sum(compared + rounds_s(way, self.batches[:1]) for way in ways)
        total += sum(rounds_s(setting, self.batches) for setting in arrangements(ways[0], cores))
        if len(ways) > 1:  # The best of the others, with static shapes and without.
            settings = arrangements(ways[-1], cores)
            total += sum(rounds_s(setting, batches) for setting in settings for batches in (self.batches, [1]))
        return total

    def measure(self, plan: Sequence[tuple[Setting, Sequence[int]]], progress: Progress) -> list[Trial]:
        """Measure settings with some batches each, in turns."""
        found: dict[tuple[int, int], list[Times]] = defaultdict(list)  # by setting and batch
        given_up: set[tuple[int, int]] = set()
        failed: set[int] = set()
        psnr_db = [0.0] * len(plan)
        for turn in range(ROUNDS):
            for index, (setting, batches) in enumerate(plan):
                progress((turn + index / len(plan)) / ROUNDS)
                left = [batch for batch in batches if (index, batch) not in given_up]
                if index in failed or not left:
                    continue
                try:
                    psnr_db[index], rounds = self._time(setting, left)
                    for batch, times in zip(left, rounds, strict=True):
                        found[index, batch].append(times)
                except SefaRuntimeError as error:
                    failed.add(index)
                    self._failures.append(f"{described(setting)}: {error}")
            trials = {
                (index, batch): _trial(setting, batch, psnr_db[index], found[index, batch])
                for index, (setting, batches) in enumerate(plan)
                if index not in failed
                for batch in batches
            }
            if turn == 0:
                given_up = hopeless(trials, self._min_psnr_db)
        progress(1.0)
        return list(trials.values())

    def _time(self, setting: Setting, batches: Sequence[int]) -> tuple[float, list[Times]]:
        """Load a setting, compare its images unless that is done, and time each batch; nothing stays in memory."""
        editors = load_instances(
            setting.model,
            setting.instances,
            setting.provider,
            dict(setting.options) or None,
            setting.threads,
            batch=setting.batch,
            styles_on_cpu=setting.styles_on_cpu,
            convolutions_on_cpu=setting.convolutions_on_cpu,
        )
        psnr = self._compare(setting, editors[0])
        return psnr, [
            run_together(
                [run_of_new_latents(editor, _inputs(editor.info, batch)) for editor in editors],
                self._seconds / ROUNDS,
            )
            for batch in batches
        ]

    def _compare(self, setting: Setting, editor: Editor) -> float:
        """Return the PSNR of the worst image; threads and instances do not matter."""
        way = replace(setting, instances=1, threads=None)
        for other, psnr in self._psnr_db:
            if other == way:
                return psnr
        found = min(MAX_PSNR_DB, float(psnr_db(self._render(editor), self._images, 255.0).min()))
        self._psnr_db.append((way, round(found, 2)))
        return round(found, 2)

    def _render(self, editor: Editor) -> NDArray[np.uint8]:
        """Render the images one by one: together, large ones might not fit into memory."""
        return np.concatenate([as_images(editor.run(**single)) for single in split(self._inputs, 1)])


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


def hopeless(trials: Mapping[Key, Trial], min_psnr_db: float) -> set[Key]:
    """Return which trials need no further round: too slow for one caller and for many, or not near enough.

    Args:
        trials: What the first round gave.
        min_psnr_db: The parity budget.
    """
    good = [trial for trial in trials.values() if trial.psnr_db >= min_psnr_db]
    if not good:
        return set(trials)
    least_ms = best_for_one_caller(good).p50_ms
    most = best_for_many_callers(good).images_per_second
    smallest = min(trial.batch for trial in good)

    def promises(trial: Trial) -> bool:
        alone = trial.batch == smallest and trial.setting.instances == 1
        quick = alone and trial.p50_ms <= HOPELESS * least_ms
        return trial.psnr_db >= min_psnr_db and (quick or trial.images_per_second >= most / HOPELESS)

    return {key for key, trial in trials.items() if not promises(trial)}


def _providers(wanted: Sequence[str], failures: list[str]) -> list[str]:
    """Return the short names of the providers to try, in `auto`'s order.

    Args:
        wanted: As the caller wrote them.
        failures: Gets a line for each provider that onnxruntime offers and that does not run here.

    Raises:
        ProviderError: If one that is named does not run here.
        InputError: If there is no such provider, or none is given.
    """
    ort = import_onnxruntime()
    names = dict.fromkeys(name.lower() for name in wanted)
    if list(names) != ["auto"]:
        if not names or "auto" in names:
            raise InputError("provider must be auto, or one or several providers")
        found = in_order([short_name(full_name(ort, name)) for name in names])
        for name in found:
            probe(name)
        return found
    found = []
    for name in in_order(offered(ort)):
        try:
            probe(name)
            found.append(name)
        except ProviderError as error:
            failures.append(str(error))
    if not found:
        raise ProviderError(f"no provider runs here: {'; '.join(failures)}")
    return found


def _check_variant(path: Path, info: ModelInfo, original: Path, wanted: ModelInfo) -> None:
    """Check that two models are exports of one generator with one bank, in which a direction has one index.

    Raises:
        InputError: If they are not.
    """
    differing = [name for name in SHARED if getattr(info, name) != getattr(wanted, name)]
    for what in ("analysed_layers", "edited_layers"):
        if [getattr(one, what) for one in info.directions] != [getattr(one, what) for one in wanted.directions]:
            differing.append(what)
    if differing:
        raise InputError(
            f"{path}: not a variant of {original}: they differ in {', '.join(differing)}; a variant is another export "
            "of the same generator and directions"
        )


def _compared_inputs(info: ModelInfo) -> Feeds:
    """Return the inputs of `IMAGES` images: seeds 0, 1, ..., each but the first with two edits."""
    signature = info.signature
    latents = seeded_latents(signature, IMAGES) * np.float32(latent_scale(info))
    edits = 2 if info.num_edits is None else info.num_edits
    feeds = random_inputs(signature, np.random.Generator(np.random.PCG64(0)), IMAGES, edits, latents)
    feeds["alpha"][0] = 0
    return feeds


def _inputs(info: ModelInfo, batch: int) -> dict[str, Any]:
    return example_inputs(info, batch, edits=1 if info.num_edits is None else info.num_edits)


def _trial(setting: Setting, batch: int, psnr_db: float, rounds: Sequence[Times]) -> Trial:
    runs = [single for times in rounds for single in times.runs]
    return Trial(
        setting=setting,
        batch=batch,
        runs=len(runs),
        p50_ms=round(1000 * statistics.median(runs), 3),
        images_per_second=round(statistics.median(batch * len(times.runs) / times.elapsed for times in rounds), 2),
        psnr_db=psnr_db,
        rounds=len(rounds),
    )
