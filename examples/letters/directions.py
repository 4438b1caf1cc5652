"""What SeFa's directions do to letters, measured, and the names that follow from the measures."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

import sefa
from letters.glyphs import as_coverage
from letters.measures import MEASURED, measure, measured_labels
from sefa.bank.editing import change
from sefa.bank.naming import Change

SAMPLES = 200
SIGMAS = 3.0  # alpha is drawn evenly from ±3 standard deviations of the codes along the direction
LEAST_CORRELATION = 0.5  # of alpha with a measure, for the direction to be named after it
CODE_SAMPLES = 20  # latents of each class, for the standard deviation of codes

Values = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Response:
    """What a direction does to fonts.

    Attributes:
        alpha: By how much each font was edited, [samples].
        edited: Measures of the edited fonts, [samples] by name.
        unedited: Measures of the same fonts without the edit.
    """

    alpha: Values
    edited: dict[str, Values]
    unedited: dict[str, Values]

    def correlations(self) -> dict[str, float]:
        """Return the correlation of alpha with each measure over all fonts, different as they are."""
        return {name: _correlation(self.alpha, values) for name, values in self.edited.items()}

    def correlations_of_change(self) -> dict[str, float]:
        """Return the correlation of alpha with how much the edit changes each measure."""
        return {name: _correlation(self.alpha, values - self.unedited[name]) for name, values in self.edited.items()}


@torch.no_grad()
def respond(
    generator: sefa.Generator, bank: sefa.DirectionBank, count: int = SAMPLES, seed: int = 0
) -> tuple[list[Response], list[float]]:
    """Edit fonts along each direction of a bank, each font by an alpha of its own.

    Returns:
        responses: What each direction does.
        sigmas: Standard deviation of the codes of a class along each direction, in units of its alpha.
    """
    random = torch.Generator().manual_seed(seed)
    labels = torch.tensor(measured_labels())
    z = torch.randn(count, generator.z_dim, generator=random)
    unit_alphas = (torch.rand(len(bank), count, generator=random) * 2 - 1) * SIGMAS
    sigmas = code_deviations(generator, bank)
    steps = bank.steps()  # [K, L, D]
    unedited = _measures(generator, z, labels, torch.zeros_like(steps[0]), torch.zeros(count))
    responses = []
    for step, alphas, sigma in zip(steps, unit_alphas, sigmas, strict=True):
        alpha = alphas * sigma
        responses.append(Response(alpha.double().numpy(), _measures(generator, z, labels, step, alpha), unedited))
    return responses, sigmas


@torch.no_grad()
def code_deviations(generator: sefa.Generator, bank: sefa.DirectionBank) -> list[float]:
    """Return the standard deviation of the codes of a class along each direction."""
    labels = torch.arange(generator.num_classes)
    z = torch.randn(CODE_SAMPLES, generator.z_dim, generator=torch.Generator().manual_seed(1))
    codes = generator.encode(z.repeat_interleave(len(labels), dim=0), labels.repeat(CODE_SAMPLES))[:, 0]
    codes = codes.view(CODE_SAMPLES, len(labels), -1)
    deviations = ((codes - codes.mean(dim=0)) @ bank.vectors.T).square().mean(dim=(0, 1)).sqrt()
    return [float(deviation) for deviation in deviations]


def named(bank: sefa.DirectionBank, responses: list[Response], sigmas: list[float]) -> sefa.DirectionBank:
    """Name directions after what they change, turn them so that alpha raises it, and give them a range of ±3 sigma.

    Each measure names the direction whose alpha correlates most with it, if that is a strong correlation and the
    direction does not change another measure more. The other directions keep their numbers.
    """
    table = [response.correlations() for response in responses]
    names: dict[int, str] = {}
    for measured in table[0]:
        best = max(range(len(table)), key=lambda index: abs(table[index][measured]))
        strongest = max(table[best], key=lambda name: abs(table[best][name]))
        if measured == strongest and abs(table[best][measured]) >= LEAST_CORRELATION:
            names[best] = measured
    changes = {}
    for index, sigma in enumerate(sigmas):
        name = names.get(index)
        changes[index] = Change(
            name=name,
            flip=name is not None and table[index][name] < 0,
            alpha_range=(-SIGMAS * sigma, SIGMAS * sigma),
        )
    return change(bank, changes)


def _measures(
    generator: sefa.Generator, z: torch.Tensor, labels: torch.Tensor, step: torch.Tensor, alpha: torch.Tensor
) -> dict[str, Values]:
    """Measure the font of each latent [N, z_dim], edited by alpha [N] times a step [L, D]."""
    rows = []
    for latent, amount in zip(z, alpha, strict=True):
        codes = generator.encode(latent.expand(len(labels), -1), labels)
        ink = as_coverage(generator.decode(codes + amount * step)[:, 0].numpy()) / 255
        rows.append(measure(dict(zip(MEASURED, ink, strict=True))))
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


def _correlation(a: Values, b: Values) -> float:
    return round(float(np.corrcoef(a, b)[0, 1]), 3) if a.std() and b.std() else 0.0
