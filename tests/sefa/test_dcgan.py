from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import sefa
from sefa import ArgumentError, CheckpointError
from sefa.generators import DCGAN


def trained(*layers: nn.Module) -> nn.Sequential:
    """A generator as a training script would define it, with statistics as after some training."""
    torch.manual_seed(0)
    model = nn.Sequential(*layers)
    for module in model:
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias)
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    return model.eval()


def up(inputs: int, outputs: int, kernel: int, bias: bool = False) -> nn.ConvTranspose2d:
    """A transposed convolution that doubles, as PyTorch users write it for even and for odd kernels."""
    padding, output_padding = {2: (0, 0), 3: (1, 1), 4: (1, 0), 5: (2, 1), 6: (2, 0)}[kernel]
    return nn.ConvTranspose2d(inputs, outputs, kernel, 2, padding, output_padding, bias=bias)


# Variants met in public repositories, each as its author would write it.
VARIANTS: dict[str, nn.Sequential] = {
    "the PyTorch example, small": trained(
        nn.ConvTranspose2d(10, 8, 4, 1, 0, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
        up(8, 6, 4), nn.BatchNorm2d(6), nn.ReLU(),
        up(6, 3, 4), nn.Tanh(),
    ),
    "grey, two layers": trained(nn.ConvTranspose2d(7, 5, 7, 1, 0), nn.ReLU(), up(5, 1, 4, bias=True), nn.Tanh()),
    "one layer": trained(nn.ConvTranspose2d(4, 3, 8, 1, 0), nn.Tanh()),
    "kernel 5": trained(
        nn.ConvTranspose2d(9, 8, 4, 1, 0, bias=False), nn.BatchNorm2d(8), nn.ReLU(), up(8, 3, 5), nn.Tanh()
    ),
    "kernel 3 with bias": trained(
        nn.ConvTranspose2d(9, 8, 4, 1, 0), nn.BatchNorm2d(8), nn.ReLU(), up(8, 3, 3, bias=True), nn.Tanh()
    ),
    "kernels 2 and 6, RGBA": trained(
        nn.ConvTranspose2d(9, 8, 3, 1, 0), nn.BatchNorm2d(8), nn.ReLU(),
        up(8, 6, 2), nn.BatchNorm2d(6), nn.ReLU(), up(6, 4, 6), nn.Tanh(),
    ),
    "dropout between, as omniart's": trained(
        nn.ConvTranspose2d(10, 8, 4, 1, 0, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.5),
        up(8, 6, 4), nn.BatchNorm2d(6), nn.ReLU(), nn.Dropout(0.5),
        up(6, 3, 4), nn.Tanh(),
    ),
    "not square": trained(
        nn.ConvTranspose2d(10, 8, (4, 2), 1, 0, bias=False), nn.BatchNorm2d(8), nn.ReLU(), up(8, 3, 4), nn.Tanh()
    ),
    "six doublings": trained(
        nn.ConvTranspose2d(10, 4, 4, 1, 0), *[up(4, 4, 4) for _ in range(5)], up(4, 3, 4), nn.Tanh()
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", [name for name in VARIANTS if name != "six doublings"])
def test_images_are_those_of_the_users_own_module(name: str) -> None:
    model = VARIANTS[name]
    generator = DCGAN.from_state_dict({f"main.{key}": value for key, value in model.state_dict().items()})
    z = torch.randn(3, generator.z_dim, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = model(z[:, :, None, None])
        image = generator.decode(generator.encode(z))
    torch.testing.assert_close(image, expected, atol=1e-6, rtol=0)
    assert image.shape == (3, generator.channels, *generator.resolution)


def test_depth_sets_the_resolution() -> None:
    generator = DCGAN.from_state_dict(VARIANTS["six doublings"].state_dict())
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
    generator = DCGAN.from_state_dict(VARIANTS["not square"].state_dict())
    z = torch.randn(2, 10, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        y = generator.convs[0](z[:, :, None, None])  # [2, 8, 4, 2]
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
        (
            weights(main__0__weight=(64, 3, 4, 4), main__2__weight=(128, 64, 4, 4), main__5__weight=(1, 128, 4, 4)),
            "this is a discriminator",
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
        (weights(main__0__weight=(9, 8, 4, 4), main__2__weight=(8, 3, 1, 1)), "cannot double"),
        (weights(main__0__weight=(9, 8, 4, 4), main__0__weight_u=(9,)), "layer 0 has weight .* weight_u"),
        (
            weights(main__0__weight=(9, 8, 4, 4), **{f"main__{index}__{name}": (8,) for index in (1, 2) for name in
                    ("weight", "bias", "running_mean", "running_var")}),
            r"layers \[1, 2\] all follow convolution 0",
        ),
    ],
)  # fmt: skip
def test_tensors_that_do_not_fit_together_are_refused(tensors: dict[str, Tensor], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        DCGAN.from_state_dict(tensors)


def test_inputs_it_does_not_have_are_refused(golden: Path) -> None:
    generator = sefa.load(golden / "checkpoints/dcgan_small_64/netG.pth")
    with pytest.raises(ArgumentError, match="takes no label"):
        generator.encode(torch.zeros(1, 20), label=torch.zeros(1, dtype=torch.int64))
    with pytest.raises(ArgumentError, match=r"psi must be 1, got 0\.7"):
        generator.encode(torch.zeros(1, 20), truncation=0.7)


def test_a_label_behind_z_is_what_the_user_says(tmp_path: Path) -> None:
    model = VARIANTS["dropout between, as omniart's"]  # of 10 inputs: a latent of 7 and 3 classes
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
    torch.save(VARIANTS["grey, two layers"].state_dict(), tmp_path / "netG.pth")
    for given in (None, 0):
        generator = sefa.load(tmp_path / "netG.pth", num_classes=given)
        assert (generator.z_dim, generator.latent_dim, generator.num_classes) == (7, 7, 0)


@pytest.mark.parametrize("num_classes", [7, 8, -1])
def test_more_classes_than_inputs_are_refused(tmp_path: Path, num_classes: int) -> None:
    torch.save(VARIANTS["grey, two layers"].state_dict(), tmp_path / "netG.pth")
    with pytest.raises(ArgumentError, match=rf"num_classes must be in 0\.\.6, .* got {num_classes}"):
        sefa.load(tmp_path / "netG.pth", num_classes=num_classes)


def test_a_label_is_needed_where_there_are_classes() -> None:
    generator = DCGAN.from_state_dict(VARIANTS["grey, two layers"].state_dict(), num_classes=3)
    with pytest.raises(ArgumentError, match=r"a label in 0\.\.2 is needed"):
        generator.encode(torch.zeros(1, 4))
