"""Images that are no function of latent and class alone are refused, and the message says what stands in the way."""

import random
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import sefa
from sefa import ArgumentError

D = 10


class Net(nn.Module):
    """A network whose image `change` works on."""

    count: Tensor

    def __init__(self, change: Callable[["Net", Tensor], Tensor] = lambda net, image: image) -> None:
        super().__init__()
        self.first, self.change = nn.Linear(D, 48), change
        self.register_buffer("count", torch.zeros(()))
        self.noise = nn.Parameter(torch.randn(1, 3, 4, 4) * 0.1)

    def forward(self, z: Tensor) -> Tensor:
        return self.change(self, torch.tanh(self.first(z)).view(-1, 3, 4, 4))


def wrapped(module: nn.Module) -> sefa.Generator:
    return sefa.wrap(module, latent_dim=D, layers=["first"])


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize(
    ("change", "operator"),
    [
        (lambda net, x: x + 1e-7 * torch.randn_like(x), "randn_like"),
        (lambda net, x: x + 0 * torch.rand(1), "rand"),
        (lambda net, x: x + 1e-4 * torch.empty_like(x).normal_(), "normal"),
        (lambda net, x: F.dropout(x, 0.1), "bernoulli"),
        (lambda net, x: x * torch.bernoulli(x.abs().clamp(0, 1)), "bernoulli"),
        (lambda net, x: x[:, torch.randperm(3)], "randperm"),
        (lambda net, x: x + torch.randn(1, generator=torch.Generator().manual_seed(1)), "randn"),
        (lambda net, x: F.rrelu(x, training=True), "rrelu_with_noise"),
        (lambda net, x: x + torch.distributions.Normal(0.0, 1e-3).rsample(x.shape), "normal"),
    ],
)
def test_an_operator_that_draws_random_numbers_is_named_with_its_line(
    change: Callable[[Net, Tensor], Tensor], operator: str
) -> None:
    with pytest.raises(ArgumentError, match=rf"Net draws random numbers: torch's {operator} at [\w.]+\.py:\d+; make"):
        wrapped(Net(change))


def test_the_line_is_the_users_also_where_a_layer_of_torchs_asks() -> None:
    class Stubborn(nn.Dropout):
        def train(self, mode: bool = True) -> "Stubborn":
            return self

    module = Net(lambda net, x: net.drop(x))  # type: ignore[operator]
    module.drop = Stubborn(0.1)
    with pytest.raises(ArgumentError, match=r"bernoulli at test_purity\.py:\d+; drop stays in training mode"):
        wrapped(module)


@pytest.mark.parametrize("taken", [True, False])
def test_a_random_operator_is_found_in_torchscript_also_where_no_run_goes(taken: bool) -> None:
    class Scripted(nn.Module):
        def __init__(self, limit: float) -> None:
            super().__init__()
            self.first, self.limit = nn.Linear(D, 48), limit
            self.drop = nn.Dropout(0.5)

        def forward(self, z: Tensor) -> Tensor:
            x: Tensor = self.drop(torch.tanh(self.first(z)))
            if bool(x.abs().max() > self.limit):
                x = x + torch.rand_like(x)
            return x.view(-1, 3, 4, 4)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch advises torch.export.
        module = torch.jit.script(Scripted(0.0 if taken else 1e6))
    with pytest.raises(ArgumentError, match="Scripted draws random numbers: torch's rand_like"):
        wrapped(module)


def count(net: Net, x: Tensor) -> Tensor:
    net.count += 1
    return x


def averaged(net: Net, x: Tensor) -> Tensor:
    net.count = 0.9 * net.count + 0.1 * x.mean()
    return x + net.count


def in_place(net: Net, x: Tensor) -> Tensor:
    return x + net.noise.mul_(1.01)


@pytest.mark.parametrize(("change", "name"), [(count, "count"), (averaged, "count"), (in_place, "noise")])
def test_what_changes_itself_is_refused(change: Callable[[Net, Tensor], Tensor], name: str) -> None:
    with pytest.raises(ArgumentError, match=f"Net keeps a state: rendering images changes its {name}; let its forward"):
        wrapped(Net(change))


def test_torchscript_that_was_traced_while_training_says_so() -> None:
    module = Net()
    module.first = nn.utils.parametrizations.spectral_norm(nn.Linear(D, 48))  # type: ignore[assignment]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch advises torch.export.
        traced: Any = torch.jit.trace(module, torch.randn(3, D), check_trace=False)  # type: ignore[no-untyped-call]
    with pytest.raises(ArgumentError, match=r"keeps a state: .* script or trace it after module\.eval\(\)"):
        wrapped(traced)


def remembering(net: Net, x: Tensor) -> Tensor:
    before: Any = net.__dict__.get("before", 0)
    net.__dict__["before"] = x.mean()
    result: Tensor = x + 1e-4 * before
    return result


@pytest.mark.parametrize(
    "change",
    [
        lambda net, x: x + 1e-4 * np.random.randn(),
        lambda net, x: x + 1e-4 * float(np.random.default_rng().standard_normal()),
        lambda net, x: x + 1e-4 * random.random(),
        lambda net, x: x + 1e-4 * (time.perf_counter_ns() % 999),
        remembering,
    ],
)
def test_random_numbers_from_outside_torch_show(change: Callable[[Net, Tensor], Tensor]) -> None:
    with pytest.raises(ArgumentError, match=r"Net gives another image at every call, up to .* numpy, Python's random"):
        wrapped(Net(change))


def test_random_states_are_left_alone() -> None:
    module = Net()
    kept = random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state()  # type: ignore[index]
    wrapped(module)
    assert random.getstate() == kept[0]
    assert (np.random.get_state()[1] == kept[1]).all()  # type: ignore[index]
    assert torch.equal(torch.get_rng_state(), kept[2])


class Normed(Net):
    """A batch norm that eval() does not reach."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3, **options)

    def forward(self, z: Tensor) -> Tensor:
        x: Tensor = self.norm(super().forward(z))
        return x / 4

    def train(self, mode: bool = True) -> "Normed":
        super().train(mode)
        self.norm.train()
        return self


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (lambda: Normed(), r"changes its norm\.running_mean and 2 more"),
        (lambda: Normed(track_running_stats=False), "depend on what else is in the batch"),
        (lambda: Net(lambda net, x: F.batch_norm(x, None, None, training=True) / 4), "depend on what else is in the"),
        (lambda: Net(lambda net, x: x + 1e-4 * x.mean(0, keepdim=True)), "depend on what else is in the batch"),
        (lambda: Net(lambda net, x: x + 1e-3 * torch.arange(len(x)).view(-1, 1, 1, 1)), "depend on what else"),
        (lambda: Net(lambda net, x: x / len(x)), "depend on the size of the batch: alone, an image differs by"),
        (
            lambda: Net(lambda net, x: F.batch_norm(x.mean((2, 3)), None, None, training=True)[:, :, None, None] / 4),
            "cannot render one image alone: ValueError: Expected more than 1 value",
        ),
        (lambda: Net(lambda net, x: 0 * x), "gives the same image for every latent"),
        (lambda: Net(lambda net, x: x / 0), "NaN or infinite"),
    ],
)
def test_images_that_depend_on_the_batch_are_refused(module: Callable[[], nn.Module], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        wrapped(module())


def test_a_module_may_work_in_place_on_what_it_is_given() -> None:
    class InPlace(Net):
        def forward(self, z: Tensor) -> Tensor:
            return super().forward(z.mul_(0.5))

    module = InPlace().eval()
    generator = wrapped(module)
    z = torch.randn(2, D)
    kept = z.clone()
    codes = generator.encode(z)
    with torch.no_grad():
        first, second = generator.decode(codes), generator.decode(codes)
        expected = module(z.clone())
    assert torch.equal(z, kept)
    assert torch.equal(first, second)
    torch.testing.assert_close(first, expected)
    torch.testing.assert_close(generator.affines()[0], 0.5 * module.first.weight.detach())


def test_a_module_may_give_what_it_keeps() -> None:
    """The same memory is given at every call."""

    class Buffered(Net):
        def forward(self, z: Tensor) -> Tensor:
            x = super().forward(z)
            kept: dict[torch.Size, Tensor] = self.__dict__.setdefault("kept", {})
            return kept.setdefault(x.shape, torch.zeros_like(x)).copy_(x)

    z = torch.randn(2, D)
    module = Buffered().eval()
    with torch.no_grad():
        generator = wrapped(module)
        torch.testing.assert_close(generator.decode(generator.encode(z)), module(z).clone())
