"""BigGAN and BigGAN-deep of sizes that no published checkpoint has, against their formulas applied image by image."""

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import sefa
from sefa.errors import ArgumentError, CheckpointError
from support.biggan_images import convolved, double, latents

State = dict[str, Tensor]

# float32 images in [-1, 1] of a few layers, against float64.
ATOL = 1e-5


class Drawer:
    """Draws tensors in the layout of a checkpoint of BigGAN-PyTorch."""

    def __init__(self, spectral: bool = True, converted: bool = False, norm: str = "{}.stored_{}") -> None:
        self.random = torch.Generator().manual_seed(0)
        self.spectral, self.converted, self.norm_key = spectral, converted, norm
        self.state: State = {}

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.random)

    def weight(self, name: str, *shape: int) -> None:
        scale = 2.0 if self.spectral else math.prod(shape[1:]) ** -0.5
        self.state[f"{name}.weight"] = scale * self.normal(*shape)
        if self.spectral:
            self.state[f"{name}.u0"] = self.normal(1, shape[0])
            if not self.converted:
                self.state[f"{name}.sv0"] = torch.ones(1)

    def conv(self, name: str, inputs: int, outputs: int, kernel: int) -> None:
        self.weight(name, outputs, inputs, kernel, kernel)
        self.state[f"{name}.bias"] = self.normal(outputs) / 4

    def statistics(self, name: str, channels: int) -> None:
        self.state[self.norm_key.format(name, "mean")] = self.normal(channels)
        self.state[self.norm_key.format(name, "var")] = self.normal(channels).square() + 0.5
        if ".bn." in self.norm_key:
            self.state[f"{name}.bn.accumulation_counter"] = torch.zeros(1)

    def conditional_norm(self, name: str, channels: int, inputs: int, classes: int | None) -> None:
        for part in ("gain", "bias"):
            if classes is None:
                self.weight(f"{name}.{part}", channels, inputs)
            else:
                self.state[f"{name}.{part}.weight"] = self.normal(classes, channels)
        self.statistics(name, channels)

    def attention(self, name: str, channels: int) -> None:
        self.state[f"{name}.gamma"] = torch.tensor(0.7)
        for part, inputs, outputs in (
            ("theta", channels, channels // 8),
            ("phi", channels, channels // 8),
            ("g", channels, channels // 2),
            ("o", channels // 2, channels),
        ):
            self.weight(f"{name}.{part}", outputs, inputs, 1, 1)

    def ends(self, features: int, inputs: int, width: int, channels: int) -> None:
        self.weight("linear", features, inputs)
        self.state["linear.bias"] = self.normal(features)
        # Small, so that tanh is not saturated, which would hide errors.
        self.state["output_layer.0.gain"] = self.normal(width) / 8
        self.state["output_layer.0.bias"] = self.normal(width) / 8
        self.statistics("output_layer.0", width)
        self.conv("output_layer.2", width, channels, 3)


def draw_biggan(
    widths: tuple[int, ...],
    chunk: int = 5,
    embed_dim: int = 4,
    classes: int = 3,
    attentions: tuple[int, ...] = (),
    bottom_width: int = 4,
    channels: int = 3,
    hierarchical: bool = True,
    shared: bool = True,
    **layout: Any,
) -> State:
    """The state dict of a BigGAN."""
    drawer = Drawer(**layout)
    if shared:
        drawer.state["shared.weight"] = drawer.normal(classes, embed_dim)
    inputs = embed_dim + (chunk if hierarchical else 0)
    for i in range(len(widths) - 1):
        name = f"blocks.{i}.0"
        drawer.conv(f"{name}.conv1", widths[i], widths[i + 1], 3)
        drawer.conv(f"{name}.conv2", widths[i + 1], widths[i + 1], 3)
        drawer.conv(f"{name}.conv_sc", widths[i], widths[i + 1], 1)
        drawer.conditional_norm(f"{name}.bn1", widths[i], inputs, None if shared else classes)
        drawer.conditional_norm(f"{name}.bn2", widths[i + 1], inputs, None if shared else classes)
        if i in attentions:
            drawer.attention(f"blocks.{i}.1", widths[i + 1])
    drawer.ends(widths[0] * bottom_width**2, chunk, widths[-1], channels)
    return drawer.state


def draw_deep(
    widths: tuple[int, ...],
    z_dim: int = 6,
    embed_dim: int = 4,
    classes: int = 3,
    attentions: tuple[int, ...] = (),
    bottom_width: int = 4,
    **layout: Any,
) -> State:
    """The state dict of a BigGAN-deep."""
    drawer = Drawer(**layout)
    drawer.state["shared.weight"] = drawer.normal(classes, embed_dim)
    for i in range(len(widths) - 1):
        name, hidden = f"blocks.{i}.0", widths[i] // 4
        channels = (widths[i], hidden, hidden, hidden)
        for j, (inputs, outputs, kernel) in enumerate(
            ((widths[i], hidden, 1), (hidden, hidden, 3), (hidden, hidden, 3), (hidden, widths[i + 1], 1)), start=1
        ):
            drawer.conv(f"{name}.conv{j}", inputs, outputs, kernel)
            drawer.conditional_norm(f"{name}.bn{j}", channels[j - 1], z_dim + embed_dim, None)
        if i in attentions:
            drawer.attention(f"blocks.{i}.1", widths[i + 1])
    drawer.ends(widths[0] * bottom_width**2, z_dim + embed_dim, widths[-1], 3)
    return drawer.state


class Formulas:
    """One image by the formulas, in float64, with the weights as the checkpoint has them."""

    def __init__(self, state: State, epsilon: float = 1e-5, norm: str = "{}.stored_{}") -> None:
        self.state = {key: tensor.double() for key, tensor in state.items()}
        self.epsilon, self.norm_key = epsilon, norm

    def weight(self, name: str) -> Tensor:
        W = self.state[f"{name}.weight"]
        if f"{name}.u0" not in self.state:
            return W
        matrix = W.reshape(len(W), -1)
        v = self.state[f"{name}.u0"][0] @ matrix
        v = v / v.norm()
        sigma: Tensor = (matrix @ v).norm()  # u is the direction of W·v, so that σ = uᵀ·W·v is its length.
        return W / sigma

    def conv(self, name: str, x: Tensor) -> Tensor:
        return convolved(x, self.weight(name), self.state.get(f"{name}.bias"))

    def norm(self, name: str, x: Tensor, y: Tensor) -> Tensor:
        gain, bias = (self.weight(f"{name}.{part}") for part in ("gain", "bias"))
        if "shared.weight" in self.state:
            gain, bias = gain @ y, bias @ y
        else:
            gain, bias = gain[int(y)], bias[int(y)]
        return self.normalized(name, x, 1 + gain, bias, self.epsilon)

    def normalized(self, name: str, x: Tensor, gain: Tensor, bias: Tensor, epsilon: float) -> Tensor:
        mean, variance = (self.state[self.norm_key.format(name, part)] for part in ("mean", "var"))
        parts = (tensor[None, :, None, None] for tensor in (mean, variance, gain, bias))
        mean, variance, gain, bias = parts
        return (x - mean) / (variance + epsilon).sqrt() * gain + bias

    def attention(self, name: str, x: Tensor) -> Tensor:
        _, C, H, W = x.shape
        theta, phi, g = (self.conv(f"{name}.{part}", x) for part in ("theta", "phi", "g"))
        phi, g = (F.max_pool2d(tensor, 2).flatten(2)[0] for tensor in (phi, g))
        beta = torch.softmax(theta.flatten(2)[0].T @ phi, dim=-1)  # [HW, HW/4]
        attended = self.conv(f"{name}.o", (g @ beta.T).reshape(1, C // 2, H, W))
        return x + self.state[f"{name}.gamma"] * attended

    def image(self, latent: Tensor, blocks: Iterator[Callable[[Tensor], Tensor]], width: int) -> Tensor:
        h = self.weight("linear") @ latent + self.state["linear.bias"]
        size = math.isqrt(len(h) // width)
        h = h.reshape(1, width, size, size)
        for i, block in enumerate(blocks):
            h = block(h)
            if f"blocks.{i}.1.gamma" in self.state:
                h = self.attention(f"blocks.{i}.1", h)
        name = "output_layer.0"
        h = self.normalized(name, h, self.state[f"{name}.gain"], self.state[f"{name}.bias"], 1e-5)
        return torch.tanh(self.conv("output_layer.2", h.relu()))[0]

    def biggan(self, z: Tensor, label: int, chunk: int, widths: tuple[int, ...]) -> Tensor:
        embedding = self.state["shared.weight"][label] if "shared.weight" in self.state else torch.tensor(label)
        hierarchical = len(z) > chunk

        def block(h: Tensor, i: int) -> Tensor:
            name = f"blocks.{i}.0"
            y = torch.cat([embedding, z[chunk * (i + 1) : chunk * (i + 2)]]) if hierarchical else embedding
            a = self.conv(f"{name}.conv1", double(self.norm(f"{name}.bn1", h, y).relu()))
            a = self.conv(f"{name}.conv2", self.norm(f"{name}.bn2", a, y).relu())
            return a + self.conv(f"{name}.conv_sc", double(h))

        blocks = (lambda h, i=i: block(h, i) for i in range(len(widths) - 1))
        return self.image(z[:chunk], blocks, widths[0])

    def deep(self, z: Tensor, label: int, widths: tuple[int, ...], depth: int) -> Tensor:
        y = torch.cat([self.state["shared.weight"][label], z])

        def block(h: Tensor, i: int) -> Tensor:
            name = f"blocks.{i}.0"
            a = self.conv(f"{name}.conv1", self.norm(f"{name}.bn1", h, y).relu())
            a = self.norm(f"{name}.bn2", a, y).relu()
            shortcut = h[:, : widths[i + 1]]
            if i % depth == depth - 1:
                a, shortcut = double(a), double(shortcut)
            a = self.conv(f"{name}.conv2", a)
            a = self.conv(f"{name}.conv3", self.norm(f"{name}.bn3", a, y).relu())
            return self.conv(f"{name}.conv4", self.norm(f"{name}.bn4", a, y).relu()) + shortcut

        blocks = (lambda h, i=i: block(h, i) for i in range(len(widths) - 1))
        return self.image(y, blocks, widths[0])


def load(tmp_path: Path, state: State) -> sefa.Generator:
    torch.save(state, tmp_path / "weights.pth")
    return sefa.load(tmp_path / "weights.pth")


def draw(generator: sefa.Generator, z: Tensor, label: Tensor) -> Tensor:
    with torch.no_grad():
        return generator.decode(generator.encode(z, label))


@pytest.mark.parametrize(
    ("sizes", "epsilon"),
    [
        ({"widths": (16, 16, 8), "attentions": (0, 1), "bottom_width": 3, "channels": 1}, 1e-5),
        ({"widths": (12, 10, 8, 6), "chunk": 7, "classes": 1, "channels": 4, "converted": True}, 1e-4),
        ({"widths": (8, 16, 8), "norm": "{}.bn.stored_{}"}, 1e-5),
        ({"widths": (8, 8), "spectral": False}, 1e-5),
        ({"widths": (8, 6, 4), "hierarchical": False, "chunk": 9}, 1e-5),
        ({"widths": (8, 8, 8), "hierarchical": False, "shared": False, "classes": 8, "embed_dim": 8}, 1e-5),
        ({"widths": (8, 8, 8), "hierarchical": False, "shared": False, "classes": 5, "embed_dim": 5}, 1e-5),
    ],
    ids=["attention", "converted", "mybn", "plain", "not hierarchical", "as many classes as channels", "unshared"],
)
def test_biggan_is_its_formulas(tmp_path: Path, sizes: dict[str, Any], epsilon: float) -> None:
    state = draw_biggan(**sizes)
    generator = load(tmp_path, state)
    widths, chunk = sizes["widths"], sizes.get("chunk", 5)
    assert (generator.family, generator.checkpoint_format) == ("biggan", "BigGAN-PyTorch")
    assert generator.resolution == (sizes.get("bottom_width", 4) * 2 ** (len(widths) - 1),) * 2
    assert generator.z_dim == chunk * (len(widths) if sizes.get("hierarchical", True) else 1)
    z, label = latents(generator)
    formulas = Formulas(state, epsilon, sizes.get("norm", "{}.stored_{}"))
    for image, one, its in zip(draw(generator, z, label), z, label.tolist(), strict=True):
        torch.testing.assert_close(image.double(), formulas.biggan(one.double(), its, chunk, widths), atol=ATOL, rtol=0)


@pytest.mark.parametrize(
    ("sizes", "depth"),
    [
        ({"widths": (16, 16, 8, 8, 8), "attentions": (3,), "bottom_width": 2}, 2),
        ({"widths": (16, 16, 16, 8)}, 3),
        ({"widths": (8, 4)}, 1),
        ({"widths": (8,) * 4, "classes": 1}, 1),  # The widths of 32x32
        ({"widths": (8,) * 7}, 2),
        ({"widths": (8,) * 10}, 3),
        ({"widths": (8,) * 9}, 2),
    ],
    ids=["attention", "drop after three", "drop after one", "three", "six", "nine", "eight"],
)
def test_biggan_deep_is_its_formulas(tmp_path: Path, sizes: dict[str, Any], depth: int) -> None:
    state = draw_deep(**sizes)
    generator = load(tmp_path, state)
    widths = sizes["widths"]
    blocks = len(widths) - 1
    assert (generator.family, generator.num_layers) == ("biggan-deep", 1 + blocks)
    assert generator.resolution == (sizes.get("bottom_width", 4) * 2 ** (blocks // depth),) * 2
    z, label = latents(generator, 2)
    for image, one, its in zip(draw(generator, z, label), z, label.tolist(), strict=True):
        expected = Formulas(state).deep(one.double(), its, widths, depth)
        torch.testing.assert_close(image.double(), expected, atol=ATOL, rtol=0)


def test_hierarchical_codes_are_chunks_before_the_class(tmp_path: Path) -> None:
    state = draw_biggan((8, 8, 8))
    generator = load(tmp_path, state)
    z, label = latents(generator)
    codes = generator.encode(z, label)
    assert codes.shape == (3, 3, 5 + 4)
    assert torch.equal(codes[..., : generator.latent_dim].flatten(1), z)
    assert torch.equal(codes[:, 2, generator.latent_dim :], state["shared.weight"][label])


def test_a_direction_of_hierarchical_biggan_is_an_edit_of_z(tmp_path: Path) -> None:
    generator = load(tmp_path, draw_biggan((8, 8, 8)))
    z, label = latents(generator)
    bank = sefa.factorize(generator, top=12)
    for index in (0, 5, 11):
        parts = bank.edited_layers[index][:, None] * bank.vectors[index]
        assert parts[:, 5:].count_nonzero() == 0  # No direction changes the class.
        moved = draw(generator, z + 2 * parts[:, :5].flatten(), label)
        with torch.no_grad():
            edited = generator.decode(generator.encode(z, label) + 2 * parts)
        torch.testing.assert_close(edited, moved, atol=1e-6, rtol=0)
    assert sorted(set(bank.edited_layers.sum(dim=1).tolist())) == [1]


@pytest.mark.parametrize("deep", [False, True], ids=["biggan", "deep"])
def test_affines_are_the_normalised_weights(tmp_path: Path, deep: bool) -> None:
    state = draw_deep((8, 8, 4)) if deep else draw_biggan((8, 8, 4))
    generator = load(tmp_path, state)
    formulas = Formulas(state)
    latent, embed_dim = generator.latent_dim, 4
    norms = [f"bn{index}" for index in (range(1, 5) if deep else range(1, 3))]
    linear = formulas.weight("linear")
    expected = [linear[:, embed_dim:] if deep else linear]
    for i in range(2):
        rows = [formulas.weight(f"blocks.{i}.0.{norm}.{part}") for norm in norms for part in ("gain", "bias")]
        expected.append(torch.cat(rows)[:, embed_dim:])
    for affine, weight in zip(generator.affines(), expected, strict=True):
        assert affine.shape[1] == generator.code_dim
        ours, theirs = affine[:, :latent].double(), weight
        # The order of rows plays no part in directions.
        torch.testing.assert_close(ours.T @ ours, theirs.T @ theirs, atol=1e-5, rtol=1e-5)


def test_biggan_has_no_truncation(tmp_path: Path) -> None:
    generator = load(tmp_path, draw_biggan((8, 8)))
    z, label = latents(generator)
    with pytest.raises(ArgumentError, match="no truncation"):
        generator.encode(z, label, 0.5)
    with pytest.raises(ArgumentError, match=r"label in 0\.\.2"):
        generator.encode(z)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("blocks.1.0.bn2.gain.u0"), r"missing blocks\.1\.0\.bn2\.gain\.u0 for layers\.1\.bn2;"),
        (lambda state: state.pop("linear.weight"), r"missing linear\.weight"),
        (lambda state: state.pop("blocks.0.0.conv2.weight"), r"missing blocks\.0\.0\.conv2\.weight"),
        (lambda state: state.update(extra=state.pop("linear.bias")), r"missing linear\.bias .*not understood extra"),
        (lambda state: state.update({"output_layer.2.weight": torch.ones(3, 9, 3, 3)}), "wrong shape output_layer"),
        (lambda state: state.update({"linear.weight": torch.ones(40, 5)}), "no square image of 8 channels"),
        (lambda state: state.update({"linear.weight": torch.zeros(128, 5)}), "no spectral norm"),
        (lambda state: state.update({"shared.weight": torch.ones(3, 2)}), "bn1 reads 9 numbers"),
        (lambda state: state.update({"blocks.0.0.bn1.stored_var": -torch.ones(8)}), "negative variances"),
        (lambda state: state.update({"blocks.0.0.bn1.bn.running_mean": torch.ones(8)}), "cross-replica"),
        (lambda state: [state.pop(key) for key in [*state] if key.startswith("output")], "this is a discriminator"),
    ],
)
def test_what_is_wrong_with_a_biggan_is_said(tmp_path: Path, change: Callable[[State], Any], message: str) -> None:
    state = draw_biggan((8, 8, 8))
    change(state)
    with pytest.raises(CheckpointError, match=f"recognised as BigGAN-PyTorch, but .*{message}"):
        load(tmp_path, state)


def test_blocks_that_gain_channels_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="block 1 gives 16 channels of 8"):
        load(tmp_path, draw_deep((8, 8, 16)))
