"""What a layer of the user's reads: z times a number, a part of it, or something else."""

import copy
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import sefa
import sefa_export
from sefa import ArgumentError

D, CLASSES = 12, 3


class Net(nn.Module):
    """`first` reads what `before` makes of z; `second` reads what `first` gave."""

    def __init__(self, before: Callable[[Tensor], Tensor], width: int = D, **layers: nn.Module) -> None:
        super().__init__()
        self.before = before
        self.first, self.second = nn.Linear(width, 16), nn.Linear(16, 3 * 16)
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, z: Tensor) -> Tensor:
        return torch.tanh(self.second(F.relu(self.first(self.before(z))))).view(-1, 3, 4, 4)


def rms(z: Tensor) -> Tensor:
    return z / (z.square().mean(1, keepdim=True) + 1e-8).sqrt()


def sines(z: Tensor) -> Tensor:
    return torch.cat([(2 * z).sin(), (2 * z).cos()], dim=1)


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def wrapped(module: nn.Module, layer: str = "first", **options: Any) -> Tensor:
    (A,) = sefa.wrap(module, latent_dim=D, layers=[layer], **options).affines()
    return A


# What stands between z and the layer, and A in terms of the layer's weight W.
READERS: dict[str, tuple[Callable[[], nn.Module], Callable[[Tensor], Tensor]]] = {
    "pixel norm": (lambda: Net(rms), lambda W: W),
    "unit length": (lambda: Net(lambda z: F.normalize(z, dim=1)), lambda W: W),
    "without epsilon": (lambda: Net(lambda z: z / z.norm(dim=1, keepdim=True)), lambda W: W),
    "a number of each image's own": (lambda: Net(lambda z: -z * z.abs().amax(1, keepdim=True)), lambda W: W),
    "a part of normalised z": (lambda: Net(lambda z: rms(z)[:, 3:8], 5), lambda W: F.pad(W, (3, 4))),
    "a part of z": (lambda: Net(lambda z: z.chunk(3, 1)[1], 4), lambda W: F.pad(W, (4, 4))),
    "normalised z twice": (lambda: Net(lambda z: torch.cat([rms(z), rms(z)], 1), 24), lambda W: W[:, :D] + W[:, D:]),
    "normalised z beside ones": (
        lambda: Net(lambda z: torch.cat([torch.ones_like(z), rms(z)], 1), 24),
        lambda W: W[:, D:],
    ),
    "normalised z turned round": (lambda: Net(lambda z: rms(z).flip(1)), lambda W: W.flip(1)),
    "z and a position": (lambda: Net(lambda z: z + torch.arange(D).sin()), lambda W: W),
}


@pytest.mark.parametrize("name", READERS)
def test_a_layer_of_z_times_a_number_gives_its_own_weight(name: str) -> None:
    build, expected = READERS[name]
    module = build()
    A = wrapped(module)
    assert isinstance(module.first, nn.Linear)
    torch.testing.assert_close(A, expected(module.first.weight.detach()), atol=1e-4, rtol=0)


def test_a_batch_norm_of_z_scales_the_columns() -> None:
    norm = nn.BatchNorm1d(D)
    norm.running_mean, norm.running_var = torch.randn(D), torch.rand(D) + 0.5
    module = Net(lambda z: z, norm=norm).eval()
    module.before = norm
    scale = (norm.running_var + norm.eps).rsqrt()
    assert isinstance(module.first, nn.Linear)
    torch.testing.assert_close(wrapped(module), module.first.weight.detach() * scale, atol=1e-4, rtol=0)


def test_a_normalised_latent_beside_a_label_leaves_the_label_alone() -> None:
    class Conditional(Net):
        together = False

        def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
            assert label is not None
            one_hot = F.one_hot(label, CLASSES).float()
            return super().forward(
                rms(torch.cat([one_hot, z], 1)) if self.together else torch.cat([one_hot, rms(z)], 1)
            )

    for together in (False, True):
        module = Conditional(lambda z: z, D + CLASSES)
        module.together = together
        A = wrapped(module, num_classes=CLASSES)
        assert isinstance(module.first, nn.Linear)
        torch.testing.assert_close(A[:, :D], module.first.weight.detach()[:, CLASSES:], atol=1e-4, rtol=0)


class Mapped(nn.Module):
    """A mapping network as wide as z."""

    def __init__(self) -> None:
        super().__init__()
        self.mapping = nn.Sequential(nn.Linear(D, D), nn.LeakyReLU(0.2), nn.Linear(D, D), nn.LeakyReLU(0.2))
        self.style, self.last = nn.Linear(D, 16), nn.Linear(16, 48)

    def forward(self, z: Tensor) -> Tensor:
        return torch.tanh(self.last(F.relu(self.style(self.mapping(rms(z)))))).view(-1, 3, 4, 4)


@pytest.mark.parametrize(
    ("layer", "reads"),
    [
        ("style", r"'mapping\.3' \(LeakyReLU\)"),
        ("mapping.2", r"'mapping\.1' \(LeakyReLU\)"),
        ("last", "something computed from z"),
    ],
)
def test_a_layer_behind_a_mapping_network_is_refused_and_those_of_z_are_named(layer: str, reads: str) -> None:
    with pytest.raises(ArgumentError, match=rf"{layer}.* it reads (what )?{reads}.* that read z are mapping\.0$"):
        wrapped(Mapped(), layer)
    module = Mapped()
    first = module.mapping[0]
    assert isinstance(first, nn.Linear)
    torch.testing.assert_close(wrapped(module, "mapping.0"), first.weight.detach(), atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("before", "width"),
    [
        (F.relu, D),
        (torch.tanh, D),
        (sines, 2 * D),
        (lambda z: z.clamp(-2, 2), D),
        (lambda z: z * z, D),
        (lambda z: z.sort(1).values, D),
        (lambda z: rms(z) * torch.linspace(0.5, 2, D), D),
        (lambda z: F.layer_norm(z, [D]), D),
        (lambda z: rms(z) + 0.01 * z.flip(1), D),
        (lambda z: torch.cat([rms(z)[:, :6], F.relu(z[:, 6:])], 1), D),
    ],
)
def test_what_is_no_multiple_of_z_is_refused(before: Callable[[Tensor], Tensor], width: int) -> None:
    with pytest.raises(
        ArgumentError, match=r"it reads something computed from z, which is no multiple of z; no layer with a weight"
    ) as e:
        wrapped(Net(before, width))
    assert "\n" not in str(e.value)


def test_a_class_that_multiplies_z_is_no_number() -> None:
    class Embedded(Net):
        def __init__(self) -> None:
            super().__init__(lambda z: z)
            self.embed = nn.Embedding(CLASSES, D)

        def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
            return super().forward(z * self.embed(label))

    with pytest.raises(ArgumentError, match="reads z in another way for each class"):
        wrapped(Embedded(), num_classes=CLASSES)


def test_the_layers_of_torchscript_are_judged_likewise() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch advises torch.export.
        module: Any = torch.jit.trace(Mapped().eval(), torch.randn(3, D), check_trace=False)  # type: ignore[no-untyped-call]
    for layer in ("style", "mapping.2"):
        with pytest.raises(ArgumentError, match=r"is no multiple of z; those that read z are mapping\.0$"):
            wrapped(module, layer)
    assert wrapped(module, "mapping.0").shape == (D, D)


class PastHooks(nn.Module):
    """A wrapper that calls its layer's forward itself, as spectral norms of before torch had one do."""

    def __init__(self, module: nn.Linear, improve: bool = False) -> None:
        super().__init__()
        self.module, self.improve = module, improve
        weight = module.weight.detach()
        del module.weight
        for name, value in (
            ("weight_u", weight[:, 0].clone()),
            ("weight_v", weight[0].clone()),
            ("weight_bar", weight),
        ):
            module.register_parameter(name, nn.Parameter(value, requires_grad=name == "weight_bar"))

    def forward(self, *inputs: Tensor) -> object:
        layer: Any = self.module
        if self.improve:
            layer.weight_v.data = F.normalize(layer.weight_bar.detach().T @ layer.weight_u, dim=0)
            layer.weight_u.data = F.normalize(layer.weight_bar.detach() @ layer.weight_v, dim=0)
        sigma = layer.weight_u @ layer.weight_bar @ layer.weight_v
        layer.weight = layer.weight_bar / sigma
        return layer.forward(*inputs)


@pytest.mark.parametrize("improve", [False, True])
def test_a_layer_that_is_called_past_its_hooks_is_seen(improve: bool) -> None:
    module = Net(lambda z: z).eval()
    module.set_submodule("first", PastHooks(nn.Linear(D, 16), improve))
    z = torch.randn(2, D)
    used = copy.deepcopy(module)
    with torch.no_grad():
        expected = used(z)
    weight: Any = used.first.module.weight  # type: ignore[union-attr]
    generator = sefa.wrap(module, latent_dim=D, layers=["first.module"])
    torch.testing.assert_close(generator.decode(generator.encode(z)), expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(generator.affines()[0], weight, atol=1e-5, rtol=0)
    bank = sefa.factorize(generator, top=2)
    moved = generator.decode(generator.encode(z) + 2 * bank.vectors[0])
    assert (moved - expected).abs().max() > 1e-3


def test_a_weight_that_is_used_without_its_layer_is_seen() -> None:
    class Functional(Net):
        def forward(self, z: Tensor) -> Tensor:
            first: Any = self.first
            return torch.tanh(self.second(F.relu(F.linear(z, first.weight, first.bias)))).view(-1, 3, 4, 4)

    module = Functional(lambda z: z)
    assert isinstance(module.first, nn.Linear)
    torch.testing.assert_close(wrapped(module), module.first.weight.detach(), atol=1e-5, rtol=0)


def test_a_layer_that_takes_no_part_says_which_do() -> None:
    module = Net(lambda z: z, unused=nn.Linear(D, 4))
    with pytest.raises(
        ArgumentError, match=r"'unused' \(Linear\) reads nothing of the latent: those that read z are first$"
    ):
        wrapped(module, "unused")


class Improving:
    """A spectral norm as a hook of one's own, which improves its vector at every call."""

    def __init__(self, layer: nn.Linear) -> None:
        weight = layer.weight.detach()
        del layer.weight
        layer.register_parameter("weight_orig", nn.Parameter(weight))
        layer.register_buffer("weight_u", torch.randn(len(weight)))
        layer.register_buffer("weight", weight)
        layer.register_forward_pre_hook(self)

    def __call__(self, layer: Any, inputs: object) -> None:
        with torch.no_grad():
            v = F.normalize(layer.weight_orig.T @ layer.weight_u, dim=0)
            layer.weight_u = F.normalize(layer.weight_orig @ v, dim=0)
        layer.weight = layer.weight_orig / (layer.weight_u @ layer.weight_orig @ v)


def test_a_spectral_norm_of_ones_own_is_taken_as_it_is_at_the_first_call() -> None:
    module = Net(lambda z: z)
    Improving(module.first)
    Improving(module.second)
    used, z = copy.deepcopy(module.eval()), torch.randn(2, D)
    with torch.no_grad():
        expected = used(z)
    generator = sefa.wrap(module, latent_dim=D, layers=["first"])
    torch.testing.assert_close(generator.decode(generator.encode(z)), expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(generator.affines()[0], used.first.weight.detach(), atol=1e-5, rtol=0)


def test_a_norm_that_was_trained_is_copied_and_exported(tmp_path: Path) -> None:
    """Its weight has a graph, with which nothing can be copied."""
    module = Net(lambda z: z)
    module.set_submodule("first", PastHooks(nn.Linear(D, 16), improve=True))
    module(torch.randn(4, D)).sum().backward()
    generator = sefa.wrap(module.eval(), latent_dim=D, layers=["first.module"])
    sefa_export.export_onnx(generator, sefa.factorize(generator, top=2), tmp_path / "model.onnx")


def test_layers_inside_data_parallel_keep_their_names() -> None:
    module = Net(lambda z: z)
    weight = module.first.weight.detach()
    module.set_submodule("first", nn.DataParallel(module.first))
    torch.testing.assert_close(wrapped(module, "first.module"), weight, atol=1e-5, rtol=0)


def test_half_precision_inside_says_so() -> None:
    class Autocast(Net):
        def forward(self, z: Tensor) -> Tensor:
            with torch.autocast("cpu", torch.bfloat16):
                return super().forward(z)

    with pytest.raises(ArgumentError, match="computes in bfloat16: take the autocast, or the cast, out of the forward"):
        wrapped(Autocast(lambda z: z))
