from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import sefa
from sefa import ArgumentError, CheckpointError
from sefa.checkpoints.formats.dcgan import build


def trained(*layers: nn.Module) -> nn.Sequential:
    """A generator as a training script would define it, with statistics as after some training."""
    torch.manual_seed(0)
    model = nn.Sequential(*layers)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None:
            if module.affine:
                nn.init.normal_(module.weight)
                nn.init.normal_(module.bias)
            assert module.running_var is not None
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    return model.eval()


def up(
    inputs: int, outputs: int, kernel: int = 4, stride: int = 2, padding: int = 1, more: int = 0, bias: bool = False
) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(inputs, outputs, kernel, stride, padding, more, bias=bias)


def first(outputs: int, kernel: int = 4, inputs: int = 10) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(inputs, outputs, kernel, 1, 0, bias=False)


def norm(channels: int, activation: nn.Module | None = None) -> list[nn.Module]:
    return [nn.BatchNorm2d(channels), activation or nn.ReLU()]


def plain(inputs: int, outputs: int, kernel: int = 3) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, 1, kernel // 2)


def larger(mode: str = "nearest") -> nn.Upsample:
    return nn.Upsample(scale_factor=2, mode=mode)


# Variants met in public repositories, each as its author would write it, and what has to be told of them.
VARIANTS: dict[str, tuple[nn.Sequential, dict[str, Any]]] = {
    "the PyTorch example, small": (trained(first(8), *norm(8), up(8, 6), *norm(6), up(6, 3), nn.Tanh()), {}),
    "grey, two layers": (
        trained(nn.ConvTranspose2d(7, 5, 7, 1, 0), nn.ReLU(), up(5, 1, bias=True), nn.Tanh()), {}
    ),
    "one layer": (trained(nn.ConvTranspose2d(4, 3, 8, 1, 0), nn.Tanh()), {}),
    "dropout between, as omniart's": (
        trained(first(8), *norm(8), nn.Dropout(0.5), up(8, 6), *norm(6), nn.Dropout(0.5), up(6, 3), nn.Tanh()), {}
    ),
    "not square": (
        trained(nn.ConvTranspose2d(10, 8, (4, 2), 1, 0, bias=False), *norm(8), up(8, 3), nn.Tanh()), {}
    ),
    "kernel 2": (trained(first(8), *norm(8), up(8, 3, 2, 2, 0), nn.Tanh()), {}),
    "nothing between": (trained(first(8), up(8, 6), up(6, 3), nn.Tanh()), {}),
    "norms without an activation": (
        trained(first(8), nn.BatchNorm2d(8), up(8, 6), nn.BatchNorm2d(6), up(6, 3), nn.Tanh()), {}
    ),
    "activation before the norm": (
        trained(first(8), nn.ReLU(), nn.BatchNorm2d(8), up(8, 6), nn.ReLU(), nn.BatchNorm2d(6), up(6, 3), nn.Tanh()), {}
    ),
    "a norm at the end": (trained(first(8), *norm(8), up(8, 3), nn.BatchNorm2d(3), nn.Tanh()), {}),
    "norms without weights": (
        trained(first(8), nn.BatchNorm2d(8, affine=False), nn.ReLU(), up(8, 3), nn.Tanh()), {}
    ),
    "nested": (
        trained(nn.Sequential(first(8), *norm(8)), nn.Sequential(up(8, 6), *norm(6)), up(6, 3), nn.Tanh()), {}
    ),
    "nested, with upsampling": (
        trained(first(8), *norm(8), nn.Sequential(larger(), plain(8, 6), *norm(6)),
                nn.Sequential(larger(), plain(6, 3), nn.Tanh())), {}
    ),
    "widths that tell nothing, even kernels": (
        trained(first(6), *norm(6), up(6, 6), *norm(6), up(6, 3), nn.Tanh()), {}
    ),
    "resize and convolve": (
        trained(first(6), *norm(6), larger(), plain(6, 6), *norm(6), larger(), plain(6, 3), nn.Tanh()), {}
    ),
    "resize and convolve, bilinear": (
        trained(first(6), *norm(6), larger("bilinear"), plain(6, 5), *norm(5), larger("bilinear"), plain(5, 3),
                nn.Tanh()),
        {"upsample": "bilinear"},
    ),
    "a plain convolution behind each transposed": (
        trained(first(6), *norm(6), up(6, 5), *norm(5), plain(5, 4), *norm(4), up(4, 3), nn.Tanh()), {}
    ),
    "the same, widths that tell nothing": (
        trained(first(6), *norm(6), up(6, 6), *norm(6), plain(6, 6), *norm(6), plain(6, 6), *norm(6), up(6, 3),
                nn.Tanh()),
        {"convs": ["transposed", "transposed", "plain", "plain", "transposed"]},
    ),
    "a last layer of kernel 3 and stride 1": (
        trained(first(8), *norm(8), up(8, 6), *norm(6), up(6, 3, 3, 1), nn.Tanh()), {"stride": "1,2,1"}
    ),
    "28x28": (
        trained(first(8), *norm(8), up(8, 6, 3), *norm(6), up(6, 5), *norm(5), up(5, 1), nn.Tanh()),
        {"stride": "1,2,2,2", "output_padding": 0},
    ),
    "28x28 without padding": (
        trained(first(8, 3), *norm(8), up(8, 6, 4, 1, 0), *norm(6), up(6, 5, 3, 2, 0), *norm(5), up(5, 1, 4, 2, 0),
                nn.Tanh()),
        {"stride": [1, 1, 2, 2], "padding": 0},
    ),
    "stride 4": (trained(first(8), *norm(8), up(8, 3, 8, 4, 2), nn.Tanh()), {"stride": "1,4"}),
    "stride 4, kernel 4": (trained(first(8), *norm(8), up(8, 3, 4, 4, 0), nn.Tanh()), {"stride": "1,4"}),
    "kernel 5": (trained(first(8), *norm(8), up(8, 3, 5, 2, 2, 1), nn.Tanh()), {"stride": 2}),
    "kernel 3 with bias": (trained(first(8), *norm(8), up(8, 3, 3, 2, 1, 1, bias=True), nn.Tanh()), {"stride": 2}),
    "kernels 2 and 6, RGBA": (
        trained(first(8, 3), *norm(8), up(8, 6, 2, 2, 0), *norm(6), up(6, 4, 6, 2, 2), nn.Tanh()), {"stride": 2}
    ),
    "z padded": (trained(up(10, 8), *norm(8), up(8, 6), *norm(6), up(6, 3), nn.Tanh()), {"stride": 2, "padding": 1}),
    "LeakyReLU": (
        trained(first(8), *norm(8, nn.LeakyReLU(0.2)), up(8, 3), nn.Tanh()), {"activation": "leaky_relu:0.2"}
    ),
    "several activations": (
        trained(first(8), *norm(8, nn.ELU()), up(8, 6), *norm(6, nn.SiLU()), up(6, 3), nn.Tanh()),
        {"activation": ["elu", "silu"]},
    ),
    "nothing at the end": (trained(first(8), *norm(8), up(8, 3)), {"output": "none"}),
    "another epsilon": (
        trained(first(8), nn.BatchNorm2d(8, eps=0.1), nn.ReLU(), up(8, 3), nn.Tanh()), {"bn_eps": 0.1}
    ),
}  # fmt: skip


def saved(path: Path, state: dict[str, Tensor]) -> Path:
    torch.save(state, path)
    return path


def under_main(model: nn.Module) -> dict[str, Tensor]:
    return {f"main.{key}": value for key, value in model.state_dict().items()}


@pytest.mark.parametrize("name", VARIANTS)
def test_images_are_those_of_the_users_own_module(tmp_path: Path, name: str) -> None:
    model, told = VARIANTS[name]
    generator = sefa.load(saved(tmp_path / "netG.pth", under_main(model)), assume=told)
    z = torch.randn(3, generator.z_dim, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = model(z[:, :, None, None])
        image = generator.decode(generator.encode(z))
    torch.testing.assert_close(image, expected, atol=1e-6, rtol=0)
    assert image.shape == (3, generator.channels, *generator.resolution)
    # A is the first layer's matrix, whatever it does at the borders.
    first_layer = next(module for module in model.modules() if isinstance(module, nn.ConvTranspose2d))
    with torch.no_grad():
        y = first_layer(z[:, :, None, None]).flatten(1)
        if first_layer.bias is not None:
            y = y - first_layer(torch.zeros(1, generator.z_dim, 1, 1)).flatten(1)
    torch.testing.assert_close(z @ generator.affines()[0].T, y, atol=1e-5, rtol=0)


def test_a_sigmoids_images_go_from_black_to_white(tmp_path: Path) -> None:
    model = trained(first(8), *norm(8), up(8, 3), nn.Sigmoid())
    generator = sefa.load(saved(tmp_path / "netG.pth", under_main(model)), assume={"output": "sigmoid"})
    z = torch.randn(3, 10, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = 2 * model(z[:, :, None, None]) - 1
        torch.testing.assert_close(generator.decode(generator.encode(z)), expected, atol=1e-6, rtol=0)


def test_what_no_tensor_tells_is_said(tmp_path: Path) -> None:
    model, _ = VARIANTS["the PyTorch example, small"]
    path = saved(tmp_path / "netG.pth", under_main(model))
    usual = (
        "stride 2 everywhere", "ReLU between", "batch norms' eps 1e-05", "z as a 1x1 image", "tanh at the end",
        "no label after z",
    )  # fmt: skip
    assert sefa.load(path).assumptions == usual
    told = sefa.load(path, num_classes=3, assume={"activation": "leaky_relu:0.2", "output": "sigmoid"}).assumptions
    assert "leaky_relu:0.2 between (as told)" in told
    assert "sigmoid at the end (as told)" in told
    assert "a one-hot label of 3 classes after z (as told)" in told
    resized, _ = VARIANTS["resize and convolve"]
    said = sefa.load(saved(tmp_path / "resized.pth", under_main(resized))).assumptions
    assert "nearest upsampling x2 before layers 4, 8" in said
    assert "of convolutions with as many inputs as outputs, layer 4 plain" in said


@pytest.mark.parametrize(
    ("name", "told", "message"),
    [
        (
            "a last layer of kernel 3 and stride 1",
            {},
            r"layer 6's kernel, 3x3, .* --assume stride=1,2,1 .*MODULE:CLASS",
        ),
        ("28x28", {}, r"layer 3's kernel, 3x3, .*--assume stride="),
        ("kernel 5", {}, r"layer 3's kernel, 5x5, .*--assume stride="),
        ("stride 4", {}, r"layer 3's kernel, 8x8, .*--assume stride="),
        ("28x28 without padding", {"stride": "1,1,2,2"}, r"layer 3's kernel, 4x4, cannot multiply .*padding"),
        (
            "the same, widths that tell nothing",
            {},
            r"layer 6, 3x3 with as many inputs as outputs, may be a Conv2d or a ConvTranspose2d.*--assume convs=",
        ),
    ],
)
def test_where_a_guess_is_likely_wrong_the_owner_is_asked(
    tmp_path: Path, name: str, told: dict[str, Any], message: str
) -> None:
    with pytest.raises(CheckpointError, match=message):
        sefa.load(saved(tmp_path / "netG.pth", under_main(VARIANTS[name][0])), assume=told)


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({"stride": "1,2"}, r"stride=1,2: one value for all, or 3 were expected"),
        ({"stride": "fast"}, "stride=fast: small integers were expected"),
        ({"stride": "1,2,0"}, "stride=1,2,0: small integers were expected, above 0"),
        ({"activation": "leaky"}, "activation=leaky: one of relu, .*, leaky_relu:SLOPE was expected"),
        ({"activation": "relu:0.2"}, "activation=relu:0.2: one of relu, "),
        ({"output": "softmax"}, "output=softmax: one of tanh, sigmoid, none was expected"),
        ({"convs": "transposed,plain,plain"}, "layer 3's shape is that of the other kind"),
        ({"bn_eps": -1}, "bn_eps=-1: a positive number was expected"),
        ({"upsampling": "nearest"}, "no fact 'upsampling' is assumed of it: what can be told is convs, stride, "),
    ],
)
def test_what_is_told_and_cannot_be_is_refused(tmp_path: Path, told: dict[str, Any], message: str) -> None:
    path = saved(tmp_path / "netG.pth", under_main(VARIANTS["the PyTorch example, small"][0]))
    with pytest.raises(ArgumentError, match=message):
        sefa.load(path, assume=told)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([first(8), *norm(8), nn.Dropout(), nn.Identity(), up(8, 3)], "3 layers without weights stand between layers"),
        ([first(8), nn.ReLU(), nn.BatchNorm2d(8), nn.Dropout(), up(8, 3)], "2 layers without weights stand between"),
        (
            [first(8), nn.InstanceNorm2d(8, affine=True), nn.ReLU(), up(8, 3)],
            r"as a PReLU, an InstanceNorm2d.*MODULE:CL",
        ),
        (
            [first(8), nn.BatchNorm2d(8, track_running_stats=False), nn.ReLU(), up(8, 3)],
            "as a PReLU, an InstanceNorm2d",
        ),
        ([first(8), *norm(8), up(8, 3), nn.ReLU(), nn.BatchNorm2d(3)], "without weights stands before layer 5"),
        ([plain(10, 8), *norm(8), larger(), plain(8, 3)], "plain from the first on, of 10 channels: how a latent"),
        (
            [first(8), *norm(8), *[up(8, 8, 4, 4, 0) for _ in range(7)], up(8, 3)],
            "would give images of 65536x65536 pixels",
        ),
    ],
)
def test_what_cannot_be_told_from_the_numbering_is_refused(
    tmp_path: Path, layers: list[nn.Module], message: str
) -> None:
    told = {"stride": 4} if len(layers) > 9 else {}
    with pytest.raises(CheckpointError, match=message):
        sefa.load(saved(tmp_path / "netG.pth", under_main(trained(*layers))), assume=told)


def test_depth_sets_the_resolution() -> None:
    generator = build(
        trained(first(4), *[up(4, 4, bias=True) for _ in range(5)], up(4, 3, bias=True), nn.Tanh()).state_dict()
    )
    assert generator.resolution == (256, 256)
    assert generator.decode(generator.encode(torch.zeros(1, 10))).shape == (1, 3, 256, 256)


def test_images_are_those_recorded_from_the_original(golden: Path) -> None:
    generator = sefa.load(golden / "checkpoints/dcgan_small_64/netG.pth")
    with np.load(golden / "checkpoints/dcgan_small_64/golden.npz") as recorded, torch.no_grad():
        z = torch.from_numpy(recorded["z"])
        image = generator.decode(generator.encode(z)).numpy()
        np.testing.assert_allclose(image[: len(recorded["img"])], recorded["img"], atol=1e-4)
        # Edits: alpha along a direction, added to the raw latent.
        top, bottom, left, right = recorded["crop_box"]
        base = z[torch.from_numpy(recorded["edit_batch"])]
        for index, alpha, expected in zip(
            recorded["edit_index__layer0"], recorded["edit_alpha"], recorded["imgcrop_edit__layer0"], strict=True
        ):
            n = torch.from_numpy(recorded["dirs__layer0"][index])
            edited = generator.decode(generator.encode(base) + float(alpha) * n).numpy()
            np.testing.assert_allclose(edited[:, :, top:bottom, left:right], expected, atol=1e-4)


def test_the_first_transform_is_the_affine() -> None:
    generator = build(VARIANTS["not square"][0].state_dict())
    z = torch.randn(2, 10, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        y = generator.first(z[:, :, None, None])  # [2, 8, 4, 2]
    torch.testing.assert_close(y.flatten(1), z @ generator.affines()[0].T, atol=1e-6, rtol=0)


def weights(**shapes: tuple[int, ...]) -> dict[str, Tensor]:
    """`main_0_weight=(…)` to a state dict of ones."""
    return {name.replace("__", "."): torch.ones(shape) for name, shape in shapes.items()}


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        (
            weights(main__0__weight=(9, 8, 4, 4), main__2__weight=(7, 3, 4, 4)),
            r"do not fit together: weights of shapes \[\[9, 8, 4, 4\], \[7, 3, 4, 4\]\]",
        ),
        (weights(main__0__weight=(9, 8, 4, 4), main__0__bias=(7,)), r"8 channels has a bias of shape \[7\]"),
        (weights(main__0__weight=(9, 8, 4, 4), main__1__weight=(8,), main__1__bias=(8,)), "layer 1 has weight"),
        (
            weights(main__0__weight=(9, 8, 4, 4), **{f"main__1__{name}": (7,) for name in
                    ("weight", "bias", "running_mean", "running_var")}),
            "a BatchNorm2d of 8 channels was expected",
        ),
        (
            weights(main__0__weight=(9, 8, 4, 4), **{f"main__1__{name}": (8,) for name in
                    ("weight", "bias", "running_mean")}) | {"main.1.running_var": -torch.ones(8)},
            "layer 1 has a negative running_var",
        ),
        (weights(main__0__weight=(9, 8, 4, 4), main__1__weight=(3, 3)), "layer 1 has weight"),
        (weights(main__0__weight=(9, 8, 4, 4), main__0__weight_u=(9,)), "layer 0 has weight .* weight_u"),
        (
            weights(main__0__weight=(9, 8, 4, 4), main__0__running_mean=(8,), main__0__running_var=(8,)),
            "layer 0 has weight .* running_var",
        ),
        (weights(main__0__weight=(9, 8, 4, 4), main__0__1__weight=(8, 3, 4, 4)), "layer 0.1 lies within layer 0"),
        (
            weights(main__0__weight=(9, 8, 4, 4), **{f"main__{index}__{name}": (8,) for index in (1, 2) for name in
                    ("weight", "bias", "running_mean", "running_var")}),
            "layers 1, 2 all follow convolution 0",
        ),
    ],
)  # fmt: skip
def test_tensors_that_do_not_fit_together_are_refused(tensors: dict[str, Tensor], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        build(tensors)


def test_a_discriminator_is_called_one_and_a_net_that_resizes_and_convolves_is_not(tmp_path: Path) -> None:
    layers = [nn.Conv2d(3, 8, 4, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(8, 16, 4, 2, 1), nn.LeakyReLU(0.2)]
    path = saved(tmp_path / "netD.pth", under_main(trained(*layers, nn.Conv2d(16, 1, 4))))
    with pytest.raises(
        CheckpointError, match="recognised as a discriminator, but the generator's checkpoint is needed"
    ):
        sefa.load(path)
    for name in ("resize and convolve", "a plain convolution behind each transposed"):
        assert sefa.load(saved(path, under_main(VARIANTS[name][0]))).channels == 3


def test_inputs_it_does_not_have_are_refused(golden: Path) -> None:
    generator = sefa.load(golden / "checkpoints/dcgan_small_64/netG.pth")
    with pytest.raises(ArgumentError, match="takes no label"):
        generator.encode(torch.zeros(1, 20), label=torch.zeros(1, dtype=torch.int64))
    with pytest.raises(ArgumentError, match=r"psi must be 1, got 0\.7"):
        generator.encode(torch.zeros(1, 20), truncation=0.7)


def test_a_label_behind_z_is_what_the_user_says(tmp_path: Path) -> None:
    model, _ = VARIANTS["dropout between, as omniart's"]  # of 10 inputs: a latent of 7 and 3 classes
    torch.save(model.state_dict(), tmp_path / "netG.pth")
    generator = sefa.load(tmp_path / "netG.pth", num_classes=3)
    assert (generator.z_dim, generator.latent_dim, generator.code_dim, generator.num_classes) == (7, 7, 10, 3)
    z, label = torch.randn(4, 7, generator=torch.Generator().manual_seed(1)), torch.tensor([2, 0, 1, 2])
    with torch.no_grad():
        image = generator.decode(generator.encode(z, label))
        expected = model(torch.cat([z, torch.eye(3)[label]], dim=1)[:, :, None, None])
    torch.testing.assert_close(image, expected, atol=1e-6, rtol=0)
    bank = sefa.factorize(generator)
    assert bank.vectors.shape == (7, 10)
    assert not bank.vectors[:, 7:].any()
    A = model.state_dict()["0.weight"].permute(1, 2, 3, 0).reshape(-1, 10)[:, :7].double()
    _, _, right = torch.linalg.svd(A)
    cosines = (bank.vectors[:, :7].double() * right).sum(dim=1).abs()
    torch.testing.assert_close(cosines, torch.ones(7, dtype=torch.float64))


def test_without_the_users_word_there_are_no_classes(tmp_path: Path) -> None:
    torch.save(VARIANTS["grey, two layers"][0].state_dict(), tmp_path / "netG.pth")
    for given in (None, 0):
        generator = sefa.load(tmp_path / "netG.pth", num_classes=given)
        assert (generator.z_dim, generator.latent_dim, generator.num_classes) == (7, 7, 0)


@pytest.mark.parametrize("num_classes", [7, 8, -1])
def test_more_classes_than_inputs_are_refused(tmp_path: Path, num_classes: int) -> None:
    torch.save(VARIANTS["grey, two layers"][0].state_dict(), tmp_path / "netG.pth")
    with pytest.raises(ArgumentError, match=rf"num_classes must be in 0\.\.6, .* got {num_classes}"):
        sefa.load(tmp_path / "netG.pth", num_classes=num_classes)


def test_a_label_is_needed_where_there_are_classes() -> None:
    generator = build(VARIANTS["grey, two layers"][0].state_dict(), num_classes=3)
    with pytest.raises(ArgumentError, match=r"a label in 0\.\.2 is needed"):
        generator.encode(torch.zeros(1, 4))
