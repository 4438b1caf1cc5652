"""What directions do to fonts, measured with a ruler, and the names that follow from the measures alone."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from sefa.bank.direction_bank import DirectionBank
from sefa.demo.ruler import CHARACTERS, MEASURED, measure
from sefa.generators import Generator
from sefa_runtime.inputs.latents import latents_from_seeds

REACH = 0.5  # of alpha, as a share of how far codes are from the mean of their class: letters stay letters
LEAST_CORRELATION = 0.7  # of alpha with what it changes, for a direction to be named after that
LEAST_PURITY = 0.25  # a measure's part in all that a direction moves, for the same
CODE_SAMPLES = 32  # latents of each class, for the distance of codes from their mean

Values = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Response:
    """What a direction does to fonts.

    Attributes:
        alpha: By how much each font was edited, [fonts]; drawn evenly from the range.
        edited: Measures of the edited fonts, [fonts] by name.
        unedited: Measures of the same fonts without the edit.
        alpha_range: The lowest and the highest alpha.
    """

    alpha: Values
    edited: dict[str, Values]
    unedited: dict[str, Values]
    alpha_range: tuple[float, float]

    def correlations(self) -> dict[str, float]:
        """Return the correlation of alpha with how much the edit changes each measure."""
        return {name: _correlation(self.alpha, values - self.unedited[name]) for name, values in self.edited.items()}

    def correlations_over_fonts(self) -> dict[str, float]:
        """Return the correlation of alpha with each measure of fonts that differ without the edit, too."""
        return {name: _correlation(self.alpha, values) for name, values in self.edited.items()}

    def effects(self) -> dict[str, float]:
        """Return how far the whole range of alpha moves each measure, in standard deviations of unedited fonts."""
        return {name: self._effect(values, self.unedited[name]) for name, values in self.edited.items()}

    def _effect(self, edited: Values, unedited: Values) -> float:
        alpha, deviation = self.alpha - self.alpha.mean(), unedited.std()
        if not alpha.any() or not deviation:
            return 0.0
        slope = alpha @ (edited - unedited) / (alpha @ alpha)
        low, high = self.alpha_range
        return round(float(slope * (high - low) / deviation), 3)


@dataclass(frozen=True)
class Name:
    """A name that follows from a direction's response.

    Attributes:
        index: The direction.
        measured: The measure after which it is named, and that alpha raises.
        correlation: Of alpha with the measure's change, before the direction is flipped.
        effect: See `Response.effects`; before the direction is flipped.
        alpha_range: The range that was measured.
    """

    index: int
    measured: str
    correlation: float
    effect: float
    alpha_range: tuple[float, float]

    @property
    def change(self) -> str:
        """The change as `sefa name` takes it: `1=weight:-1:[-1.7,1.7]`."""
        low, high = self.alpha_range
        return f"{self.index}={self.measured}{':-1' if self.effect < 0 else ''}:[{low:g},{high:g}]"


@torch.inference_mode()
def respond(
    generator: Generator, bank: DirectionBank, fonts: int, progress: Callable[[float], None] = lambda share: None
) -> list[Response]:
    """Edit the fonts of seeds 0, 1, ... along each direction of a bank, each font by an alpha of its own.

    Args:
        generator: A generator of letters, whose labels are the indices of `CHARACTERS`.
        bank: Its directions.
        fonts: How many fonts are edited.
        progress: Called with the share that is done, 0 to 1.
    """
    generator = deepcopy(generator)
    generator.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # Half the time of contiguous.
    z = torch.from_numpy(latents_from_seeds(range(fonts), generator.z_dim))
    limit = max(round(REACH * code_radius(generator), 1), 0.1)
    uniform = np.random.RandomState(0).uniform(-limit, limit, (len(bank), fonts))
    steps = bank.steps()  # [K, L, D]
    responses: list[Response] = []
    with _one_thread():
        unedited = _measures(generator, z, torch.zeros_like(steps[0]), np.zeros(fonts))
        for step, alpha in zip(steps, uniform, strict=True):
            progress((len(responses) + 1) / (len(bank) + 1))
            responses.append(Response(alpha, _measures(generator, z, step, alpha), unedited, (-limit, limit)))
    return responses


@contextmanager
def _one_thread() -> Iterator[None]:
    """Let torch use one thread: several gain little on a few small images, and crawl where others work as well."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@torch.inference_mode()
def code_radius(generator: Generator) -> float:
    """Return the root mean square distance of style codes from the mean of their class."""
    classes = generator.num_classes
    z = torch.from_numpy(latents_from_seeds(range(CODE_SAMPLES), generator.z_dim))
    codes = generator.encode(z.repeat_interleave(classes, dim=0), torch.arange(classes).repeat(CODE_SAMPLES))[:, 0]
    codes = codes.view(CODE_SAMPLES, classes, -1)
    return float((codes - codes.mean(dim=0)).square().sum(dim=-1).mean().sqrt())


def names_of(responses: list[Response]) -> list[Name]:
    """Name directions after what they move, in the order of the ruler's measures.

    A direction moves a measure reliably as far as its effect times its correlation, and purely as far as this measure
    has the largest part in the sum of their squares. The further and the purer, the sooner a direction is named; each
    gets one name, and each name goes to one direction.
    """
    found = []
    for index, response in enumerate(responses):
        effects, correlations = response.effects(), response.correlations()
        moved = {name: effects[name] * correlations[name] for name in effects}  # The signs of both are the same.
        total = sum(one**2 for one in moved.values()) or 1.0
        for measured, one in moved.items():
            purity = one**2 / total
            if abs(correlations[measured]) >= LEAST_CORRELATION and purity >= LEAST_PURITY:
                name = Name(index, measured, correlations[measured], effects[measured], response.alpha_range)
                found.append((one * purity**2, name))
    names: list[Name] = []
    for _, name in sorted(found, key=lambda pair: -pair[0]):
        if all(name.index != other.index and name.measured != other.measured for other in names):
            names.append(name)
    order = list(responses[0].edited) if responses else []
    return sorted(names, key=lambda name: order.index(name.measured))


def _measures(generator: Generator, z: torch.Tensor, step: torch.Tensor, alphas: Values) -> dict[str, Values]:
    """Measure the font of each latent [N, z_dim], edited by alpha [N] times a step [L, D]."""
    labels = torch.tensor([CHARACTERS.index(character) for character in MEASURED])
    rows = []
    for latent, alpha in zip(z, alphas, strict=True):
        codes = generator.encode(latent.expand(len(labels), -1), labels)
        ink = (1 - generator.decode(codes + alpha * step)[:, 0].numpy()).clip(0, 2) / 2
        rows.append(measure(dict(zip(MEASURED, ink, strict=True))))
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


def _correlation(a: Values, b: Values) -> float:
    return round(float(np.corrcoef(a, b)[0, 1]), 3) if a.std() and b.std() else 0.0
