"""How good a generator of glyphs is: are they legible, like real ones, none of them a copy, and do they make fonts?"""

from copy import deepcopy
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import sefa
from letters.classifier import Classifier, accuracy, predict
from letters.dataset import Glyphs
from letters.fonts import DUPLICATE
from letters.glyphs import CHARACTERS, Coverage, as_coverage, as_images, blurred
from sefa.demo.ruler import MEASURED, measure, slant

BATCH = 31
FRECHET_STEP = 8  # the Fréchet distance is to every eighth of the seen faces
QUANTILES = (0.0, 0.1, 0.5, 0.9)


@dataclass(frozen=True, eq=False)
class Fonts:
    """Glyphs by font.

    Attributes:
        coverage: [fonts, 62, 64, 64].
    """

    coverage: Coverage

    @property
    def labels(self) -> Tensor:
        """Labels [fonts·62], in the order of `images`."""
        return torch.arange(len(CHARACTERS)).repeat(len(self.coverage))

    @property
    def images(self) -> Tensor:
        """Images [fonts·62, 1, 64, 64]."""
        return torch.from_numpy(as_images(self.coverage)).flatten(0, 1)[:, None]

    def measures(self) -> dict[str, NDArray[np.float64]]:
        """Return what a ruler says of each font, [fonts] by name."""
        ink = self.coverage[:, [CHARACTERS.index(character) for character in MEASURED]] / 255
        rows = [measure(dict(zip(MEASURED, font, strict=True))) for font in ink]
        return {name: np.array([row[name] for row in rows]) for name in rows[0]}


def real_fonts(glyphs: Glyphs, count: int | None = None, seed: int = 0) -> Fonts:
    """Return all, or some random, real fonts."""
    faces = np.random.default_rng(seed).permutation(len(glyphs.faces))[:count]
    return Fonts(glyphs.coverage[glyphs.faces[np.sort(faces)]])


@torch.no_grad()
def generated_fonts(generator: sefa.Generator, count: int, seed: int = 0, truncation: float = 1.0) -> Fonts:
    """Generate fonts: all characters of each of `count` latents."""
    generator = deepcopy(generator)
    generator.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # Half the time of contiguous.
    z = torch.randn(count, generator.z_dim, generator=torch.Generator().manual_seed(seed))
    classes = len(CHARACTERS)
    parts = [
        generator.decode(generator.encode(latents, label, truncation))
        for latents, label in zip(
            torch.split(z.repeat_interleave(classes, dim=0), BATCH),
            torch.split(torch.arange(classes).repeat(count), BATCH),
            strict=True,
        )
    ]
    coverage = as_coverage(torch.cat(parts)[:, 0].numpy())
    return Fonts(coverage.reshape(count, classes, *coverage.shape[1:]))


def judge(
    generated: Fonts, seen: Fonts, held_out: Fonts, classifier: Classifier, ambiguous: dict[str, float]
) -> dict[str, Any]:
    """Compare generated fonts with those that training saw; fonts that it did not see are the yardstick."""
    features, predicted = predict(classifier, generated.images)
    held_out_features, held_out_predicted = predict(classifier, held_out.images)
    # Files of a family stand together: evenly spaced ones are of many families.
    seen_features, _ = predict(classifier, Fonts(seen.coverage[::FRECHET_STEP]).images)
    other_features, _ = predict(classifier, Fonts(seen.coverage[FRECHET_STEP // 2 :: FRECHET_STEP]).images)
    return {
        "fonts": {"generated": len(generated.coverage), "held_out": len(held_out.coverage)},
        "ambiguous_pairs": ambiguous,
        "accuracy": {
            "generated": asdict(accuracy(generated.labels, predicted, ambiguous)),
            "held_out": asdict(accuracy(held_out.labels, held_out_predicted, ambiguous)),
        },
        "frechet_distance_to_seen": {
            "generated": frechet_distance(features, seen_features),
            "held_out": frechet_distance(held_out_features, seen_features),
            "other_seen": frechet_distance(other_features, seen_features),
        },
        "nearest_seen_glyph": {
            "generated": neighbour_figures(nearest(generated, seen)[1]),
            "held_out": neighbour_figures(nearest(held_out, seen)[1]),
        },
        "measures": {"generated": measure_figures(generated), "seen": measure_figures(seen)},
        "same_font": {"generated": font_consistency(generated), "held_out": font_consistency(held_out)},
    }


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """Return |μ_a - μ_b|² + tr(Σ_a + Σ_b - 2(Σ_a Σ_b)^½) of features [N, D]. Source: Heusel et al. 2017."""
    a, b = a.double(), b.double()
    mean = (a.mean(dim=0) - b.mean(dim=0)).square().sum()
    cov_a, cov_b = torch.cov(a.T), torch.cov(b.T)
    # The eigenvalues of Σ_a Σ_b are real and not negative, as those of a product of two covariances.
    root = torch.linalg.eigvals(cov_a @ cov_b).real.clamp(min=0).sqrt().sum()
    return round(float(mean + cov_a.trace() + cov_b.trace() - 2 * root), 4)


def nearest(fonts: Fonts, seen: Fonts) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Find the seen font whose glyph of the same character differs least from each glyph.

    Returns:
        index: Which seen font, [fonts, 62].
        distance: Mean difference of the two, blurred, 0 to 255, [fonts, 62].
    """
    count, classes = fonts.coverage.shape[:2]
    index, distance = np.zeros((count, classes), np.int64), np.zeros((count, classes))
    for label in range(classes):
        known, glyphs = (torch.from_numpy(blurred(part.coverage[:, label])) for part in (seen, fonts))
        differences = torch.cdist(glyphs, known, p=1) / known.shape[1]
        least = differences.min(dim=1)
        index[:, label], distance[:, label] = least.indices.numpy(), least.values.numpy()
    return index, distance


def neighbour_figures(distance: NDArray[np.float64]) -> dict[str, Any]:
    """Summarise distances [fonts, 62] to the nearest seen glyphs.

    A single glyph may well be nearly like a seen one; a copied font would be like it in all its glyphs.
    """
    fonts = distance.mean(axis=1)
    return {
        "glyphs": {str(q): round(float(np.quantile(distance, q)), 2) for q in QUANTILES},
        "fonts": {str(q): round(float(np.quantile(fonts, q)), 2) for q in QUANTILES},
        "copied_glyphs": round(float((distance < DUPLICATE).mean()), 4),
        "copied_fonts": round(float((fonts < DUPLICATE).mean()), 4),
    }


def measure_figures(fonts: Fonts) -> dict[str, dict[str, float]]:
    """Return the mean and the standard deviation of each measure over the fonts."""
    return {
        name: {"mean": round(float(values.mean()), 3), "std": round(float(values.std()), 3)}
        for name, values in fonts.measures().items()
    }


def font_consistency(fonts: Fonts) -> dict[str, float]:
    """Return how well the ink and slant of every other character predict those of the rest: correlations over fonts."""
    ink = fonts.coverage.mean(axis=(2, 3))
    slants = np.array([[slant(glyph / 255) for glyph in font] for font in fonts.coverage])
    return {
        name: round(float(np.corrcoef(values[:, ::2].mean(axis=1), values[:, 1::2].mean(axis=1))[0, 1]), 3)
        for name, values in (("ink", ink), ("slant", slants))
    }
