"""Exploring a model: the range and effect of every direction, and images to look at."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from hashlib import sha256
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from sefa_runtime.editor import Editor
from sefa_runtime.errors import InputError
from sefa_runtime.explore.effects import STEPS, Effect, StandardErrors, measure, reference_change
from sefa_runtime.explore.ranges import ENDS, PILOT, START, TARGET, limit_of, suggest_range
from sefa_runtime.explore.resume_cache import Arrays, ResumeCache, cached
from sefa_runtime.explore.samples import EditorSamples, ImageCache
from sefa_runtime.explore.similarity import looks_like, similarity
from sefa_runtime.images import Images, to_pillow
from sefa_runtime.inputs.call import Call
from sefa_runtime.inputs.labels import label_indices
from sefa_runtime.inputs.latents import latents_from_seeds, prepare_latents
from sefa_runtime.model.info import DirectionInfo, ModelInfo
from sefa_runtime.version import VERSION

# Images to measure each direction on: from LEAST on until the numbers are precise, or MOST.
LEAST, MOST, QUICK = 8, 16, 2
# Unedited images to find out on how much different images differ. Rendered once, they serve all directions.
UNEDITED, QUICK_UNEDITED = 64, 16
# Images that a range is searched on if the number of samples is given.
SEARCHED = 16
MAX_SAMPLES = 100_000
DEFAULT_SEEDS = (0, 1, 2, 3)
# Pixels a side of each image that is shown; larger ones are reduced.
THUMBNAIL_SIDE = 128
# Alphas shown over a range, including both ends and 0: those that are measured.
FRAMES = 2 * STEPS + 1
# About how many alphas the search for one end of a range tries, on few images first, and how many images are measured,
# for estimating the time.
PILOT_LOOKS, LOOKS, QUICK_LOOKS, USUAL = 3, 1.6, 2, 13
# Images rendered before the time of one is taken, and while it is.
WARM_UP, TIMED = 2, 8
# Memory, in MB, for an Editor's prefixes: of all images measured, if they are of 256x256 in 128 channels.
PREFIX_MB = 600.0


@dataclass(frozen=True, eq=False)
class Exploration:
    """What the directions of one model do.

    Attributes:
        model: The model's name.
        info: What the model says about itself.
        samples: The most images that a direction was measured on; each effect says on how many it was.
        is_quick: Whether this was only a quick look.
        label: Their label; None if the model takes none.
        truncation: Their truncation psi, if it was requested.
        reference: Mean absolute difference between different images, in grey levels.
        reference_error: Its standard error.
        effects: One per direction.
        similarity: |cosine| between what directions do, float32 [K, K].
        titles: The titles of the P images that are shown, such as "seed 7".
        mean_image: Mean of the unedited samples, uint8 [h, w, C], at most `THUMBNAIL_SIDE` pixels a side.
        change_maps: Where each direction acts, grey levels, float32 [K, h, w].
        frames: The images that are shown, uint8 [K, P, FRAMES, h, w, C]: from one end of the range to the other.
    """

    model: str
    info: ModelInfo
    samples: int
    is_quick: bool
    label: int | None
    truncation: float | None
    reference: float
    reference_error: float
    effects: tuple[Effect, ...]
    similarity: NDArray[np.float32]
    titles: tuple[str, ...]
    mean_image: Images
    change_maps: NDArray[np.float32]
    frames: Images

    def alphas(self, direction: int) -> list[float]:
        """Return the alphas of a direction's frames."""
        return frame_alphas(self.effects[direction].alpha_range)

    def groups(self) -> dict[tuple[int, ...], list[int]]:
        """Return the directions, grouped by the layers that they were found in."""
        groups: dict[tuple[int, ...], list[int]] = {}
        for index, direction in enumerate(self.info.directions):
            groups.setdefault(direction.analysed_layers, []).append(index)
        return groups

    def to_dict(self) -> dict[str, Any]:
        """Return all measurements as plain values."""
        return {
            "model": self.model,
            "family": self.info.family,
            "source_sha256": self.info.source_sha256,
            "bank_sha256": list(self.info.bank_sha256),
            "samples": self.samples,
            "quick": self.is_quick,
            "label": self.label,
            "truncation": self.truncation if self.info.truncation is None else self.info.truncation,
            "reference": round(self.reference, 3),
            "reference_error": round(self.reference_error, 3),
            "directions": [
                _facts(direction, effect, looks_like(self.similarity, effect.direction))
                for direction, effect in zip(self.info.directions, self.effects, strict=True)
            ],
            "similarity": [[round(float(cosine), 3) for cosine in row] for row in self.similarity],
        }


def explore(
    editor: Editor,
    *,
    model: str | None = None,
    samples: int | None = None,
    seeds: Sequence[int] | None = None,
    latents: ArrayLike | None = None,
    label: int | str | None = None,
    truncation: float | None = None,
    alpha_range: tuple[float, float] | None = None,
    quick: bool = False,
    resume_cache: ResumeCache | None = None,
    progress: Callable[[float], None] = lambda share: None,
    estimate: Callable[[float], None] = lambda seconds: None,
    **inputs: float | None,
) -> Exploration:
    """Measure and render what each direction of a model does.

    Args:
        editor: The loaded model.
        model: The name to give it; None: its file's name.
        samples: How many images to measure, from seeds 0, 1, 2, ..., or of `latents`; up to 16 of them are searched
            for ranges. None: 8, which are also searched, and then up to 16, until each direction's standard errors are
            small.
        seeds: Seeds of the images to show; None: 0 to 3.
        latents: Instead of seeds: what the model takes, [N, ...]. The first few are shown.
        label: The class of all images, for a class-conditional model: its index or name.
        truncation: Truncation psi, for a model that has it as an input.
        alpha_range: The range to measure and show for every direction; None: each one's suggested range.
        quick: Take a quick look: measure just 2 images, the ones shown, unless `samples` or `seeds` say otherwise, and
            let a range end at any alpha where the change is within 15 % of the target, instead of 5 %.
        resume_cache: Where to keep measurements, and look for them first.
        progress: Called with the share done, 0 to 1.
        estimate: Called once, after the first few images, with the seconds that all others are likely to take.
        inputs: Further inputs of the model, each one number for all images.

    Raises:
        InputError: If an argument is invalid, or the images do not differ.
        RunError: As `Editor.run`.
        OSError: If measurements cannot be written to the cache.

    Examples:
        >>> exploration = explore(sefa_runtime.load("faces.onnx"), model="faces", samples=4, quick=True)
        >>> len(exploration.effects)
        8
    """
    if alpha_range is not None and not alpha_range[0] < 0 < alpha_range[1]:
        raise InputError(f"the range must lie around 0, got {alpha_range[0]:g} to {alpha_range[1]:g}")
    index: int | None = label_indices(editor.info, label)
    inputs = {"label": index, "truncation": truncation, **inputs}
    plan = _choose(editor, samples, seeds, latents, inputs, quick)
    if resume_cache is not None:
        resume_cache.open(_settings(plan, alpha_range))
    count = len(editor.info.directions)
    names = [f"direction-{direction}" for direction in range(count)]
    left = [name for name in names if resume_cache is None or not resume_cache.has(name)]
    expected = _expected_images(plan, alpha_range)
    cache = plan.measured.cache
    share_before = plan.unedited.count / (plan.unedited.count + expected * count)  # of all that is to be done

    def measure_unedited() -> Arrays:
        seconds = _seconds_per_image(plan.unedited)
        others = plan.unedited.count - cache.count
        estimate(seconds * (others + expected * len(left) * _share_after_prefix(editor)))
        cache.progress = lambda rendered: progress(share_before * min(rendered / plan.unedited.count, 1))
        reference, error, mean = reference_change(plan.unedited)
        return {"reference": np.array(reference), "error": np.array(error), "mean": _thumbnails(mean)}

    def measure_direction() -> Arrays:
        nonlocal expected
        direction, before = len(found), cache.count

        def show(rendered: int) -> None:
            done = (direction + min((rendered - before) / expected, 1)) / count
            progress(share_before + (1 - share_before) * done)

        cache.progress = show
        arrays = _explore_direction(plan, direction, reference, alpha_range, _guess(found) if quick else None)
        expected = max(1, cache.count - before)  # The next direction is likely to take as many.
        return arrays

    unedited = cached(resume_cache, "unedited", measure_unedited, partial(_is_unedited, editor=editor))
    reference = float(unedited["reference"])
    if reference == 0:
        raise InputError("the images of different latents are all the same: there is nothing to compare with")
    found: list[Arrays] = []

    def is_direction(arrays: Arrays) -> bool:
        return _is_direction(arrays, len(found), unedited["mean"].shape, plan, found)

    for name in names:
        found.append(cached(resume_cache, name, measure_direction, is_direction))
        progress(share_before + (1 - share_before) * len(found) / count)
    return Exploration(
        model=model or editor.name,
        info=editor.info,
        samples=plan.measured.count,
        is_quick=quick,
        label=index,
        truncation=truncation,
        reference=reference,
        reference_error=float(unedited["error"]),
        effects=tuple(_effect_from(arrays["effect"]) for arrays in found),
        similarity=similarity([arrays["signature"] for arrays in found]),
        titles=plan.titles,
        mean_image=unedited["mean"],
        change_maps=np.stack([arrays["change_map"] for arrays in found]),
        frames=np.stack([arrays["frames"] for arrays in found]),
    )


def frame_alphas(alpha_range: tuple[float, float]) -> list[float]:
    """Return the alphas to show for a range: 0, and half of the steps on either side of it."""
    low, high = alpha_range
    sides = np.arange(1, STEPS + 1) / STEPS  # The same steps as in `measure`, whose images are reused.
    return [*(low * sides)[::-1].tolist(), 0.0, *(high * sides).tolist()]


@dataclass(frozen=True, eq=False)
class _Plan:
    """Which images to render.

    Attributes:
        measured: The images to measure, of which the first few may do.
        shown: The images to show.
        unedited: The images to find out on how much different images differ: those measured, and perhaps others.
        titles: The titles of those shown.
        least: How many are measured at least; None: all.
        searched: How many of those measured ranges are searched on.
        quick: Whether a rough search will do.
    """

    measured: EditorSamples
    shown: EditorSamples
    unedited: EditorSamples
    titles: tuple[str, ...]
    least: int | None
    searched: int
    quick: bool


def _choose(
    editor: Editor,
    samples: int | None,
    seeds: Sequence[int] | None,
    latents: ArrayLike | None,
    inputs: Mapping[str, float | None],
    quick: bool,
) -> _Plan:
    """Choose the images to render."""
    info = editor.info
    usual = QUICK if quick else MOST
    compared = QUICK_UNEDITED if quick else UNEDITED if samples is None else samples
    if latents is None:
        if info.latent != "z":
            raise InputError(
                f"the model takes {info.latent}: codes are needed, [N, {', '.join(map(str, info.latent_shape))}]"
            )
        if samples is not None and samples > MAX_SAMPLES:
            raise InputError(f"samples must be at most {MAX_SAMPLES}, got {samples}")
        measured: Sequence[int] = range(usual if samples is None else samples)
        _check_count(len(measured), "samples must be at least 2")
        if quick and samples is None and seeds is not None:
            measured = seeds
        if seeds is None:
            seeds = measured[: len(DEFAULT_SEEDS)] if quick else DEFAULT_SEEDS
        many, few = latents_from_seeds(measured, info.z_dim), latents_from_seeds(seeds, info.z_dim)
        titles = tuple(f"seed {seed}" for seed in seeds)
        others = latents_from_seeds(range(compared), info.z_dim)
    else:
        if seeds is not None:
            raise InputError("give seeds or latents, not both")
        others = prepare_latents(info, {info.latent_name: latents}, None, takes_seed=False)
        many = others[: usual if samples is None else max(samples, 0)]
        _check_count(len(many), "at least 2 latents are needed, since effects are compared with how images differ")
        few = many[: len(DEFAULT_SEEDS)]
        titles = tuple(f"latent {index}" for index in range(len(few)))
    editor.prepare(Call({info.latent_name: many, **inputs}))
    known = {latent.tobytes() for latent in many}
    others = others[[latent.tobytes() not in known for latent in others]][: max(0, compared - len(many))]
    cache = ImageCache()
    is_up_to_us = samples is None and not quick
    return _Plan(
        measured=EditorSamples(editor, many, inputs, cache),
        shown=EditorSamples(editor, few, inputs, cache),
        unedited=EditorSamples(editor, np.concatenate([many, others]), inputs, cache),
        titles=titles,
        least=min(len(many), LEAST) if is_up_to_us else None,
        searched=min(len(many), LEAST if is_up_to_us else SEARCHED),
        quick=quick,
    )


def _expected_images(plan: _Plan, alpha_range: tuple[float, float] | None) -> float:
    """Estimate how many images to render for each direction."""
    measured = plan.measured.count if plan.least is None else min(USUAL, plan.measured.count)
    if alpha_range is not None:
        looks = 0.0
    elif plan.quick:
        looks = 2 * plan.searched * (QUICK_LOOKS - 1)  # The last look is measured.
    else:
        looks = 2 * (PILOT * PILOT_LOOKS + plan.searched * (LOOKS - 1))
    known = {latent.tobytes() for latent in plan.measured.latents[:measured]}
    others = sum(latent.tobytes() not in known for latent in plan.shown.latents)
    return looks + 2 * STEPS * (measured + others)


def _seconds_per_image(samples: EditorSamples) -> float:
    """Render the first few images, after others if there are enough, and return the time of one."""
    samples.sweep(0, [0.0], slice(0, min(WARM_UP, samples.count - 1)))
    before, started = samples.cache.count, time.perf_counter()
    samples.sweep(0, [0.0], slice(0, WARM_UP + TIMED))
    return (time.perf_counter() - started) / (samples.cache.count - before)


def _share_after_prefix(editor: Editor) -> float:
    """Return the share of the graph that runs for each edit of a latent."""
    prefix = editor.info.prefix
    return 1.0 if prefix is None or editor.session.prefix is None else 1 - prefix.share


def _guess(found: Sequence[Arrays]) -> float:
    """Return the alpha where a quick look begins its search: the end of the range before, or `START`."""
    if not found:
        return START
    before = _effect_from(found[-1]["effect"])
    return before.alpha_range[1] if before.ends[1] == "change" else START


def _check_count(count: int, wanted: str) -> None:
    if count < 2:
        raise InputError(f"{wanted}, got {count}")


def _settings(plan: _Plan, alpha_range: tuple[float, float] | None) -> dict[str, Any]:
    """Return everything that the measurements depend on."""
    payload = plan.measured.editor.info.payload
    latents = {"measured": plan.measured, "shown": plan.shown, "unedited": plan.unedited}
    return {
        "version": VERSION,
        "model": None if payload is None else asdict(payload),
        **{name: sha256(samples.latents.tobytes()).hexdigest() for name, samples in latents.items()},
        **plan.measured.inputs,
        "alpha_range": alpha_range,
        "counts": [plan.least, plan.searched, plan.quick],
        "steps": [STEPS, THUMBNAIL_SIDE, TARGET],
    }


def _explore_direction(
    plan: _Plan, direction: int, reference: float, alpha_range: tuple[float, float] | None, guess: float | None
) -> Arrays:
    """Find a direction's range, measure and render it; return the arrays for the resume cache."""
    ends = ("given", "given")
    if alpha_range is None:
        few = replace(plan.measured, latents=plan.measured.latents[: plan.searched])
        below, above = suggest_range(few, direction, reference, limit_of(few.editor.info), guess)
        alpha_range, ends = (-below.alpha, above.alpha), (below.reason, above.reason)
    measurement = measure(plan.measured, direction, alpha_range, ends, plan.least, plan.searched)
    alphas = frame_alphas(alpha_range)
    rows = [plan.shown.sweep(direction, alphas, slice(index, index + 1))[0] for index in range(plan.shown.count)]
    return {
        "effect": np.array(json.dumps(asdict(measurement.effect))),
        "change_map": _reduced_map(measurement.change_map),
        "signature": measurement.signature,
        "frames": np.stack([np.stack([_thumbnails(image) for image in row]) for row in rows]),
    }


def _is_unedited(arrays: Arrays, editor: Editor) -> bool:
    """Return whether arrays from a resume cache are what `measure_unedited` makes."""
    if set(arrays) != {"reference", "error", "mean"}:
        return False
    numbers, mean = [arrays["reference"], arrays["error"]], arrays["mean"]
    width, height = thumbnail_size(editor.info.resolution)
    return (
        all((number.shape, number.dtype.kind) == ((), "f") and 0 <= float(number) < np.inf for number in numbers)
        and mean.dtype == np.uint8
        and mean.shape == (height, width, editor.info.channels)
    )


def _is_direction(
    arrays: Arrays, direction: int, image: tuple[int, ...], plan: _Plan, before: Sequence[Arrays]
) -> bool:
    """Return whether arrays from a resume cache are what `_explore_direction` makes.

    Args:
        arrays: The arrays.
        direction: The direction's index.
        image: Shape of an image as it is shown.
        plan: Which images are rendered.
        before: The arrays of other directions.
    """
    if set(arrays) != {"effect", "change_map", "signature", "frames"}:
        return False
    try:
        effect = _effect_from(arrays["effect"])
        errors = effect.errors
        numbers = (*effect.alpha_range, effect.strength, effect.change, effect.area, effect.monotone)
        doubts = (errors.strength, errors.change, errors.area, errors.monotone)
        found = [error for error in errors.alpha_range if error is not None]
        facts = (
            effect.direction == direction,
            np.isfinite([*numbers, *doubts, *found]).all(),
            set(effect.ends) <= {*ENDS},
            (len(effect.alpha_range), len(errors.alpha_range)) == (2, 2),
            (plan.least or plan.measured.count) <= effect.images <= plan.measured.count,
        )
    except (TypeError, ValueError, LookupError, RecursionError):
        return False
    change_map, signature, frames = arrays["change_map"], arrays["signature"], arrays["frames"]
    return (
        all(facts)
        and change_map.dtype.kind == signature.dtype.kind == "f"
        and change_map.shape == image[:2]
        and bool(np.isfinite(change_map).all() and np.isfinite(signature).all())
        and signature.ndim == 4
        and len(signature) == effect.images
        and signature.shape[1:] == (before[0]["signature"] if before else signature).shape[1:]
        and frames.dtype == np.uint8
        and frames.shape == (plan.shown.count, FRAMES, *image)
    )


def _effect_from(document: NDArray[Any]) -> Effect:
    fields = json.loads(str(document))
    errors = fields["errors"]
    return Effect(
        **fields
        | {
            "alpha_range": tuple(fields["alpha_range"]),
            "ends": tuple(fields["ends"]),
            "errors": StandardErrors(**errors | {"alpha_range": tuple(errors["alpha_range"])}),
        }
    )


def _thumbnails(image: Images) -> Images:
    """Return an image, [H, W, C], reduced to at most `THUMBNAIL_SIDE` pixels a side."""
    size = thumbnail_size(image.shape[:2])
    if size == image.shape[1::-1]:
        return image
    reduced = np.asarray(to_pillow(image).resize(size, Image.Resampling.LANCZOS))
    return reduced.reshape(size[1], size[0], -1)


def _reduced_map(change_map: NDArray[np.float32]) -> NDArray[np.float32]:
    size = thumbnail_size(change_map.shape)
    if size == change_map.shape[::-1]:
        return change_map
    return np.asarray(Image.fromarray(change_map).resize(size, Image.Resampling.BOX))


def thumbnail_size(shape: tuple[int, ...]) -> tuple[int, int]:
    """Return the width and height at which to show an image of shape H, W."""
    scale = min(1.0, THUMBNAIL_SIDE / max(shape))
    return max(1, round(shape[1] * scale)), max(1, round(shape[0] * scale))


def _facts(direction: DirectionInfo, effect: Effect, alike: list[tuple[int, float]]) -> dict[str, Any]:
    facts = asdict(effect)
    errors = facts.pop("errors")
    found = errors.pop("alpha_range")
    return {
        "index": facts.pop("direction"),
        "name": direction.name,
        "eigenvalue": direction.eigenvalue,
        "analysed_layers": list(direction.analysed_layers),
        "edited_layers": list(direction.edited_layers),
        "alpha_range": list(facts.pop("alpha_range")),
        "ends": list(facts.pop("ends")),
        **{name: round(value, 4) for name, value in facts.items()},
        "standard_errors": {
            "alpha_range": [None if error is None else round(error, 4) for error in found],
            **{name: round(value, 4) for name, value in errors.items()},
        },
        "looks_like": [{"index": other, "cosine": round(cosine, 3)} for other, cosine in alike],
    }
