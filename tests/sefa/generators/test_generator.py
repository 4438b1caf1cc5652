"""What generators say of themselves, against what they do."""

import pytest
import torch

from sefa.errors import ArgumentError
from sefa.generators import Generator
from support.golden_checkpoints import GoldenCheckpoint

# One of each family.
FAMILIES = [
    "biggan_tfhub_style_32",
    "hf_biggan_deep_32",
    "dcgan_small_64",
    "lucidrains_32",
    "mimicry_sagan_32",
    "tf_pggan_16",
    "tf_stylegan_32",
    "sefa_stylegan2_cond_32",
    "nv_xl_stem_cond_16",
    "projected_fastgan_cond_128",
]


@pytest.fixture(scope="module", params=FAMILIES)
def case(request: pytest.FixtureRequest) -> GoldenCheckpoint:
    return GoldenCheckpoint(request.param)


@pytest.fixture
def generator(case: GoldenCheckpoint) -> Generator:
    return case.generator


def test_style_codes_are_the_same_for_all_layers(case: GoldenCheckpoint, generator: Generator) -> None:
    codes = case.encode()
    assert codes.shape[1:] == (generator.num_layers, generator.code_dim)
    if generator.has_style_codes:
        assert codes.equal(codes[:, :1].expand_as(codes))
        low, high = generator.code_rms() or (0.0, 0.0)
        assert 0 < low < float(codes.square().mean(dim=2).sqrt().mean()) < high
    else:
        assert codes[:, 0, : generator.latent_dim].equal(case.z[:, : generator.latent_dim])
        assert generator.code_rms() is None


@torch.no_grad()
def test_only_normalised_codes_may_be_of_any_length(case: GoldenCheckpoint, generator: Generator) -> None:
    codes = case.encode()
    codes[:, :, generator.latent_dim :] = 0  # The class is no part of it.
    same = torch.allclose(generator.decode(4 * codes), generator.decode(codes), atol=1e-4)
    assert same == generator.normalizes_codes
    read = generator.normalize_codes(codes[:, 0])
    assert generator.normalizes_codes != read.equal(codes[:, 0])


def test_truncation_is_taken_or_refused(case: GoldenCheckpoint, generator: Generator) -> None:
    if generator.supports_truncation:
        assert not case.encode(0.5).equal(case.encode())
    else:
        with pytest.raises(ArgumentError, match=r"has no truncation: psi must be 1, got 0\.5"):
            case.encode(0.5)


def test_a_label_is_needed_or_refused(case: GoldenCheckpoint, generator: Generator) -> None:
    label = None if generator.num_classes else torch.zeros(len(case.z), dtype=torch.int64)
    with pytest.raises(ArgumentError, match="class-conditional"):
        generator.encode(case.z, label)


@torch.no_grad()
def test_no_direction_reaches_the_class(case: GoldenCheckpoint, generator: Generator) -> None:
    assert generator.latent_dim + generator.class_dim == generator.code_dim
    if not generator.class_dim:
        return
    label = torch.arange(4) % generator.num_classes
    z = case.z[:1].expand(4, -1)
    codes = generator.encode(z, label)
    assert codes[:, :, : generator.latent_dim].equal(codes[:1, :, : generator.latent_dim].expand(4, -1, -1))
    assert not codes.equal(codes[:1].expand_as(codes))
