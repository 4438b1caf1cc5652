"""Random numbers of a module's forward as constants: which draws, with which distribution, and what cannot be."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import sefa
import sefa_runtime
from sefa import ArgumentError
from sefa.custom import edit_styles, find_layers
from sefa.custom.calls.frozen_noise import FrozenNoise, make_noise
from sefa_export import export_onnx, export_torchscript

D = 10
HERE = Path(__file__).name


class Noisy(nn.Module):
    """Adds what `noise` makes of its activations."""

    def __init__(self, noise: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.noise, self.first, self.last = noise, nn.Linear(D, 4 * 64), nn.Conv2d(4, 3, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        x = self.first(z).view(-1, 4, 8, 8)
        return torch.tanh(self.last(x + self.noise(x)))


def changed_in_place(x: Tensor) -> Tensor:
    noise = torch.randn(x.shape[0], 1, 8, 8, device=x.device)
    noise *= 0.5
    return noise


DRAWS: dict[str, Callable[[Tensor], Tensor]] = {
    "randn": lambda x: torch.randn((x.size(0), 1, 8, 8), generator=torch.Generator().manual_seed(3)),
    "randn, changed in place": changed_in_place,
    "randn, of one for all": lambda x: torch.randn(1, 1, 8, 8, dtype=torch.float64).float(),
    "randn_like": lambda x: torch.randn_like(input=x[:, :1]),
    "rand": lambda x: torch.rand(size=(x.shape[0], 4, 1, 1)),
    "rand_like": lambda x: torch.rand_like(x, dtype=torch.float32),
    "normal_": lambda x: x.new_empty(x.shape[0], 1, 8, 8).normal_(0, 0.5),
    "normal_, of init": lambda x: nn.init.normal_(torch.empty_like(x), std=0.5),
    "uniform_": lambda x: torch.empty(x.shape[0], 1, 8, 8).uniform_(-1, 1),
    "normal": lambda x: torch.distributions.Normal(0.0, 0.1).sample((x.size(0), 1, 1, 1)),  # type: ignore[no-untyped-call]
    "exponential_": lambda x: torch.empty_like(x).exponential_(2.0),
    "bernoulli": lambda x: torch.bernoulli(torch.full_like(x, 0.8)),
    "bernoulli_": lambda x: torch.empty_like(x).bernoulli_(0.3),
    "dropout": lambda x: F.dropout(x, 0.3),
    "dropout2d": lambda x: F.dropout2d(x, 0.3, training=True),
    "randint": lambda x: torch.randint(0, 5, (x.shape[0], 1, 8, 8)).float(),
    "randperm": lambda x: x[..., torch.randperm(8)],
}


def render(generator: sefa.Generator, z: Tensor) -> Tensor:
    with torch.no_grad():
        return generator.decode(generator.encode(z))


@pytest.mark.parametrize("name", DRAWS)
def test_a_draw_becomes_a_constant(name: str) -> None:
    torch.manual_seed(0)
    module, z = Noisy(DRAWS[name]), torch.randn(5, D)
    with pytest.raises(ArgumentError, match=f"Noisy draws random numbers: .*at {HERE}:.*--freeze-noise SEED"):
        sefa.wrap(module, latent_dim=D, layers=["first"])
    generator, same, other = (
        sefa.wrap(module, latent_dim=D, layers=["first"], image_range=(-1, 1), freeze_noise=seed) for seed in (7, 7, 8)
    )
    operator = name.partition(",")[0]
    assert re.fullmatch(rf"random numbers are constants: {operator} at {HERE}:\d+", generator.assumptions[0])
    assert generator.noise == "constants of seed 7"
    image = render(generator, z)
    assert torch.equal(render(same, z), image)
    assert not torch.allclose(render(other, z), image)
    assert torch.equal(render(generator, z.repeat(2, 1)), image.repeat(2, 1, 1, 1))  # the same in every image


def test_a_model_with_frozen_noise_is_exported_and_says_so(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = Noisy(
        lambda x: (
            torch.cat([DRAWS[name](x) + 0 * x for name in ("randn", "normal", "dropout", "randint")])
            .view(4, *x.shape)
            .sum(0)
        )
    )
    generator = sefa.wrap(module, latent_dim=D, layers=["first"], image_range=(-1, 1), freeze_noise=7)
    bank = sefa.factorize(generator, top=3)
    export_onnx(generator, bank, tmp_path / "g.onnx", "float32")  # Each is verified against PyTorch.
    export_torchscript(generator, bank, tmp_path / "g.ts", "float32")
    info = sefa_runtime.load(tmp_path / "g.onnx", provider="cpu").info
    assert info.noise == "constants of seed 7"
    assert len(re.findall(f" at {HERE}:", info.assumptions[0])) == 4


@pytest.mark.parametrize(
    ("draw", "mean", "deviation"),
    [
        (lambda x: torch.randn(200, 200), 0, 1),
        (lambda x: torch.normal(2.0, 3.0, (200, 200)), 2, 3),
        (lambda x: torch.normal(torch.full((200, 1), 2.0), torch.full((200,), 3.0)), 2, 3),
        (lambda x: torch.normal(mean=torch.full((200, 200), 2.0), std=3), 2, 3),
        (lambda x: torch.empty(200, 200).normal_(mean=2, std=3), 2, 3),
        (lambda x: torch.rand(200, 200, out=torch.empty(200, 200)), 0.5, 12**-0.5),
        (lambda x: torch.empty(200, 200).uniform_(-1, 3), 1, 4 * 12**-0.5),
        (lambda x: torch.empty(200, 200).uniform_(to=3), 1.5, 3 * 12**-0.5),
        (lambda x: torch.empty(200, 200).exponential_(4.0), 0.25, 0.25),
        (lambda x: torch.bernoulli(torch.full((200, 200), 0.2)), 0.2, 0.4),
        (lambda x: torch.empty(200, 200).bernoulli_(0.2), 0.2, 0.4),
        (lambda x: F.dropout(torch.ones(200, 200), 0.2, inplace=True), 1, 0.5),
        (lambda x: torch.dropout(torch.ones(200, 200), 0.2, train=True), 1, 0.5),
        (lambda x: F.dropout1d(torch.ones(200, 200, 3), 0.2), 1, 0.5),
        (lambda x: torch.randint(7, (200, 200)).float(), 3, 2),
        (lambda x: torch.randint(1, high=8, size=(200, 200)).float(), 4, 2),
        (lambda x: torch.randint_like(torch.zeros(200, 200), 1, 8), 4, 2),
        (lambda x: F.dropout(torch.ones(200, 200), 1.0), 0, 0),
        (lambda x: torch.randperm(201).float(), 100, (201**2 / 12) ** 0.5),
    ],
)
def test_constants_are_distributed_as_the_random_numbers(draw: Any, mean: float, deviation: float) -> None:
    """The mean and deviation of the distributions, from their formulas; 40,000 numbers are within 3 %."""
    frozen = make_noise(nn.Module(), draw, torch.zeros(3, D), 0)
    with frozen.in_place(nn.Module()):
        numbers = draw(torch.zeros(3, D))
    assert float(numbers.mean()) == pytest.approx(mean, abs=0.03 * max(deviation, 1e-6), rel=0.03)
    assert float(numbers.std()) == pytest.approx(deviation, rel=0.03, abs=1e-6)


@pytest.mark.parametrize(
    ("noise", "message"),
    [
        (lambda x: x, "Noisy draws no random numbers that could be frozen: leave out --freeze-noise"),
        (
            lambda x: torch.stack([torch.randn(1, 8, 8) for _ in range(len(x))]),
            "image by image: randn at .*whole batch",
        ),
        (lambda x: x[torch.randperm(len(x))], "an order of its batch: randperm at"),
        (lambda x: torch.randn(1) if len(x) == 3 else torch.rand(1), "other random numbers for other batches: randn"),
        (lambda x: x + torch.poisson(torch.ones_like(x)), "draws no random numbers that could be frozen"),
        (lambda x: torch.randn(1) + torch.poisson(torch.ones_like(x)), "draws random numbers: torch's poisson at"),
    ],
)
def test_what_cannot_be_constant_is_refused(noise: Any, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        sefa.wrap(Noisy(noise), latent_dim=D, layers=["first"], freeze_noise=0)


def test_another_number_of_draws_from_call_to_call_is_refused() -> None:
    calls: list[int] = []

    def noise(x: Tensor) -> Tensor:
        calls.append(1)
        if len(calls) > 5:
            return torch.randn(1)
        return 2 * torch.randn(1)

    with pytest.raises(ArgumentError, match=f"other random numbers from call to call \\(randn at {HERE}"):
        sefa.wrap(Noisy(noise), latent_dim=D, layers=["first"], freeze_noise=0)


@pytest.mark.parametrize("seed", [-1, 2**63, 1.5, True])
def test_a_seed_is_a_number(seed: Any) -> None:
    with pytest.raises(ArgumentError, match="freeze_noise must be a seed, 0 to 9223372036854775807, got "):
        sefa.wrap(Noisy(torch.randn_like), latent_dim=D, layers=["first"], freeze_noise=seed)


class Layer(nn.Module):
    """Draws twice in one line."""

    def __init__(self) -> None:
        super().__init__()
        self.style, self.last = nn.Linear(6, 4), nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        for _ in range(2):
            x = x + 0.3 * torch.randn(x.shape[0], 1, *x.shape[2:])
        return torch.tanh(self.last(x * self.style(w)[:, :, None, None]))


class Styled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mapping = nn.Sequential(nn.Linear(D, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh())
        self.const = nn.Parameter(torch.randn(1, 4, 4, 4))
        self.layers, self.last = nn.ModuleList([Layer(), Layer()]), nn.Conv2d(4, 3, 1)

    def forward(self, z: Tensor) -> Tensor:
        w, x = self.mapping(z), self.const.repeat(len(z), 1, 1, 1)
        for layer in self.layers:
            x = nn.functional.interpolate(layer(x, w), scale_factor=2.0)
        return torch.tanh(self.last(x))


def test_layers_that_draw_keep_their_constants_where_styles_are_fed() -> None:
    """Style space runs layers alone and again, and each keeps what it drew, of its own size."""
    torch.manual_seed(0)
    module, z = Styled(), torch.randn(2, D)
    plain = sefa.wrap(module, latent_dim=D, layers=[], image_range=(-1, 1), freeze_noise=1)
    assert plain.assumptions[0].endswith(" (4 times)")
    layers = find_layers(plain)
    assert (layers.reads, [one.name for one in layers.layers]) == ("w", ["layers.0.style", "layers.1.style"])
    styled = edit_styles(plain)
    torch.testing.assert_close(render(styled, z), render(plain, z), atol=1e-6, rtol=0)


def test_without_constants_nothing_is_replaced() -> None:
    with FrozenNoise().in_place(nn.Module()):
        assert not torch.equal(torch.randn(9), torch.randn(9))
