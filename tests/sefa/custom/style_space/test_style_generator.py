"""Modules of the user's own that are edited in their style codes: designs as people write them, small."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import sefa
import sefa_export
import sefa_runtime
from sefa import ArgumentError
from sefa.custom import edit_styles, find_layers
from sefa.custom.style_space.style_generator import CustomStyleGenerator, edit_what_is_read

Z, D, CLASSES = 8, 6, 3


def mlp(inputs: int = Z, outputs: int = D) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, D), nn.LeakyReLU(0.2), nn.Linear(D, outputs), nn.LeakyReLU(0.2))


class ScaledLinear(nn.Module):
    """A linear layer with an equalised learning rate, of the user's own kind."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) * 100)
        self.bias = nn.Parameter(torch.ones(outputs))

    def effective(self) -> Tensor:
        return self.weight * 0.005

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.effective(), self.bias)


class Modulated(nn.Module):
    """A convolution with a style, and a weight of its own beside that of the style's transform."""

    def __init__(self, inputs: int, outputs: int, affine: nn.Module | None = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, 3, 3))
        self.affine = ScaledLinear(D, inputs) if affine is None else affine

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        style = self.affine(w)
        demodulation = (style.square() @ self.weight.square().sum((2, 3)).T + 1e-8).rsqrt()
        x = F.conv2d(x * style[:, :, None, None], self.weight, padding=1)
        return F.leaky_relu(x * demodulation[:, :, None, None], 0.2)


class Design(nn.Module):
    """z -> mapping -> synthesis; the synthesis alone is what the edited images are compared with."""

    mapping: nn.Module

    def codes(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        """The style codes of z, flat."""
        w: Tensor = self.mapping(z)
        return w.flatten(1)

    def synthesis(self, w: Tensor, label: Tensor | None = None) -> Tensor:
        raise NotImplementedError

    def forward(self, z: Tensor) -> Tensor:
        return self.synthesis(self.codes(z))


class Broadcast(nn.Module):
    """A mapping that gives one copy of w for each layer, beside something else."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.net, self.count = mlp(), count

    def forward(self, z: Tensor) -> dict[str, Tensor]:
        w = self.net(F.normalize(z, dim=1))
        return {"z": z, "ws": w[:, None].repeat(1, self.count, 1)}


class Constant(nn.Module):
    """A learned input, repeated for each image: the code only says how many there are."""

    def __init__(self) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.randn(1, 5, 4, 4))

    def forward(self, w: Tensor) -> Tensor:
        return self.value.repeat(w.shape[0], 1, 1, 1)


class Convolutional(Design):
    """Modulated convolutions of a constant, each with its slice of [N, L, D]."""

    def __init__(self) -> None:
        super().__init__()
        self.mapping = Broadcast(3)
        self.const = Constant()
        self.first, self.second, self.colours = Modulated(5, 5), Modulated(5, 4), Modulated(4, 3)

    def codes(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        ws: Tensor = self.mapping(z)["ws"]
        return ws[:, 0]

    def synthesis(self, w: Tensor, label: Tensor | None = None) -> Tensor:
        return self.layers(w[:, None].repeat(1, 3, 1))

    def layers(self, ws: Tensor) -> Tensor:
        x = self.first(self.const(ws[:, 0]), ws[:, 0])
        x = self.second(F.interpolate(x, scale_factor=2), ws[:, 1])
        image: Tensor = 0.3 * self.colours(x, ws[:, 2])
        return image

    def forward(self, z: Tensor) -> Tensor:
        return self.layers(self.mapping(z)["ws"])


class Split(nn.Module):
    """A second-order style: a·b + c of one projection."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.projection = nn.Linear(D, 3 * outputs)

    def forward(self, w: Tensor) -> Tensor:
        a, b, c = self.projection(w).chunk(3, dim=1)
        image: Tensor = a * b + c
        return image


class SecondOrder(Convolutional):
    """Styles of second order, whose first transform is a projection."""

    def __init__(self) -> None:
        super().__init__()
        self.first.affine, self.second.affine, self.colours.affine = Split(5), Split(5), Split(4)


class Tokens(Design):
    """Attention between an image's tokens, which are normalised and styled before it (AdaIN)."""

    def __init__(self) -> None:
        super().__init__()
        self.mapping = mlp()
        self.tokens = nn.Parameter(torch.randn(1, 16, 4))
        self.styles = nn.ModuleList([nn.Conv1d(D, 8, 1), nn.Linear(D, 8)])
        self.qkv = nn.ModuleList([nn.Linear(4, 12), nn.Linear(4, 12)])
        self.colours = nn.Linear(4, 3)

    def synthesis(self, w: Tensor, label: Tensor | None = None) -> Tensor:
        x = self.tokens.repeat(w.shape[0], 1, 1)
        for index, (style, qkv) in enumerate(zip(self.styles, self.qkv, strict=True)):
            scale, shift = style(w if index else w[:, :, None]).reshape(w.shape[0], 1, 8).chunk(2, dim=2)
            q, k, v = qkv(F.instance_norm(x.mT).mT * scale + shift).chunk(3, dim=2)
            x = x + (q @ k.mT / 2).softmax(2) @ v
        image: Tensor = self.colours(x).tanh().mT.reshape(-1, 3, 4, 4)
        return image


class Front(Design):
    """A mapping in front of a generator that reads its latent once."""

    def __init__(self) -> None:
        super().__init__()
        self.mapping = mlp()
        self.main = nn.Sequential(
            nn.ConvTranspose2d(D, 6, 4), nn.BatchNorm2d(6), nn.ReLU(), nn.ConvTranspose2d(6, 3, 4, 2, 1)
        )

    def synthesis(self, w: Tensor, label: Tensor | None = None) -> Tensor:
        image: Tensor = self.main(w[:, :, None, None])
        return image.tanh()


class Normalised(Tokens):
    """What the layers read is w of unit length, which no module gives."""

    def codes(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        return F.normalize(self.mapping(z), dim=1)


class Components(Design):
    """w is several vectors: the last is the style, the others are attended to."""

    def __init__(self) -> None:
        super().__init__()
        self.mapping = nn.Sequential(mlp(outputs=3 * D), nn.Unflatten(1, (3, D)))
        self.const = nn.Parameter(torch.randn(1, 4, 4, 4))
        self.styles = nn.ModuleList([nn.Linear(D, 4), nn.Linear(D, 4)])
        self.key, self.value, self.colours = nn.Linear(D, 4), nn.Linear(D, 4), nn.Conv2d(4, 3, 1)

    def synthesis(self, w: Tensor, label: Tensor | None = None) -> Tensor:
        ws = w.reshape(-1, 3, D)
        x = self.const.repeat(w.shape[0], 1, 1, 1)
        for style in self.styles:
            x = x * style(ws[:, 2])[:, :, None, None]
            attention = (x.flatten(2).mT @ self.key(ws[:, :2]).mT).softmax(2)
            x = x + (attention @ self.value(ws[:, :2])).mT.reshape(x.shape)
        image: Tensor = 0.3 * self.colours(x)
        return image


class Added(Front):
    """w is also added to an activation."""

    def __init__(self) -> None:
        super().__init__()
        self.late = nn.Linear(D, 6)

    def synthesis(self, w: Tensor, label: Tensor | None = None) -> Tensor:
        x = self.main[:3](w[:, :, None, None])
        x = x * self.late(w)[:, :, None, None] + w[:, :, None, None]
        image: Tensor = 0.3 * self.main[3](x)
        return image


def weights(*layers: nn.Module) -> Tensor:
    found = [layer.effective() if isinstance(layer, ScaledLinear) else layer.weight for layer in layers]
    return torch.cat([weight.reshape(-1, D) for weight in found])  # type: ignore[operator]


def of_component(weight: Tensor, *components: int) -> Tensor:
    """The weight of a layer that reads some components, in terms of all of them."""
    rows = [F.pad(weight, (D * index, D * (2 - index))) for index in components]
    return torch.cat(rows)


Build = Callable[[], Any]
# A design; the layers that are found; whether each may have its own code; AᵀA, which the order of rows leaves alone.
DESIGNS: dict[str, tuple[Build, list[str], bool, Callable[[Any], Tensor]]] = {
    "convolutional": (
        Convolutional, ["first.affine", "second.affine", "colours.affine"], True,
        lambda m: weights(m.first.affine, m.second.affine, m.colours.affine),
    ),
    "second order": (
        SecondOrder, ["first.affine.projection", "second.affine.projection", "colours.affine.projection"], True,
        lambda m: weights(m.first.affine.projection, m.second.affine.projection, m.colours.affine.projection),
    ),
    "tokens": (Tokens, ["styles.0", "styles.1"], True, lambda m: weights(*m.styles)),
    "a mapping in front": (
        Front, ["main.0"], True, lambda m: m.main[0].weight.permute(1, 2, 3, 0).reshape(-1, D),
    ),
    "normalised": (Normalised, ["styles.0", "styles.1"], True, lambda m: weights(*m.styles)),
    "components": (
        Components, ["styles.0", "styles.1", "key", "value"], False,
        lambda m: torch.cat([
            *(of_component(style.weight, 2) for style in m.styles),
            of_component(m.key.weight, 0, 1), of_component(m.value.weight, 0, 1),
        ]),
    ),
    "added to an activation": (
        Added, ["late", "main.0"], False,
        lambda m: torch.cat([m.late.weight, m.main[0].weight.permute(1, 2, 3, 0).reshape(-1, D)]),
    ),
}  # fmt: skip


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def latents(count: int = 4) -> Tensor:
    return torch.randn(count, Z, generator=torch.Generator().manual_seed(5))


def styled(module: nn.Module, **options: Any) -> CustomStyleGenerator:
    wrap = {name: options.pop(name) for name in ("num_classes",) if name in options}
    return edit_styles(sefa.wrap(module, latent_dim=Z, layers=[], **wrap), **options)


@pytest.mark.parametrize("name", DESIGNS)
def test_an_edit_is_the_modules_own_image_of_the_moved_code(name: str) -> None:
    build, layers, separate, affine = DESIGNS[name]
    module = build().eval()
    generator = styled(module)
    found = find_layers(sefa.wrap(module, latent_dim=Z, layers=[]))
    assert (found.reads, sorted(layer.name for layer in found.layers)) == ("w", sorted(layers))
    assert found.is_separate is separate
    assert generator.num_layers == (len(layers) if separate else 1)
    A = affine(module).detach()
    measured = torch.cat(generator.affines())
    torch.testing.assert_close(measured.T @ measured, A.T @ A, atol=1e-4, rtol=1e-4)
    bank = sefa.factorize(generator, top=4)
    z, w = latents(), module.codes(latents())
    with torch.no_grad():
        torch.testing.assert_close(generator.decode(generator.encode(z)), module(z), atol=1e-6, rtol=0)
        for direction in bank.vectors:
            edited = generator.decode(generator.encode(z) + 2 * direction)
            torch.testing.assert_close(edited, module.synthesis(w + 2 * direction), atol=1e-5, rtol=0)
    assert not any("forward" in vars(layer) for layer in generator.modules())
    assert not any("forward" in vars(layer) for layer in module.modules())


def test_each_layer_reads_its_own_code() -> None:
    module = Convolutional().eval()
    generator = styled(module)
    codes = torch.randn(2, 3, D)
    with torch.no_grad():
        torch.testing.assert_close(generator.decode(codes), module.layers(codes), atol=1e-6, rtol=0)


def test_truncation_draws_codes_to_their_mean() -> None:
    module = Tokens().eval()
    generator = styled(module)
    assert generator.truncation_center == "mean of 4096 latents, seed 0"
    with torch.no_grad():
        mean = torch.stack([module.codes(torch.randn(4096, Z)).mean(0) for _ in range(30)]).mean(0)
        torch.testing.assert_close(generator.center, mean, atol=0.02, rtol=0)
        w, center = module.codes(latents()), generator.center
        torch.testing.assert_close(
            generator.decode(generator.encode(latents(), truncation=0.6)),
            module.synthesis(center + 0.6 * (w - center)),
            atol=1e-5,
            rtol=0,
        )


def test_layers_are_chosen_by_name_pattern_and_index() -> None:
    module = Convolutional().eval()
    for choice in (["second.affine", "colours.affine"], ["[sc]*.affine"], ["1-2"]):
        generator = styled(module, layers=choice)
        assert generator.default_layers == (1, 2)
        bank = sefa.factorize(generator, top=2, edit_layers="first.*")
        assert bank.analysed_layers[0].tolist() == [False, True, True]
        assert bank.edited_layers[0].tolist() == [True, False, False]


class Conditional(Convolutional):
    """The mapping reads the class; the synthesis, if `late`, reads it too."""

    def __init__(self, late: bool) -> None:
        super().__init__()
        self.mapping = mlp(Z + CLASSES)
        self.late = nn.Embedding(CLASSES, 3) if late else None

    def codes(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        assert label is not None
        w: Tensor = self.mapping(torch.cat([z, F.one_hot(label, CLASSES).float()], 1))
        return w

    def synthesis(self, w: Tensor, label: Tensor | None = None) -> Tensor:
        image = super().synthesis(w)
        return image if self.late is None else image + 0.1 * self.late(label)[:, :, None, None]

    def forward(self, z: Tensor, label: Tensor) -> Tensor:  # type: ignore[override]
        return self.synthesis(self.codes(z, label), label)


@pytest.mark.parametrize("late", [False, True])
def test_a_label_is_read_by_the_mapping_and_perhaps_by_the_rest(late: bool) -> None:
    module = Conditional(late).eval()
    generator = styled(module, num_classes=CLASSES)
    assert generator.class_dim == (CLASSES if late else 0)
    bank = sefa.factorize(generator, top=2)
    label = torch.tensor([0, 2, 1, 2])
    with torch.no_grad():
        expected = module.synthesis(module.codes(latents(), label) + 2 * bank.vectors[1, :D], label)
        codes = generator.encode(latents(), label) + 2 * bank.vectors[1]
        torch.testing.assert_close(generator.decode(codes), expected, atol=1e-5, rtol=0)
    if late:
        with pytest.raises(ArgumentError, match="the class is read beside the style code, so latent must be z"):
            sefa_export.bake(generator, bank, latent="w")


@pytest.mark.parametrize(
    ("design", "latent", "suffix"),
    [
        ("convolutional", "w+", ".onnx"),
        ("components", "z", ".onnx"),
        ("normalised", "z", ".ts"),
        pytest.param("tokens", "w", ".pt2", marks=pytest.mark.slow),
    ],
)
def test_exported_codes_and_latents(tmp_path: Path, design: str, latent: str, suffix: str) -> None:
    module = DESIGNS[design][0]().eval()
    generator = styled(module)
    bank = sefa.factorize(generator, top=2)
    write = {
        ".onnx": sefa_export.export_onnx, ".ts": sefa_export.export_torchscript, ".pt2": sefa_export.export_pt2
    }[suffix]  # fmt: skip
    path = tmp_path / f"g{suffix}"
    write(generator, bank, path, "float32", latent=latent, truncation=None if latent == "z" else 1.0)
    if suffix != ".onnx":
        return  # It was compared with PyTorch when it was written.
    editor = sefa_runtime.load(path, "cpu")
    with torch.no_grad():
        if latent == "z":
            expected = module.synthesis(module.codes(latents()) + 1.5 * bank.vectors[1])
            image = editor.run(latents().numpy(), 1, 1.5, truncation=1.0)
        else:
            codes = torch.randn(2, 3, D)
            expected = module.layers(codes + 1.5 * bank.vectors[1])
            image = editor.run(codes=codes.numpy(), direction=1, alpha=1.5)
    np.testing.assert_allclose(image, expected, atol=1e-4)


def test_layers_that_read_z_are_edited_in_z_and_those_that_read_w_in_w() -> None:
    module = Tokens().eval()
    for layers, mapping, kind in (
        (["mapping.0"], None, "z"), (["styles.1"], None, "w"), (None, None, "w"), (None, "mapping", "w"),
    ):  # fmt: skip
        generator = edit_what_is_read(sefa.wrap(module, latent_dim=Z, layers=[]), layers, mapping)
        assert generator.has_style_codes is (kind == "w")
    plain = nn.Sequential(nn.Linear(Z, 48), nn.ReLU(), nn.Linear(48, 48), nn.Tanh(), nn.Unflatten(1, (3, 4, 4)))
    generator = edit_what_is_read(sefa.wrap(plain, latent_dim=Z, layers=[]), None)
    assert generator.assumptions[-1] == "the layers that read z first: 0"


class Leaking(Tokens):
    """Something else than the mapping reads z."""

    def __init__(self) -> None:
        super().__init__()
        self.shade = nn.Linear(Z, 3)

    def forward(self, z: Tensor) -> Tensor:
        image: Tensor = self.synthesis(self.codes(z)) + 0.1 * self.shade(z)[:, :, None, None]
        return image


class Squared(Tokens):
    """A layer that is no affine map of w."""

    def __init__(self) -> None:
        super().__init__()

        class Square(nn.Linear):
            def forward(self, x: Tensor) -> Tensor:
                return super().forward(x).square()

        self.styles[1] = Square(D, 8)


@pytest.mark.parametrize(
    ("build", "options", "message"),
    [
        (Leaking, {}, "read one vector, but with that vector and another latent the image changes"),
        (Leaking, {"mapping": "mapping"}, "does not give all that the image is made of"),
        (Tokens, {"mapping": "maping"}, "no module 'maping'; those that give one vector for each image are mapping.0"),
        (Tokens, {"mapping": "qkv"}, "'qkv' \\(ModuleList\\) is no mapping: it must run once"),
        (Tokens, {"mapping": "colours"}, "no layer with a weight reads what 'colours' gives"),
        (Tokens, {"layers": ["colours"]}, "layer 'colours' does not read the style code; those that do are styles.0"),
        (Tokens, {"layers": ["2"]}, "layers must be all or in 0..1, got '2'"),
        (Squared, {"layers": ["styles.1"]}, "layer 'styles.1' reads the style code, but is no affine map of it"),
    ],
)
def test_what_has_no_style_space_is_said(build: Build, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        styled(build(), **options)


def test_a_layer_that_is_not_affine_has_a_code_but_is_not_analysed() -> None:
    generator = styled(Squared().eval())
    assert (generator.num_layers, generator.default_layers) == (2, (0,))
    found = find_layers(sefa.wrap(Squared().eval(), latent_dim=Z, layers=[]))
    assert [layer.shape for layer in found.layers] == [(8, D), None]


def test_what_keeps_it_from_a_graph_is_said_with_the_line(tmp_path: Path) -> None:
    class Counting(Tokens):
        def synthesis(self, w: Tensor, label: Tensor | None = None) -> Tensor:
            return super().synthesis(w) * torch.ones(len(w), 1, 1, 1)

    generator = styled(Counting().eval())
    with pytest.raises(sefa_export.ExportError, match=r"Counting.*len\(w\).*write x.shape\[0\] for len\(x\)"):
        sefa_export.export_onnx(generator, sefa.factorize(generator, top=1), tmp_path / "g.onnx")
