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
from sefa_runtime.explore.effects import STEPS, Effect, measure, reference_change
from sefa_runtime.explore.ranges import ENDS, SEARCHED, START, TARGET, limit_of, suggest_range
from sefa_runtime.explore.resume_cache import Arrays, ResumeCache, cached
from sefa_runtime.explore.samples import EditorSamples, ImageCache
from sefa_runtime.explore.similarity import looks_like, similarity
from sefa_runtime.images import Images, to_pillow
from sefa_runtime.inputs.call import Call
from sefa_runtime.inputs.labels import label_indices
from sefa_runtime.inputs.latents import latents_from_seeds, prepare_latents
from sefa_runtime.model.info import DirectionInfo, ModelInfo
from sefa_runtime.version import VERSION

DEFAULT_SAMPLES, QUICK_SAMPLES = 200, 2
MAX_SAMPLES = 100_000
DEFAULT_SEEDS = (0, 1, 2, 3)
# Pixels a side of each image that is shown; larger ones are reduced.
THUMBNAIL_SIDE = 128
# Alphas shown over the range, including both ends and 0; a quick look shows the ones that are measured.
FRAMES, QUICK_FRAMES = 9, 2 * STEPS + 1
# About how many alphas the search for one end of a range tries, for estimating its time.
LOOKS, QUICK_LOOKS = 5, 2


@dataclass(frozen=True, eq=False)
class Exploration:
    """What the directions of one model do.

    Attributes:
        model: The model's name.
        info: What the model says about itself.
        samples: How many images were measured.
        label: Their label; None if the model takes none.
        truncation: Their truncation psi, if it was requested.
        reference: Mean absolute difference between different images, in grey levels.
        effects: One per direction.
        similarity: |cosine| between what directions do, float32 [K, K].
        titles: The titles of the P images that are shown, such as "seed 7".
        mean_image: Mean of the unedited samples, uint8 [h, w, C], at most `THUMBNAIL_SIDE` pixels a side.
        change_maps: Where each direction acts, grey levels, float32 [K, h, w].
        frames: The images that are shown, uint8 [K, P, F, h, w, C]: F alphas from one end of the range to the other.
    """

    model: str
    info: ModelInfo
    samples: int
    label: int | None
    truncation: float | None
    reference: float
    effects: tuple[Effect, ...]
    similarity: NDArray[np.float32]
    titles: tuple[str, ...]
    mean_image: Images
    change_maps: NDArray[np.float32]
    frames: Images

    def alphas(self, direction: int) -> list[float]:
        """Return the alphas of a direction's frames."""
        return frame_alphas(self.effects[direction].alpha_range, self.frames.shape[2])

    @property
    def is_quick(self) -> bool:
        """Whether this was only a quick look."""
        return bool(self.frames.shape[2] == QUICK_FRAMES)

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
        samples: How many images to measure, from seeds 0, 1, 2, ...; None: 200, or all of `latents`. At most 16 of them
            are used to find ranges.
        seeds: Seeds of the images to show; None: 0 to 3.
        latents: Instead of seeds: what the model takes, [N, ...]. The first few are shown.
        label: The class of all images, for a class-conditional model: its index or name.
        truncation: Truncation psi, for a model that has it as an input.
        alpha_range: The range to measure and show for every direction; None: each one's suggested range.
        quick: Take a quick look: measure just 2 images, the ones shown, unless `samples` or `seeds` say otherwise, and
            let a range end at any alpha where the change is within 15 % of the target.
        resume_cache: Where to keep measurements, and look for them first.
        progress: Called with the share done, 0 to 1.
        estimate: Called once, before the first direction, with the seconds that all directions are likely to take.
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
    measured, shown, titles = _choose(editor, samples, seeds, latents, inputs, quick)
    frames = QUICK_FRAMES if quick else FRAMES
    if resume_cache is not None:
        resume_cache.open(_settings(measured, shown, alpha_range, frames))
    count = len(editor.info.directions)
    names = [f"direction-{direction}" for direction in range(count)]
    left = [name for name in names if resume_cache is None or not resume_cache.has(name)]
    expected = _expected_images(measured, shown, frames, alpha_range)

    def measure_unedited() -> Arrays:
        started = time.perf_counter()
        compared = _compared(measured) if quick else measured
        reference, mean = reference_change(compared)
        estimate((time.perf_counter() - started) / compared.count * expected * len(left))
        return {"reference": np.array(reference), "mean": _thumbnails(mean)}

    def measure_direction() -> Arrays:
        nonlocal expected
        direction, before = len(found), measured.cache.count
        measured.cache.progress = partial(_show, progress, before, expected, direction, count)
        guess = _guess(found) if quick else None
        arrays = _explore_direction(measured, shown, direction, reference, alpha_range, frames, guess)
        expected = max(1, measured.cache.count - before)  # The next direction is likely to take as many.
        return arrays

    unedited = cached(resume_cache, "unedited", measure_unedited, partial(_is_unedited, editor=editor))
    reference = float(unedited["reference"])
    if reference == 0:
        raise InputError("the images of different latents are all the same: there is nothing to compare with")
    found: list[Arrays] = []

    def is_direction(arrays: Arrays) -> bool:
        sizes = measured.count, shown.count, len(frame_alphas((-1, 1), frames))
        return _is_direction(arrays, len(found), unedited["mean"].shape, sizes, found)

    for name in names:
        found.append(cached(resume_cache, name, measure_direction, is_direction))
        progress(len(found) / count)
    return Exploration(
        model=model or editor.name,
        info=editor.info,
        samples=measured.count,
        label=index,
        truncation=truncation,
        reference=reference,
        effects=tuple(_effect_from(arrays["effect"]) for arrays in found),
        similarity=similarity([arrays["signature"] for arrays in found]),
        titles=titles,
        mean_image=unedited["mean"],
        change_maps=np.stack([arrays["change_map"] for arrays in found]),
        frames=np.stack([arrays["frames"] for arrays in found]),
    )


def _show(
    progress: Callable[[float], None], before: float, expected: float, direction: int, count: int, rendered: float
) -> None:
    """Report the share done, given `rendered` images in all, `before` of them before this direction."""
    progress((direction + min((rendered - before) / expected, 1)) / count)


def frame_alphas(alpha_range: tuple[float, float], frames: int = FRAMES) -> list[float]:
    """Return the alphas to show for a range: 0, and half of the steps on either side of it."""
    low, high = alpha_range
    sides = np.arange(1, frames // 2 + 1) / (frames // 2)  # The same steps as in `measure`, whose images are reused.
    return [*(low * sides)[::-1].tolist(), 0.0, *(high * sides).tolist()]


def _choose(
    editor: Editor,
    samples: int | None,
    seeds: Sequence[int] | None,
    latents: ArrayLike | None,
    inputs: Mapping[str, float | None],
    quick: bool,
) -> tuple[EditorSamples, EditorSamples, tuple[str, ...]]:
    """Return the images to measure, the images to show, and the titles of the latter."""
    info = editor.info
    if latents is None:
        if info.latent != "z":
            raise InputError(
                f"the model takes {info.latent}: codes are needed, [N, {', '.join(map(str, info.latent_shape))}]"
            )
        usual = QUICK_SAMPLES if quick else DEFAULT_SAMPLES
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
    else:
        if seeds is not None:
            raise InputError("give seeds or latents, not both")
        latents = prepare_latents(info, {info.latent_name: latents}, None, takes_seed=False)
        usual = min(QUICK_SAMPLES, len(latents)) if quick else len(latents)
        many = latents[: usual if samples is None else max(samples, 0)]
        _check_count(len(many), "at least 2 latents are needed, since effects are compared with how images differ")
        few = many[: len(DEFAULT_SEEDS)]
        titles = tuple(f"latent {index}" for index in range(len(few)))
    editor.prepare(Call({info.latent_name: many, **inputs}))
    cache = ImageCache()
    return EditorSamples(editor, many, inputs, cache), EditorSamples(editor, few, inputs, cache), titles


def _compared(measured: EditorSamples) -> EditorSamples:
    """Return the images that a quick look compares changes with: unedited ones are cheap, and a few are not enough."""
    info = measured.editor.info
    if info.latent != "z" or measured.count >= SEARCHED:
        return measured
    others = latents_from_seeds(range(SEARCHED), info.z_dim)
    others = others[[not (measured.latents == latent).all(axis=1).any() for latent in others]]
    return replace(measured, latents=np.concatenate([measured.latents, others])[:SEARCHED])


def _expected_images(
    measured: EditorSamples, shown: EditorSamples, frames: int, alpha_range: tuple[float, float] | None
) -> float:
    """Estimate how many images to render for each direction."""
    quick = frames == QUICK_FRAMES
    looks = 0 if alpha_range else 2 * (QUICK_LOOKS if quick else LOOKS) * min(measured.count, SEARCHED)
    return looks + 2 * STEPS * measured.count + (0 if quick else (frames - 1) * shown.count)


def _guess(found: Sequence[Arrays]) -> float:
    """Return the alpha where a quick look begins its search: the end of the range before, or `START`."""
    if not found:
        return START
    before = _effect_from(found[-1]["effect"])
    return before.alpha_range[1] if before.ends[1] == "change" else START


def _check_count(count: int, wanted: str) -> None:
    if count < 2:
        raise InputError(f"{wanted}, got {count}")


def _settings(
    measured: EditorSamples, shown: EditorSamples, alpha_range: tuple[float, float] | None, frames: int
) -> dict[str, Any]:
    """Return everything that the measurements depend on."""
    payload = measured.editor.info.payload
    return {
        "version": VERSION,
        "model": None if payload is None else asdict(payload),
        "measured": sha256(measured.latents.tobytes()).hexdigest(),
        "shown": sha256(shown.latents.tobytes()).hexdigest(),
        **measured.inputs,
        "alpha_range": alpha_range,
        "steps": [STEPS, frames, THUMBNAIL_SIDE, TARGET],
    }


def _explore_direction(
    measured: EditorSamples,
    shown: EditorSamples,
    direction: int,
    reference: float,
    alpha_range: tuple[float, float] | None,
    frames: int,
    guess: float | None,
) -> Arrays:
    """Find a direction's range, measure and render it; return the arrays for the resume cache."""
    ends = ("given", "given")
    if alpha_range is None:
        below, above = suggest_range(measured, direction, reference, limit_of(measured.editor.info), guess)
        alpha_range, ends = (-below.alpha, above.alpha), (below.reason, above.reason)
    measurement = measure(measured, direction, alpha_range, ends)
    alphas = frame_alphas(alpha_range, frames)
    rows = [shown.sweep(direction, alphas, slice(index, index + 1))[0] for index in range(shown.count)]
    return {
        "effect": np.array(json.dumps(asdict(measurement.effect))),
        "change_map": _reduced_map(measurement.change_map),
        "signature": measurement.signature,
        "frames": np.stack([np.stack([_thumbnails(image) for image in row]) for row in rows]),
    }


def _is_unedited(arrays: Arrays, editor: Editor) -> bool:
    """Return whether arrays from a resume cache are what `measure_unedited` makes."""
    if set(arrays) != {"reference", "mean"}:
        return False
    reference, mean = arrays["reference"], arrays["mean"]
    width, height = thumbnail_size(editor.info.resolution)
    return (
        (reference.shape, reference.dtype.kind) == ((), "f")
        and 0 <= float(reference) < np.inf
        and mean.dtype == np.uint8
        and mean.shape == (height, width, editor.info.channels)
    )


def _is_direction(
    arrays: Arrays, direction: int, image: tuple[int, ...], sizes: tuple[int, int, int], before: Sequence[Arrays]
) -> bool:
    """Return whether arrays from a resume cache are what `_explore_direction` makes.

    Args:
        arrays: The arrays.
        direction: The direction's index.
        image: Shape of an image as it is shown.
        sizes: Images measured, images shown, and frames of each.
        before: The arrays of other directions.
    """
    if set(arrays) != {"effect", "change_map", "signature", "frames"}:
        return False
    try:
        effect = _effect_from(arrays["effect"])
        numbers = (*effect.alpha_range, effect.strength, effect.change, effect.area, effect.monotone)
        is_effect = effect.direction == direction and np.isfinite(numbers).all() and set(effect.ends) <= {*ENDS}
    except (TypeError, ValueError, LookupError, RecursionError):
        return False
    change_map, signature, frames = arrays["change_map"], arrays["signature"], arrays["frames"]
    measured, *shown = sizes
    return (
        bool(is_effect)
        and len(numbers) == 6
        and change_map.dtype.kind == signature.dtype.kind == "f"
        and change_map.shape == image[:2]
        and bool(np.isfinite(change_map).all() and np.isfinite(signature).all())
        and signature.ndim == 4
        and len(signature) == measured
        and signature.shape == (before[0]["signature"] if before else signature).shape
        and frames.dtype == np.uint8
        and frames.shape == (*shown, *image)
    )


def _effect_from(document: NDArray[Any]) -> Effect:
    fields = json.loads(str(document))
    return Effect(**fields | {"alpha_range": tuple(fields["alpha_range"]), "ends": tuple(fields["ends"])})


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
    return {
        "index": facts.pop("direction"),
        "name": direction.name,
        "eigenvalue": direction.eigenvalue,
        "analysed_layers": list(direction.analysed_layers),
        "edited_layers": list(direction.edited_layers),
        "alpha_range": list(facts.pop("alpha_range")),
        "ends": list(facts.pop("ends")),
        **{name: round(value, 4) for name, value in facts.items()},
        "looks_like": [{"index": other, "cosine": round(cosine, 3)} for other, cosine in alike],
    }
