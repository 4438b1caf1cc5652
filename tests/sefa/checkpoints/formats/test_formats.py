"""Every checkpoint format against what the original code computed."""

import pytest

from support.golden_checkpoints import MANIFEST, GoldenCheckpoint

# Exporting takes seconds: one of each architecture always, the others in `make test-slow`.
EXPORTED = {
    "biggan_hier_64",
    "dcgan_small_64",
    "fastgan_256",
    "hf_biggan_deep_32",
    "lucidrains_32",
    "mimicry_sagan_32",
    "nv_ada_resnet_32",
    "nv_sg3_t_32",
    "psp_layers_16",
    "sefa_pggan_cond_16",
    "sefa_stylegan2_cond_32",
    "sefa_stylegan_64",
    "studio_biggan_uncond_32",
}
# genforce's formats, whose recorded directions are the released code's.
READ_BY_RELEASED_CODE = [name for name in MANIFEST if "sefa_dirs__all" in GoldenCheckpoint(name).recorded]
STYLE_BASED = [name for name in MANIFEST if "w" in GoldenCheckpoint(name).recorded]
CODE_ATOL = 1e-5
DIRECTION_ATOL = 1e-6


@pytest.fixture(scope="module", params=MANIFEST)
def case(request: pytest.FixtureRequest) -> GoldenCheckpoint:
    return GoldenCheckpoint(request.param)


def failures(case: GoldenCheckpoint, limit: float) -> dict[str, float]:
    assert case.errors
    return {key: error for key, error in case.errors.items() if not error <= limit}


@pytest.mark.parametrize("name", STYLE_BASED)
def test_codes_are_the_originals(name: str) -> None:
    case = GoldenCheckpoint(name)
    case.measure_codes()
    assert failures(case, CODE_ATOL) == {}


def test_images_are_the_originals(case: GoldenCheckpoint) -> None:
    case.errors.clear()
    case.measure_images()
    assert failures(case, case.facts["atol"]) == {}


def test_directions_are_those_of_the_formula(case: GoldenCheckpoint) -> None:
    case.errors.clear()
    case.measure_directions()
    assert failures(case, DIRECTION_ATOL) == {}


@pytest.mark.parametrize("name", READ_BY_RELEASED_CODE)
def test_normalized_rows_give_the_released_codes_directions(name: str) -> None:
    case = GoldenCheckpoint(name)
    case.measure_released_directions()
    assert failures(case, DIRECTION_ATOL) == {}


def test_edited_images_are_the_originals(case: GoldenCheckpoint) -> None:
    case.errors.clear()
    case.measure_edits()
    assert failures(case, case.facts["atol"]) == {}


def check_the_exported_graph(case: GoldenCheckpoint) -> None:
    case.errors.clear()
    case.measure_onnx()
    assert failures(case, 5e-4 if case.generator.family == "stylegan3" else 1e-4) == {}


@pytest.mark.parametrize("name", sorted(EXPORTED))
def test_the_exported_graph_is_pytorchs(name: str) -> None:
    check_the_exported_graph(GoldenCheckpoint(name))


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(MANIFEST) - EXPORTED))
def test_the_exported_graph_of_every_other_is_pytorchs(name: str) -> None:
    check_the_exported_graph(GoldenCheckpoint(name))
