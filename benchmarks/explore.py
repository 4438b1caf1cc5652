"""Measure how long exploring takes, and what fewer images do to its answers: python benchmarks/explore.py [-o FILE]

First a StyleGAN2 of 256x256 (configuration F, random weights, 16 directions): a quick look, the default, and a quick
look at directions that begin at the last third of the layers, where the layers before run once for each latent. Of each
the time up to the written page, the images rendered, their rate against that of the same model alone (offline, measured
before and after), and the estimate that was given against the time that it was for.

Then the letters and the faces, 16 directions each: the numbers of the default against those of 200 images.

Takes 13 minutes on two cores with AVX-512; `--quick` rehearses it with small generators in one. Exit code 1 if a quick
look takes over 2 minutes or the default over 10, if an estimate is more than 30 % off, or if the numbers differ by more
than `TOLERANCE`.
"""

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import sefa
import sefa_runtime
from generators import make_generator
from records import Record, digits, make_parser
from sefa.generators import Generator
from sefa_export import export_onnx
from sefa_runtime import Editor
from sefa_runtime.explore import Exploration, explore, save_exploration
from sefa_runtime.explore.exploration import PREFIX_MB
from sefa_runtime.inputs.batches import Feeds
from sefa_runtime.latency.measure import measure

DIRECTIONS = 16
SAMPLES, FEW_SAMPLES = 200, 40
LONGEST_S = {"quick": 120, "default": 600, "quick, last third of the layers": 120}
ESTIMATE_OFF = 0.3
# Largest differences allowed between the numbers of the default and those of `SAMPLES` images; of the order of the
# strengths, the least rank correlation.
TOLERANCE = {"strength": 0.2, "ends": 0.25, "area": 0.06, "monotone": 0.05, "similarity": 0.25}
LEAST_RANK_CORRELATION = 0.9
BENCH_BATCH, BENCH_S = 4, 5.0
CLASS = "g"


def main() -> None:
    """Measure, print, and write the record."""
    parser = make_parser(__doc__)
    parser.add_argument("--quick", action="store_true", help="rehearse it with small generators")
    arguments = parser.parse_args()
    is_rehearsal: bool = arguments.quick
    record = Record("time of sefa explore, and its numbers on few images against those of many", ("torch",))
    samples = FEW_SAMPLES if is_rehearsal else SAMPLES
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder, "model.onnx")
        times = list(time_all(make_generator("stylegan2-256", is_rehearsal), model, 0.5 if is_rehearsal else BENCH_S))
        numbers = [compare(name, model, samples) for name in ("letters", "faces")]
    problems = [problem for result in times for problem in too_slow(result)]
    problems += [problem for result in numbers for problem in too_different(result)]
    results = {
        "directions": DIRECTIONS,
        "model": "small" if is_rehearsal else "stylegan2-256",
        "times": times,
        "samples": samples,
        "numbers": numbers,
    }
    record.finish(results, arguments.output, [] if is_rehearsal else problems)


def time_all(generator: Generator, model: Path, seconds: float) -> Iterator[dict[str, Any]]:
    """Time a quick look, the default, and a quick look at late directions."""
    export_onnx(generator, sefa.factorize(generator, top=DIRECTIONS), model)
    for mode in ("quick", "default"):
        yield {"mode": mode} | time_one(model, mode == "quick", seconds)
    third = range(-(-2 * generator.num_layers // 3), generator.num_layers)
    export_onnx(generator, sefa.factorize(generator, layers=third, top=DIRECTIONS), model)
    yield {"mode": "quick, last third of the layers"} | time_one(model, True, seconds)


def time_one(model: Path, quick: bool, seconds: float) -> dict[str, Any]:
    """Time one exploration, up to the written page, between two measurements of the model alone."""
    editor = sefa_runtime.load(model, "cpu", prefix_mb=PREFIX_MB)
    rates = [offline_rate(model, seconds)]
    rendered = 0
    infer = editor.infer

    def counted(feeds: Feeds) -> Any:
        nonlocal rendered
        rendered += len(feeds["direction"])
        return infer(feeds)

    estimates: list[tuple[float, float]] = []  # seconds so far, and those that are said to follow
    editor.infer = counted  # type: ignore[method-assign]
    started = time.perf_counter()
    exploration = explore(
        editor, quick=quick, estimate=lambda left: estimates.append((time.perf_counter() - started, left))
    )
    explored_s = time.perf_counter() - started
    save_exploration(exploration, model.with_name("sheet.html"))
    total_s = time.perf_counter() - started
    rates.append(offline_rate(model, seconds))
    ((before_s, estimated_s),) = estimates
    images = [effect.images for effect in exploration.effects]
    return {
        "threads": editor.session.threads,
        "prefix_share": None if editor.info.prefix is None else round(editor.info.prefix.share, 3),
        "seconds": digits(total_s),
        "seconds_of_the_page": digits(total_s - explored_s),
        "images_rendered": rendered,
        "images_measured_for_each_direction": [min(images), max(images)],
        "images_per_s": digits(rendered / total_s),
        "images_per_s_of_sefa_bench": [digits(rate) for rate in rates],
        "share_of_that_rate": round(rendered / total_s / float(np.mean(rates)), 3),
        "estimated_after_s": digits(before_s),
        "estimated_s": digits(estimated_s),
        "estimate_over_actual": round(estimated_s / (explored_s - before_s), 2),
    }


def offline_rate(model: Path, seconds: float) -> float:
    """Return the images per second of a model alone, as `sefa bench --scenario offline` does."""
    record = measure(sefa_runtime.load(model, "cpu"), [BENCH_BATCH], seconds=seconds, scenario="offline")
    return record.results[0].images_per_second


def compare(name: str, model: Path, samples: int) -> dict[str, Any]:
    """Explore a trained generator as by default, and on many images, and compare the numbers."""
    generator = make_generator(name)
    export_onnx(generator, sefa.factorize(generator, top=DIRECTIONS), model)
    editor = sefa_runtime.load(model, "cpu")
    few, few_s = explored(editor, None)
    many, many_s = explored(editor, samples)
    strengths, ends = relative(strengths_of(few), strengths_of(many)), relative(ends_of(few), ends_of(many))
    errors = np.hypot(*(np.array([effect.errors.strength for effect in of.effects]) for of in (few, many)))
    pairs = np.triu_indices(DIRECTIONS, 1)
    few_alike, many_alike = few.similarity[pairs], many.similarity[pairs]
    images = [effect.images for effect in few.effects]
    return {
        "model": name,
        "seconds": [digits(few_s), digits(many_s)],
        "images": {"least": min(images), "mean": round(float(np.mean(images)), 1), "most": max(images)},
        "reference": [digits(few.reference), digits(many.reference)],
        "strength": spread(strengths),
        "strengths_within_two_standard_errors": int(
            (np.abs(strengths_of(few) - strengths_of(many)) <= 2 * errors).sum()
        ),
        "rank_correlation_of_strengths": round(rank_correlation(strengths_of(few), strengths_of(many)), 3),
        "ends": spread(ends),
        "area": spread(np.array([a.area - b.area for a, b in zip(few.effects, many.effects, strict=True)])),
        "monotone": spread(np.array([a.monotone - b.monotone for a, b in zip(few.effects, many.effects, strict=True)])),
        "similarity": spread(few_alike - many_alike),
        "named_as_alike": {
            "few": int((few_alike >= 0.5).sum()),
            "many": int((many_alike >= 0.5).sum()),
            "both": int(((few_alike >= 0.5) & (many_alike >= 0.5)).sum()),
        },
    }


def explored(editor: Editor, samples: int | None) -> tuple[Exploration, float]:
    """Explore and return the time."""
    started = time.perf_counter()
    exploration = explore(editor, samples=samples, label=CLASS if editor.info.takes_label else None)
    return exploration, time.perf_counter() - started


def strengths_of(exploration: Exploration) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return the directions' strengths."""
    return np.array([effect.strength for effect in exploration.effects])


def ends_of(exploration: Exploration) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return both ends of all ranges."""
    return np.array([effect.alpha_range for effect in exploration.effects]).ravel()


def relative(
    few: np.ndarray[Any, np.dtype[np.float64]], many: np.ndarray[Any, np.dtype[np.float64]]
) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return the differences as shares of what many images give."""
    return few / many - 1


def spread(differences: np.ndarray[Any, Any]) -> dict[str, float]:
    """Return the median and the largest of differences, without their sign."""
    sizes = np.abs(differences)
    return {"median": round(float(np.median(sizes)), 3), "largest": round(float(sizes.max()), 3)}


def rank_correlation(one: np.ndarray[Any, Any], other: np.ndarray[Any, Any]) -> float:
    """Return Spearman's rank correlation of numbers without ties."""
    ranks = np.argsort(np.argsort([one, other], axis=1), axis=1)
    return float(np.atleast_2d(np.corrcoef(ranks))[0, 1])


def too_slow(result: dict[str, Any]) -> Iterator[str]:
    """Yield what is too slow, or was estimated too badly."""
    mode, longest = result["mode"], LONGEST_S[result["mode"]]
    if result["seconds"] > longest:
        yield f"{mode}: {result['seconds']} s, {longest} s are allowed"
    if abs(result["estimate_over_actual"] - 1) > ESTIMATE_OFF:
        yield f"{mode}: the estimate was {result['estimate_over_actual']} of the time"


def too_different(result: dict[str, Any]) -> Iterator[str]:
    """Yield what differs too much between few and many images."""
    for name, most in TOLERANCE.items():
        if result[name]["largest"] > most:
            yield f"{result['model']}: {name} differs by {result[name]['largest']}, {most} is allowed"
    if result["rank_correlation_of_strengths"] < LEAST_RANK_CORRELATION:
        yield f"{result['model']}: the order of the strengths differs: {result['rank_correlation_of_strengths']}"


if __name__ == "__main__":
    main()
