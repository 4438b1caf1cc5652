"""Generators of the user's own, as users write them."""

import copy
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import sefa
import sefa_export
import sefa_runtime
from sefa import ArgumentError, CheckpointError
from sefa.custom import load_weights

D, CLASSES = 10, 4


class Mlp(nn.Module):
    """Linear layers on z [N, D]; grey, not square, with a label where asked for."""

    def __init__(self, label: str = "", first: Callable[[nn.Linear], nn.Module] = lambda layer: layer) -> None:
        super().__init__()
        self.label = label
        self.main = nn.Sequential(
            first(nn.Linear(D + (CLASSES if label else 0), 16)), nn.ReLU(inplace=True), nn.Linear(16, 32), nn.Tanh()
        )

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        if label is not None:
            if self.label != "onehot":
                label = F.one_hot(label, CLASSES).float()
            z = torch.cat([label, z] if self.label == "before" else [z, label], dim=1)
        x: Tensor = self.main(z)
        return x.view(-1, 1, 4, 8)


class Dcgan(nn.Module):
    """Transposed convolutions on z [N, D, 1, 1]."""

    def __init__(self, first: Callable[[nn.ConvTranspose2d], nn.Module] = lambda layer: layer) -> None:
        super().__init__()
        self.main = nn.Sequential(
            first(nn.ConvTranspose2d(D, 8, 4, 1, 0)), nn.BatchNorm2d(8), nn.ReLU(True),
            nn.ConvTranspose2d(8, 3, 4, 2, 1), nn.Sigmoid(),
        )  # fmt: skip

    def forward(self, z: Tensor) -> Tensor:
        x: Tensor = self.main(z)
        return x


class EqualLinear(nn.Module):
    """A layer of the user's own kind."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(48, D) * 100)
        self.bias = nn.Parameter(torch.zeros(48))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight * 0.01, self.bias)


class First(nn.Module):
    """One layer, and what is done to z before it."""

    def __init__(self, layer: nn.Module, before: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.first = layer
        self.before = before

    def forward(self, z: Tensor) -> Any:
        y = torch.tanh(self.first(self.before(z)))
        return y.reshape(len(z), 3, 4, -1), "and something else"


class Scripted(nn.Module):
    """Control flow that only torch.jit.script keeps."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(D, 48)
        self.rest = nn.ModuleList([nn.Linear(48, 48) for _ in range(2)])

    def forward(self, z: Tensor) -> Tensor:
        x = self.first(z)
        if bool(x.abs().max() > 1e6):
            x = torch.zeros_like(x)
        for layer in self.rest:
            x = torch.relu(layer(x))
        return torch.tanh(x).view(-1, 3, 4, 4)


def trained(module: nn.Module, *inputs: Tensor) -> nn.Module:
    """As training leaves it: statistics, norms and gradients that are not those of a fresh module."""
    for _ in range(3):
        module(*inputs).square().sum().backward()
    for parameter in module.parameters():
        parameter.data.add_(parameter.grad, alpha=-0.01)  # type: ignore[arg-type]
    return module.eval()


def old(norm: Callable[..., Any]) -> Callable[[nn.Module], nn.Module]:
    """torch deprecates its old norms; checkpoints of their time do not."""

    def apply(layer: nn.Module) -> nn.Module:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            return norm(layer)  # type: ignore[no-any-return]

    return apply


NORMS: dict[str, Callable[[Any], nn.Module]] = {
    "spectral_norm": old(nn.utils.spectral_norm),
    "weight_norm": old(nn.utils.weight_norm),
    "parametrized spectral_norm": nn.utils.parametrizations.spectral_norm,
    "parametrized weight_norm": nn.utils.parametrizations.weight_norm,
}


def flat(z: Tensor) -> Tensor:
    return z


def image(z: Tensor) -> Tensor:
    return z[:, :, None, None]


def line(z: Tensor) -> Tensor:
    return z[:, :, None]


Build = Callable[[], nn.Module]
# What users write: a module, its layer that reads the latent, and the options that it needs.
UNCONDITIONAL: dict[str, tuple[Build, str]] = {
    "Linear": (Mlp, "main.0"),
    "ConvTranspose2d": (Dcgan, "main.0"),
    "ConvTranspose2d, cropped": (lambda: First(nn.ConvTranspose2d(D, 3, 6, 1, 1), image), "first"),
    "ConvTranspose1d": (lambda: First(nn.ConvTranspose1d(D, 12, 4), line), "first"),
    "Conv2d": (lambda: First(nn.Conv2d(D, 48, 3, padding=1), image), "first"),
    "Conv1d": (lambda: First(nn.Conv1d(D, 48, 1), line), "first"),
    "a layer of another kind": (lambda: First(EqualLinear(), flat), "first"),
    "a part of z": (lambda: First(nn.Linear(4, 48), lambda z: z[:, 3:7]), "first"),
    "z in another scale and order": (lambda: First(nn.Linear(D, 48), lambda z: 0.5 * z.flip(1) + 1), "first"),
    **{f"{name} of a Linear": (partial(Mlp, first=norm), "main.0") for name, norm in NORMS.items()},
    **{f"{name} of a convolution": (partial(Dcgan, norm), "main.0") for name, norm in NORMS.items()},
}  # fmt: skip
CONDITIONAL: dict[str, tuple[str, Tensor]] = {
    "behind": ("index", torch.tensor([2])),
    "before": ("index", torch.tensor([1])),
    "onehot": ("onehot", torch.tensor([[0.0, 1.0, 0.0, 0.0]])),
}


def z_of(module: nn.Module, count: int = 1) -> Tensor:
    z = torch.randn(count, D, generator=torch.Generator().manual_seed(3))
    return z[:, :, None, None] if isinstance(module, Dcgan) else z


def jacobian(module: nn.Module, layer: str, *inputs: Tensor) -> Tensor:
    """dy/dz of the layer's output, by autograd, with the module as it is in inference: [out, D]."""
    outputs: list[Tensor] = []
    handle = module.get_submodule(layer).register_forward_hook(lambda _, __, output: outputs.append(output.clone()))

    def output_of(z: Tensor) -> Tensor:
        outputs.clear()
        module(z, *inputs[1:])
        return outputs[0].flatten()

    found = torch.autograd.functional.jacobian(output_of, inputs[0])  # type: ignore[no-untyped-call]
    handle.remove()
    assert isinstance(found, Tensor)
    return found.reshape(len(found), -1)


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("name", UNCONDITIONAL)
def test_the_affine_is_the_jacobian_of_the_layer(name: str) -> None:
    build, layer = UNCONDITIONAL[name]
    module = build()
    if "norm" in name:
        trained(module, z_of(module, 6))
    generator = sefa.wrap(module, latent_dim=D, layers=[layer])
    torch.testing.assert_close(generator.affines()[0], jacobian(module.eval(), layer, z_of(module)), atol=1e-6, rtol=0)


@pytest.mark.parametrize("label", CONDITIONAL)
def test_the_class_is_no_part_of_the_affine(label: str) -> None:
    module = Mlp(label).eval()
    form, value = CONDITIONAL[label]
    generator = sefa.wrap(module, latent_dim=D, layers=["main.0"], num_classes=CLASSES, label_format=form)
    (A,) = generator.affines()
    torch.testing.assert_close(A[:, :D], jacobian(module, "main.0", z_of(module), value), atol=1e-6, rtol=0)
    assert not A[:, D:].any()
    assert (generator.latent_dim, generator.code_dim, generator.num_classes) == (D, D + CLASSES, CLASSES)


@pytest.mark.parametrize("name", ["Linear", "ConvTranspose2d", *(name for name in UNCONDITIONAL if "norm" in name)])
def test_torchscript_has_the_affine_of_what_was_traced(name: str) -> None:
    build, layer = UNCONDITIONAL[name]
    module = build()
    generator = sefa.wrap(traced(module), latent_dim=D, layers=[layer])
    torch.testing.assert_close(generator.affines()[0], jacobian(module, layer, z_of(module)), atol=1e-6, rtol=0)


@pytest.mark.parametrize("label", ["behind", "before"])
def test_torchscript_finds_the_latent_beside_the_label(label: str) -> None:
    module = Mlp(label).eval()
    script = trace(module, z_of(module, 3), torch.tensor([0, 1, 2]))
    generator = sefa.wrap(script, latent_dim=D, layers=["main.0"], num_classes=CLASSES)
    expected = jacobian(module, "main.0", z_of(module), torch.tensor([2]))
    torch.testing.assert_close(generator.affines()[0][:, :D], expected, atol=1e-6, rtol=0)


def trace(module: nn.Module, *inputs: Tensor) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch advises torch.export.
        found = torch.jit.trace(module, inputs, check_trace=False)  # type: ignore[no-untyped-call]
        assert isinstance(found, nn.Module)
        return found


def traced(module: nn.Module) -> nn.Module:
    return trace(trained(module, z_of(module, 6)), z_of(module, 3))


def script(module: nn.Module) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.script(module)


@pytest.mark.parametrize("wrapper", [lambda module: module, script])
def test_behind_a_normalised_latent_the_layers_own_weight_is_taken(wrapper: Callable[[nn.Module], nn.Module]) -> None:
    class Normalised(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(D, 48)

        def forward(self, z: Tensor) -> Tensor:
            z = z / z.square().mean(1, keepdim=True).sqrt()
            return torch.tanh(self.first(z)).view(-1, 3, 4, 4)

    module = Normalised()
    generator = sefa.wrap(wrapper(module), latent_dim=D, layers=["first"])
    torch.testing.assert_close(generator.affines()[0], module.first.weight.detach(), atol=1e-6, rtol=0)


def test_several_layers_are_stacked() -> None:
    class TwoReaders(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.shape, self.colour = nn.Linear(D, 16), nn.Linear(D, 3)

        def forward(self, z: Tensor) -> Tensor:
            image = self.shape(z).view(-1, 1, 4, 4) * self.colour(z)[:, :, None, None]
            return torch.tanh(image)

    module = TwoReaders()
    generator = sefa.wrap(module, latent_dim=D, layers=["shape", "colour"])
    weight = torch.cat([module.shape.weight, module.colour.weight]).detach()
    torch.testing.assert_close(generator.affines()[0], weight, atol=1e-6, rtol=0)
    bank = sefa.factorize(generator)
    cosines = (bank.vectors.double() @ torch.linalg.svd(weight.double())[2].T).abs().diagonal()
    torch.testing.assert_close(cosines, torch.ones(D, dtype=torch.float64))


@pytest.mark.parametrize("name", ["Linear", "ConvTranspose2d", "weight_norm of a Linear", "spectral_norm of a Linear"])
def test_images_are_the_modules_own_and_the_module_is_left_alone(name: str) -> None:
    build, layer = UNCONDITIONAL[name]
    module = trained(build(), z_of(build(), 6))
    before = copy.deepcopy({key: value.detach() for key, value in module.state_dict().items()})
    module.train()
    generator = sefa.wrap(module, latent_dim=D, layers=[layer])
    assert module.training
    assert module.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())
    z = torch.randn(4, D)
    with torch.no_grad():
        expected = module.eval()(z.reshape(z_of(module, 4).shape))
        image = generator.decode(generator.encode(z))
    torch.testing.assert_close(image, expected, atol=1e-6, rtol=0)
    assert image.shape == (4, generator.channels, *generator.resolution)


def test_labels_reach_the_module_in_the_form_it_takes() -> None:
    for name, (form, _) in CONDITIONAL.items():
        module = Mlp(name).eval()
        generator = sefa.wrap(module, latent_dim=D, layers=["main.0"], num_classes=CLASSES, label_format=form)
        z, label = torch.randn(3, D), torch.tensor([3, 0, 3])
        with torch.no_grad():
            expected = module(z, F.one_hot(label, CLASSES).float() if form == "onehot" else label)
            torch.testing.assert_close(generator.decode(generator.encode(z, label)), expected)


def test_a_sigmoids_range_is_brought_to_ours() -> None:
    module = Dcgan().eval()
    generator = sefa.wrap(module, latent_dim=D, layers=["main.0"], image_range=(0, 1))
    z = torch.randn(2, D)
    with torch.no_grad():
        expected = 2 * module(z[:, :, None, None]) - 1
        torch.testing.assert_close(generator.decode(generator.encode(z)), expected)


class Random(Mlp):
    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        return super().forward(z + torch.randn_like(z))


class Batched(Mlp):
    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        return super().forward(z - z.mean(dim=0))


class Flat(Mlp):
    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        return super().forward(z).flatten(1)


class Broken(Mlp):
    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        raise KeyError("no table")


@pytest.mark.parametrize(
    ("module", "options", "message"),
    [
        (Mlp, {}, r"a torch\.nn\.Module was expected, got the class Mlp"),
        (Mlp(), {"layers": ["main.9"]}, r"no layer 'main\.9'; those with a weight are main\.0, main\.2"),
        (Mlp(), {"layers": ["main.1"]}, r"layer 'main\.1' \(ReLU\) has no weight matrix"),
        (Dcgan(), {"layers": ["main.1"]}, r"layer 'main\.1' \(BatchNorm2d\) has no weight matrix"),
        (Mlp(), {"layers": ["main.2"]}, r"it reads what 'main\.1' \(ReLU\) gives, .* those that read z are main\.0$"),
        (Mlp(), {"layers": "main.0"}, "layers must be a list"),
        (Mlp(), {"latent_dim": 9}, r"Mlp cannot be called for z \[3, 9\].*: RuntimeError: .*mat1 .*needs the number"),
        (Mlp(), {"latent_dim": 0}, "latent_dim must be a positive integer, got 0"),
        (Mlp("behind"), {"label_format": "word", "num_classes": 4}, "label_format must be index or onehot, got 'word'"),
        (Mlp(), {"image_range": (1, 0)}, r"image_range must be two numbers from low to high, got \(1, 0\)"),
        (Random(), {}, r"Random draws random numbers: torch's randn_like at test_wrapping\.py:\d+; make"),
        (Batched(), {}, "Batched's images depend on what else is in the batch"),
        (Flat(), {}, r"Flat gives float32 \[3, 32\] for 3 latents; images \[N, C, H, W\] were expected"),
        (Broken(), {}, r"Broken cannot be called for z \[3, 10\] or .*: KeyError: 'no table'"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_told(module: Any, options: dict[str, Any], message: str) -> None:
    options = dict[str, Any](latent_dim=D, layers=["main.0"]) | options
    with pytest.raises(ArgumentError, match=message) as error:
        sefa.wrap(module, **options)
    assert "\n" not in str(error.value)


def test_a_layer_that_reads_the_label_alone_is_refused() -> None:
    class Embedded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.embed = nn.Linear(D, 12), nn.Linear(CLASSES, 12)

        def forward(self, z: Tensor, label: Tensor) -> Tensor:
            return torch.tanh(self.first(z) + self.embed(label)).view(-1, 3, 2, 2)

    options: dict[str, Any] = {"latent_dim": D, "num_classes": CLASSES, "label_format": "onehot"}
    sefa.wrap(Embedded(), layers=["first"], **options)
    with pytest.raises(ArgumentError, match=r"layer 'embed' \(Linear\) reads nothing of the latent"):
        sefa.wrap(Embedded(), layers=["embed"], **options)


def exported(module: nn.Module, layer: str, folder: Path, **options: Any) -> tuple[sefa.Generator, Path]:
    generator = sefa.wrap(module, latent_dim=D, layers=[layer], **options)
    path = folder / "model.onnx"
    return generator, sefa_export.export_onnx(generator, sefa.factorize(generator), path, "float32")


def check(generator: sefa.Generator, path: Path) -> None:
    """The file gives PyTorch's edited images, on inputs that no verification has seen."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    random = torch.Generator().manual_seed(99)
    z, alpha = torch.randn(5, D, generator=random), torch.randn(5, 1, generator=random)
    label = torch.tensor([0, 3, 1, 1, 2]) if generator.num_classes else None
    feeds = {"z": z, "direction": torch.tensor([[0], [1], [2], [3], [4]]), "alpha": alpha}
    if label is not None:
        feeds["label"] = label
    (actual,) = session.run(None, {key: value.numpy() for key, value in feeds.items()})
    vectors = sefa.factorize(generator).vectors[:5]
    with torch.no_grad():
        expected = generator.decode(generator.encode(z, label) + (alpha * vectors)[:, None])
    torch.testing.assert_close(torch.from_numpy(actual), expected, atol=1e-4, rtol=0)
    shape = [axis if isinstance(axis, int) else "free" for axis in session.get_outputs()[0].shape]
    assert shape == ["free", generator.channels, *generator.resolution]


@pytest.mark.parametrize("label", ["behind", "onehot"])
def test_conditional_modules_are_exported(tmp_path: Path, label: str) -> None:
    options: dict[str, Any] = {"num_classes": CLASSES, "label_format": CONDITIONAL[label][0]}
    check(*exported(Mlp(label), "main.0", tmp_path, **options))


def test_python_that_depends_on_values_is_exported_by_tracing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    generator, path = exported(Scripted(), "first", tmp_path)
    check(generator, path)
    assert len(sefa_runtime.load(path, "cpu").info.directions) == D
    assert "vectors" in {tensor.name for tensor in onnx.load(path).graph.initializer}
    assert capfd.readouterr() == ("", "")


def test_python_that_depends_on_values_and_matters_is_refused(tmp_path: Path) -> None:
    class Branching(Scripted):
        def forward(self, z: Tensor) -> Tensor:
            images = [super(Branching, self).forward(one[None]) * (1 if one[0] > 0 else -1) for one in z]
            return torch.cat(images)

    with pytest.raises(sefa_export.ExportError):
        exported(Branching(), "first", tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("build", "layer"),
    [
        (lambda: script(Scripted()), "first"),
        (lambda: traced(Dcgan(NORMS["parametrized spectral_norm"])), "main.0"),
        (lambda: traced(Mlp(first=NORMS["weight_norm"])), "main.0"),
    ],
)  # fmt: skip
def test_torchscript_is_exported(tmp_path: Path, build: Build, layer: str) -> None:
    check(*exported(build(), layer, tmp_path))


@pytest.mark.parametrize("build", [Scripted, lambda: script(Scripted())])
def test_what_torch_export_does_not_take_cannot_be_pt2(
    tmp_path: Path, build: Build, capfd: pytest.CaptureFixture[str]
) -> None:
    generator = sefa.wrap(build(), latent_dim=D, layers=["first"])
    with pytest.raises(sefa_export.ExportError, match=r"torch\.export does not take .* torchscript"):
        sefa_export.export_pt2(generator, sefa.factorize(generator), tmp_path / "model.pt2")
    assert capfd.readouterr() == ("", "")
    assert not list(tmp_path.iterdir())


def test_torchscript_in_half_precision(tmp_path: Path) -> None:
    generator = sefa.wrap(traced(Dcgan()), latent_dim=D, layers=["main.0"], image_range=(0, 1))
    path = tmp_path / "model.onnx"
    sefa_export.export_onnx(generator, sefa.factorize(generator), path, precision="fp16")
    types = {tensor.data_type for tensor in onnx.load(path).graph.initializer if len(tensor.dims) == 4}
    assert types == {onnx.TensorProto.FLOAT16}


def test_torchscript_is_exported_to_torchscript(tmp_path: Path) -> None:
    module = Mlp("behind").eval()
    archive = trace(module, z_of(module, 3), torch.tensor([0, 1, 2]))
    generator = sefa.wrap(archive, latent_dim=D, layers=["main.0"], num_classes=CLASSES)
    path = sefa_export.export_torchscript(generator, sefa.factorize(generator), tmp_path / "model.ts", "float32")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loaded = torch.jit.load(path)  # type: ignore[no-untyped-call]
    z, label = torch.randn(2, D), torch.tensor([3, 1])
    with torch.no_grad():
        image = loaded(z=z, direction=torch.zeros(2, 0).long(), alpha=torch.zeros(2, 0), label=label)
        torch.testing.assert_close(image, module(z, label), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "content",
    [
        lambda state: state,
        lambda state: {"gen": state, "disc": {"a": torch.ones(1)}, "epoch": 3},
        lambda state: {"state_dict": {f"a.gen.{key}": value for key, value in state.items()} | {"d.a": torch.ones(1)}},
        lambda state: {f"module.{key}": value for key, value in state.items()},
        lambda state: {"gen": {key: value * 0 for key, value in state.items()}, "gen_ema": state},
        lambda state: {key: value.double() for key, value in state.items()},
    ],
)  # fmt: skip
def test_weights_are_found_wherever_a_training_script_put_them(
    tmp_path: Path, content: Callable[[dict[str, Tensor]], Any]
) -> None:
    state = Mlp().state_dict()
    torch.save(content(state), tmp_path / "w.pth")
    torch.manual_seed(9)
    module = Mlp()
    load_weights(module, tmp_path / "w.pth")
    for key, value in module.state_dict().items():
        torch.testing.assert_close(value, state[key])


@pytest.mark.parametrize(
    ("change", "messages"),
    [
        (lambda state: state.pop("main.2.bias"), [r"missing main\.2\.bias"]),
        (lambda state: state.update(extra=torch.ones(1)), ["unexpected extra"]),
        (
            lambda state: state.update({"main.0.weight": torch.ones(3, 3), "b": state.pop("main.0.bias")}),
            [r"missing main\.0\.bias", "unexpected b", r"main\.0\.weight \[3, 3\] where \[16, 10\] was expected"],
        ),
    ],
)
def test_weights_that_do_not_fit_are_listed(
    tmp_path: Path, change: Callable[[dict[str, Tensor]], object], messages: Sequence[str]
) -> None:
    state = Mlp().state_dict()
    change(state)
    torch.save({"gen": state}, tmp_path / "w.pth")
    for message in messages:
        with pytest.raises(CheckpointError, match=rf"w\.pth: its weights do not fit Mlp: .*{message}"):
            load_weights(Mlp(), tmp_path / "w.pth")
