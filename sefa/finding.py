"""Find an opened generator's directions with the chosen options. Importing this module does not need torch."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sefa.choices import Method, Normalize

if TYPE_CHECKING:
    from sefa.bank.direction_bank import DirectionBank
    from sefa.generators import Generator


@dataclass(frozen=True)
class DirectionChoices:
    """Which directions are found, and how: the arguments of `sefa.factorize`."""

    layers: str = "all"
    edit_layers: str | None = None
    top: int | None = None
    method: Method = Method.SEFA
    normalize: Normalize = Normalize.NONE
    samples: int | None = None
    seed: int | None = None
    label: int | None = None


def find_directions(
    generator: "Generator", choices: DirectionChoices, progress: Callable[[float], None] | None = None
) -> "DirectionBank":
    """Find a generator's directions. A user's own module is analysed in the layers that it was opened with.

    Raises:
        ArgumentError: See `sefa.factorize`.
    """
    from sefa.directions.factorization import factorize

    layers = "all" if generator.runs_user_code else choices.layers
    return factorize(generator, **vars(choices) | {"layers": layers}, progress=progress)
