"""An exploration as a page: one self-contained HTML file."""

import json
from collections.abc import Sequence
from html import escape
from importlib.resources import files
from string import Template

import numpy as np

from sefa_runtime.explore.effects import Effect
from sefa_runtime.explore.exploration import Exploration
from sefa_runtime.explore.figures import (
    GROUP_COLOURS,
    data_uri,
    heat_map,
    matrix_image,
    spectrum,
    strip,
)
from sefa_runtime.explore.similarity import ALIKE, looks_like
from sefa_runtime.images import to_pillow
from sefa_runtime.model.info import DirectionInfo
from sefa_runtime.version import VERSION

# What the page says beside an alpha about why the range ends there.
END_NOTES = {"change": "", "given": "", "flat": " (flat)", "limit": " (limit)", "nothing": ""}


def to_html(exploration: Exploration) -> str:
    """Return the page as HTML."""
    info = exploration.info
    groups = exploration.groups()
    number_of = {index: number for number, indices in enumerate(groups.values()) for index in indices}
    mean = exploration.mean_image
    height, width = mean.shape[:2]
    return Template(_resource("page.html")).substitute(
        title=escape(f"What the directions of {exploration.model} do"),
        shape=f"--frames:{exploration.frames.shape[2]};--ratio:{width}/{height};--wide:{width / height:.4g}",
        style=_resource("page.css"),
        script=_resource("page.js"),
        facts=escape(_facts(exploration)),
        reference=f"{exploration.reference:.1f}",
        reference_error=f"{exploration.reference_error:.1f}",
        count=len(exploration.effects),
        alike=f"{ALIKE:g}",
        spectrum=spectrum(
            [direction.eigenvalue for direction in info.directions],
            info.names,
            [number_of[index] for index in range(len(info.directions))],
        ),
        matrix=matrix_image(exploration.similarity),
        cosines=json.dumps(np.rint(exploration.similarity * 100).astype(int).tolist(), separators=(",", ":")),
        samples="".join(
            f'<option value="{index}">{escape(title)}</option>' for index, title in enumerate(exploration.titles)
        ),
        groups="".join(
            _group(exploration, layers, indices, number) for number, (layers, indices) in enumerate(groups.items())
        ),
        last=exploration.frames.shape[2] - 1,
        footer=f'Mean image of the samples: <img alt="" height="32" src="{data_uri(to_pillow(mean))}"> '
        f"Made by sefa {VERSION}.",
    )


def layers_in_words(layers: Sequence[int]) -> str:
    """Write layers as ranges: [0, 1, 2, 5] -> "0–2, 5"."""
    runs: list[list[int]] = []
    for layer in sorted(layers):
        if runs and layer == runs[-1][1] + 1:
            runs[-1][1] = layer
        else:
            runs.append([layer, layer])
    return ", ".join(f"{first}" if first == last else f"{first}–{last}" for first, last in runs)


def images_in_words(exploration: Exploration) -> str:
    """Write on how many images directions were measured: "16 images", or "8 to 16 images"."""
    counts = [effect.images for effect in exploration.effects]
    return f"{max(counts)} images" if min(counts) == max(counts) else f"{min(counts)} to {max(counts)} images"


def number_in_words(alpha: float) -> str:
    """Write a number with a true minus: -2.5 -> "−2.5"."""
    return f"{alpha:g}".replace("-", "−")


def _facts(exploration: Exploration) -> str:
    info = exploration.info
    height, width = info.resolution
    facts = [
        f"{info.family}, {width}×{height} pixels",
        f"{len(info.directions)} directions ({info.method}"
        + ("" if info.normalize == "none" else f", rows of A normalized: {info.normalize}")
        + ")",
        f"measured on {images_in_words(exploration)}" + (", a quick look" if exploration.is_quick else ""),
    ]
    if exploration.label is not None:
        facts.append(f"class {info.class_names[exploration.label] if info.class_names else exploration.label}")
    psi = info.truncation if exploration.truncation is None else exploration.truncation
    if psi is not None and psi != 1:
        facts.append(f"truncation {psi:g}")
    return ", ".join(facts) + "."


def _group(exploration: Exploration, layers: Sequence[int], indices: Sequence[int], number: int) -> str:
    heading = (
        f"Layer{'s' if len(layers) > 1 else ''} {layers_in_words(layers)}"
        if exploration.info.num_layers > 1
        else "Directions"
    )
    rows = "".join(_direction(exploration, index) for index in indices)
    return (
        f'<section class="group" aria-labelledby="group-{number}">'
        f'<h2 id="group-{number}" style="border-color:var(--g{number % GROUP_COLOURS})">{heading}</h2>'
        f'<ol class="rows">{rows}</ol></section>'
    )


def _direction(exploration: Exploration, index: int) -> str:
    direction, effect = exploration.info.directions[index], exploration.effects[index]
    alphas = exploration.alphas(index)
    low, high = (number_in_words(alpha) for alpha in effect.alpha_range)
    name = escape(direction.name)
    title = f"{index} · {name}" if _has_own_name(index, direction.name) else f"Direction {index}"
    alike = looks_like(exploration.similarity, index)
    others = np.delete(exploration.similarity[index], index)
    keys = {
        "index": index,
        "eigenvalue": f"{direction.eigenvalue:.6g}",
        "strength": f"{effect.strength:.4f}",
        "change": f"{effect.change:.4f}",
        "area": f"{effect.area:.4f}",
        "monotone": f"{effect.monotone:.4f}",
        "width": f"{effect.alpha_range[1] - effect.alpha_range[0]:.6g}",
        "alike": f"{others.max() if others.size else 0:.4f}",
        "alphas": json.dumps([round(alpha, 6) for alpha in alphas], separators=(",", ":")),
        "title": title,
    }
    strips = "".join(
        f'<button type="button" class="strip" data-sample="{place}" data-title="{escape(title)}">'
        f'<img src="{strip(exploration.frames[index, place])}" loading="lazy" '
        f'alt="{escape(title)} along {name}, alpha {low} to {high}"></button>'
        for place, title in enumerate(exploration.titles)
    )
    axis = "".join(
        f"<span>{number_in_words(float(f'{alphas[place]:.2g}')) if place % 2 == 0 or len(alphas) < 9 else ''}</span>"
        for place in range(len(alphas))
    )
    attributes = " ".join(f'data-{key}="{value}"' for key, value in keys.items())
    where = heat_map(exploration.change_maps[index], exploration.mean_image)
    return (
        f'<li class="direction{" none" if effect.is_nothing else ""}" id="d{index}" tabindex="-1" '
        f"{attributes}>"
        f'<div class="about"><h3>{title}</h3>'
        '<div class="look"><figure><div class="player"></div><figcaption class="at"></figcaption></figure>'
        f'<figure><img class="map" src="{where}" loading="lazy" alt="Where {name} acts: {_where(effect)}">'
        f"<figcaption>where it acts</figcaption></figure></div>"
        f"{_measures(exploration, direction, effect, alike)}</div>"
        f'<div class="strips">{strips}<div class="axis" aria-hidden="true">{axis}</div></div></li>'
    )


def _where(effect: Effect) -> str:
    return f"half of the change in {effect.area:.0%} of the image"


def _measures(
    exploration: Exploration, direction: DirectionInfo, effect: Effect, alike: Sequence[tuple[int, float]]
) -> str:
    errors = effect.errors
    low, high = (
        f"{_number(number_in_words(alpha), error)}{END_NOTES[reason]}"
        for alpha, error, reason in zip(effect.alpha_range, errors.alpha_range, effect.ends, strict=True)
    )
    strongest = max(other.strength for other in exploration.effects)
    largest = max(other.eigenvalue for other in exploration.info.directions)
    names = exploration.info.names
    links = ", ".join(
        f'<a href="#d{other}">{_called(other, names[other])}</a> ({cosine:.2f})' for other, cosine in alike
    )
    rows = [
        ("Range", "changes nothing" if effect.is_nothing else f"{low} to {high}"),
        (
            "Strength",
            _bar(effect.strength, strongest) + _number(f"{effect.strength:.3g}", errors.strength, " per α"),
        ),
        ("Change", _number(f"{effect.change:.3g}", errors.change, " levels")),
        ("Half of it in", _bar(effect.area, 0.5) + _number(f"{100 * effect.area:.0f}", 100 * errors.area, " %")),
        ("Monotone", _number(f"{100 * effect.monotone:.0f}", 100 * errors.monotone, " %")),
        ("Eigenvalue", f"{_bar(direction.eigenvalue, largest)}{direction.eigenvalue:.4g}"),
        ("Looks like", links or "no other"),
        ("Measured on", f"{effect.images} images"),
    ]
    return f'<dl class="measures">{"".join(f"<dt>{term}</dt><dd>{text}</dd>" for term, text in rows)}</dl>'


def _number(text: str, error: float | None, unit: str = "") -> str:
    """Return a number with its standard error, if that is not 0, on one line of the page."""
    doubt = f" ± {float(f'{error:.1g}'):g}" if error else ""
    return f'<span class="number">{text}{doubt}{unit}</span>'


def _called(index: int, name: str) -> str:
    """Return a direction's index, followed by its name if it has one of its own."""
    return escape(f"{index} {name}") if _has_own_name(index, name) else str(index)


def _has_own_name(index: int, name: str) -> bool:
    return name != f"direction-{index}"


def _bar(value: float, most: float) -> str:
    share = value / most if most else 0.0
    return f'<span class="bar" style="width:{2 * share:.2f}rem"></span>'


def _resource(name: str) -> str:
    return (files("sefa_runtime.explore") / name).read_text(encoding="utf-8")
