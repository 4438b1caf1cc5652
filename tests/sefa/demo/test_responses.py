"""What directions do to fonts, and their names, on responses that are known."""

import numpy as np
import pytest
import torch

import sefa
from sefa.bank.editing import change
from sefa.bank.naming import parse_change, resolve
from sefa.demo.responses import Response, code_radius, names_of, respond

ALPHA = np.linspace(-2, 2, 41)
NOISE = np.random.default_rng(0).normal(size=(2, 41))
UNEDITED = {"weight": NOISE[0] / NOISE[0].std(), "slant": NOISE[1] / NOISE[1].std()}


def response(weight: float, slant: float, noise: float = 0.0, limit: float = 1.5) -> Response:
    """A direction that moves fonts by so many standard deviations over its range."""
    moved = {"weight": weight * ALPHA / (2 * limit), "slant": slant * ALPHA / (2 * limit)}
    noisy = np.random.default_rng(1).normal(size=(2, 41)) * noise
    edited = {name: UNEDITED[name] + moved[name] + noisy[row] for row, name in enumerate(moved)}
    return Response(ALPHA, edited, UNEDITED, (-limit, limit))


def test_effects_and_correlations() -> None:
    one = response(weight=3, slant=-0.5)
    assert one.effects() == pytest.approx({"weight": 3, "slant": -0.5})
    assert one.correlations() == pytest.approx({"weight": 1, "slant": -1})
    # Fonts differ by 1 without the edit, and by 3/3·ALPHA.std() with it.
    assert one.correlations_over_fonts()["weight"] == pytest.approx(ALPHA.std() / np.hypot(1, ALPHA.std()), abs=0.1)
    noisy = response(weight=3, slant=0, noise=2)
    assert 0.3 < noisy.correlations()["weight"] < 0.7


def test_the_purest_direction_of_a_measure_gets_its_name() -> None:
    found = names_of(
        [
            response(weight=4, slant=3),  # much weight, and slant as well
            response(weight=-2, slant=0.2),  # weight alone
            response(weight=2, slant=0, noise=5),  # unreliable
            response(weight=0, slant=0),  # nothing
            response(weight=1, slant=-1.5, limit=0.8),  # of what is left, slant
        ]
    )
    assert [(one.index, one.measured) for one in found] == [(1, "weight"), (4, "slant")]
    assert [one.change for one in found] == ["1=weight:-1:[-1.5,1.5]", "4=slant:-1:[-0.8,0.8]"]


def test_names_can_be_given_to_the_bank() -> None:
    generator = sefa.load("letters")
    bank = sefa.factorize(generator, top=2)
    changes = resolve(bank.names, [parse_change(one.change) for one in names_of([response(-1, 0), response(0, 1)])])
    named = change(bank, changes)
    assert named.names == ("weight", "slant")
    torch.testing.assert_close(named.vectors, bank.vectors * torch.tensor([[-1.0], [1.0]]))  # alpha raises the weight


def test_alphas_of_the_bundled_generator_keep_codes_near_their_class() -> None:
    generator = sefa.load("letters")
    bank = sefa.factorize(generator, top=2)
    found = respond(generator, bank, fonts=3)
    labels = torch.full((200,), 7)
    z = torch.randn(200, generator.z_dim, generator=torch.Generator().manual_seed(0))
    codes = generator.encode(z, labels)[:, 0]
    assert code_radius(generator) == pytest.approx(float((codes - codes.mean(dim=0)).norm(dim=1).mean()), rel=0.25)
    for one in found:
        low, high = one.alpha_range
        assert -low == high == pytest.approx(code_radius(generator) / 2, abs=0.06)
        assert abs(one.alpha).max() <= high
        assert {name: len(values) for name, values in one.edited.items()} == dict.fromkeys(one.unedited, 3)
    assert not np.array_equal(found[0].edited["weight"], found[1].edited["weight"])
