"""The generator that is trained is the one that `sefa.load` reads."""

from pathlib import Path

import pytest
import torch

import sefa
from letters.discriminator import GROUP, Discriminator, limit
from letters.generator import Generator, Sizes, save_generator

SMALL = Sizes(num_classes=5, channels=(8, 6, 4), z_dim=6, embed_dim=4, w_dim=10, mapping_layers=2)


@pytest.fixture
def generator() -> Generator:
    torch.manual_seed(0)
    generator = Generator(SMALL)
    for name, parameter in generator.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter)
    # What half precision holds, so that the file holds it exactly.
    generator.load_state_dict({name: tensor.half().float() for name, tensor in generator.state_dict().items()})
    return generator


@torch.no_grad()
def test_the_saved_generator_makes_the_same_images(generator: Generator, tmp_path: Path) -> None:
    save_generator(generator, tmp_path / "letters.safetensors")
    loaded = sefa.load(tmp_path / "letters.safetensors")
    z, label = torch.randn(8, 6), torch.arange(8) % 5
    codes = loaded.encode(z, label)
    torch.testing.assert_close(codes[:, 0], generator.mapping(z, label), rtol=0, atol=1e-5)
    torch.testing.assert_close(loaded.decode(codes), generator(z, label), rtol=0, atol=1e-4)  # of images of ±8


@torch.no_grad()
def test_the_centre_of_each_class_is_the_mean_of_its_codes(generator: Generator, tmp_path: Path) -> None:
    save_generator(generator, tmp_path / "letters.safetensors")
    loaded = sefa.load(tmp_path / "letters.safetensors")
    z, label = torch.randn(5000, 6), torch.arange(5)
    means = torch.stack([generator.mapping(z, one.expand(5000)).mean(dim=0) for one in label])
    centers = loaded.encode(z[:5], label, truncation=0)[:, 0]
    torch.testing.assert_close(centers, means, rtol=0, atol=0.1)  # two samples of codes of unit scale
    assert (means - means.mean(dim=0)).abs().max() > 0.3


def test_bfloat16_features_give_nearly_the_same_images(generator: Generator) -> None:
    z, label = torch.randn(4, 6), torch.arange(4)
    image = generator(z, label)
    generator.synthesis.dtype = torch.bfloat16
    assert (generator(z, label) - image).abs().max() < 0.05 * image.abs().max()


def test_the_gradient_of_the_limit_leads_back_inside() -> None:
    x = torch.tensor([-2.0, -2.0, 0.5, 0.5, 2.0, 2.0], requires_grad=True)
    y = limit(x)
    assert y.tolist() == [-1, -1, 0.5, 0.5, 1, 1]
    torch.autograd.backward(y, torch.tensor([1.0, -1.0, 1.0, -1.0, 1.0, -1.0]))
    assert x.grad is not None
    assert x.grad.tolist() == [0, -1, 1, -1, 1, 0]


def test_the_discriminator_sees_the_label_and_how_alike_a_group_is() -> None:
    torch.manual_seed(0)
    discriminator = Discriminator(5)
    image = torch.randn(2 * GROUP, 1, 64, 64)
    label = torch.zeros(2 * GROUP, dtype=torch.long)
    logits = discriminator(image, label)
    assert not torch.allclose(logits, discriminator(image, label + 1))
    alike = image.clone()
    alike[1:GROUP] = alike[:1]
    changed = discriminator(alike, label)
    assert not torch.isclose(changed[0], logits[0])
    torch.testing.assert_close(changed[GROUP:], logits[GROUP:])
