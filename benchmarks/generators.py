"""The generators that are measured: trained ones where they are at hand, and published sizes with random weights."""

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

import sefa
from sefa.checkpoints.parts.growing import up_kernel
from sefa.errors import CheckpointError
from sefa.generators.biggan import BigGAN, ConditionalNorm, Norm
from sefa.generators.common.progressive import ToImage
from sefa.generators.pggan import PGGAN
from sefa.opening import Device, OpenOptions, open_generator
from sefa_runtime.errors import InputError

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from support.stylegan2_files import Spec, genforce_state, random_tensors

TOP = 8
WIDTHS = (512,) * 8
# Channels of each level, of 4x4 to 256x256 pixels.
PGGAN_256 = (512, 512, 512, 512, 256, 128, 64)
# Configuration F of StyleGAN2; `small` is for rehearsals.
STYLEGAN2 = {
    "stylegan2-256": Spec((512, 512, 512, 512, 512, 256, 128), 512, 512, WIDTHS, clamp=256.0),
    "stylegan2-1024": Spec((512, 512, 512, 512, 512, 256, 128, 64, 32), 512, 512, WIDTHS, clamp=256.0),
}
SMALL = Spec((16, 16, 8), 32, 32, (32, 32), clamp=256.0)


def make_generator(name: str, small: bool = False) -> sefa.Generator:
    """Load or make a generator by name; the same weights each time.

    Args:
        name: `letters`, `faces`, `stylegan2-256`, `stylegan2-1024`, `biggan-128` or `pggan-256`.
        small: Make those after the first two with few channels and pixels.

    Raises:
        CheckpointError: If a trained one is not there.
    """
    if name == "letters":
        try:
            return open_generator(Path(name), OpenOptions(device=Device.CPU))
        except InputError as error:
            raise CheckpointError(str(error)) from error
    if name == "faces":
        from sefa.demo import find_faces

        return sefa.load(find_faces())
    if name == "biggan-128":
        return random_biggan(8 if small else 96, 2 if small else 5)
    if name == "pggan-256":
        return random_pggan((16, 16, 8) if small else PGGAN_256)
    return random_stylegan2(stylegan2_spec(name, small))


def random_stylegan2(spec: Spec) -> sefa.Generator:
    """Make a StyleGAN2 with random weights."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "generator.pth")
        torch.save({"generator_smooth": genforce_state(spec, random_tensors(spec))}, path)
        return sefa.load(path)


def stylegan2_spec(name: str, small: bool = False) -> Spec:
    """Return the sizes of a StyleGAN2 by name."""
    return SMALL if small else STYLEGAN2[name]


def random_biggan(channels: int, blocks: int) -> BigGAN:
    """Make a BigGAN with random weights: of 128x128 pixels with 96 channels and 5 blocks.

    The norms start as those of a trained one would: near scale 1 and shift 0.
    """
    torch.manual_seed(0)
    widths = [16 * channels] + [channels << index for index in reversed(range(blocks))]
    attended = widths[-2]
    attentions = {blocks - 2: (attended // 8, attended // 2)}
    generator = BigGAN(20, (1000, 128), 4, widths, attentions, channels=3, hierarchical=True)
    with torch.no_grad():
        assert generator.embedding is not None
        generator.embedding.normal_(std=0.1)
        for module in generator.modules():
            if isinstance(module, ConditionalNorm):
                scale, shift = module.affine.bias.chunk(2)
                scale.fill_(1)
                shift.fill_(0)
            elif isinstance(module, Norm):
                module.weight.fill_(1)
                module.bias.fill_(0)
        generator.norm.weight.fill_(4)  # Otherwise the images would be nearly grey.
    return generator.eval()


def random_pggan(levels: Sequence[int]) -> PGGAN:
    """Make a PGGAN with random weights, with two layers for each level's number of channels."""
    torch.manual_seed(0)
    widths = [channels for channels in levels for _ in range(2)]
    generator = PGGAN(levels[0], (0, 0), (4, 4), widths, ToImage(levels[-1], None, 3, 1))
    with torch.no_grad():
        for module in generator.modules():
            if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
                nn.init.kaiming_normal_(module.weight, a=generator.slope)
                assert module.bias is not None
                module.bias.zero_()
            if isinstance(module, nn.ConvTranspose2d):  # Nearest-neighbour doubling is merged into its kernel.
                kernel = torch.empty(module.out_channels, module.in_channels, 3, 3)
                module.weight.copy_(up_kernel(nn.init.kaiming_normal_(kernel, a=generator.slope), fused=False))
    return generator.eval()
