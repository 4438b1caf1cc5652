"""One call of an Editor: the request as a single value, and as the arrays that the graph takes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import SupportsIndex

import numpy as np
from numpy.typing import ArrayLike

from sefa_runtime.errors import InputError
from sefa_runtime.inputs.batches import Feeds
from sefa_runtime.inputs.conditions import prepare_conditions, why_not_taken
from sefa_runtime.inputs.edits import (
    NamedEdits,
    direction_index,
    prepare_alphas,
    prepare_edits,
    prepare_named_edits,
)
from sefa_runtime.inputs.labels import count_labels, label_indices
from sefa_runtime.inputs.latents import LATENTS, prepare_latents
from sefa_runtime.model.info import ModelInfo

EDITS = ("direction", "alpha")


@dataclass(frozen=True)
class Sweep:
    """Steps along one direction; every image of a call is repeated for each step."""

    direction: str | SupportsIndex
    alphas: Sequence[float]


@dataclass(frozen=True)
class Call:
    """A request, not yet checked.

    Attributes:
        inputs: Inputs by the graph's names: `z`, `w` or `codes`, `label`, `truncation`, and `direction` and `alpha` if
            neither `edits` nor `sweep` is given. All but the latents are optional; None means left out. Labels may be
            names of classes.
        seed: One seed or several, instead of `z`.
        edits: Alphas by direction name or index. With `edits` or `sweep`, one latent and several labels are that latent
            in each of these classes.
        sweep: Steps along one more direction: N images become N·A, all steps of one image before the next.
    """

    inputs: Mapping[str, ArrayLike | None]
    seed: int | Sequence[int] | None = None
    edits: NamedEdits | None = None
    sweep: Sweep | None = None


def prepare(info: ModelInfo, call: Call) -> Feeds:
    """Check a call and return the arrays that the graph takes, [batch, ...] each.

    Raises:
        InputError: If an input is missing, is not one of the model's, or has an invalid shape or value.
    """
    inputs, sweep = call.inputs, call.sweep
    by_index = call.edits is None and sweep is None
    _check_names(info, call, takes_seed=not by_index)
    latents = prepare_latents(info, inputs, call.seed, takes_seed=not by_index)
    if info.takes_label:
        inputs = {**inputs, "label": label_indices(info, inputs.get("label"))}
        if len(latents) == 1 and not by_index:
            latents = np.repeat(latents, count_labels(inputs["label"]), axis=0)
    batch = len(latents)
    if by_index:
        direction, alpha = prepare_edits(info, inputs.get("direction"), inputs.get("alpha"), batch)
    else:
        direction, alpha = prepare_named_edits(info, {} if call.edits is None else call.edits, batch)
    if sweep is not None:
        steps = prepare_alphas(sweep.alphas)
        swept = np.full((batch, 1), direction_index(info, sweep.direction), np.int64)
        direction, alpha = np.hstack([swept, direction]), np.pad(alpha, ((0, 0), (1, 0)))
    feeds: Feeds = {info.signature.latent.name: latents, "direction": direction, "alpha": alpha}
    feeds |= prepare_conditions(info, inputs, batch)
    if sweep is not None:
        feeds = {name: np.repeat(value, len(steps), axis=0) for name, value in feeds.items()}
        feeds["alpha"][:, 0] = np.tile(steps, batch)
    return feeds


def _check_names(info: ModelInfo, call: Call, *, takes_seed: bool) -> None:
    """Check that the model takes the inputs of a call; which latents it takes is checked with them."""
    names = [name for name in info.signature.names if name not in EDITS or not takes_seed]
    for name, value in call.inputs.items():
        if value is not None and name not in names and name not in LATENTS:
            given_by = [] if not takes_seed else ["edits"] if call.sweep is None else ["direction", "alphas"]
            seed = ["seed"] if takes_seed and "z" in names else []
            raise InputError(why_not_taken(info, name, [*seed, *names[:1], *given_by, *names[1:]]))
