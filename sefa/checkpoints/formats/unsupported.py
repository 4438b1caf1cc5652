"""Checkpoints that are recognised only to tell the user what they are: nothing in them can be loaded."""

import re
from collections.abc import Callable
from typing import NoReturn

from sefa.checkpoints.checkpoint import Checkpoint, Format, LoadOptions
from sefa.checkpoints.pickled_networks import PersistedModule, TensorFlowNetwork
from sefa.checkpoints.sizes import MAX_ENTRIES
from sefa.errors import CheckpointError

NO_LATENT = "it turns images into images, there is no latent code to find directions in"
NOT_A_GAN = "diffusion models have no latent code as GANs do"
NEEDS_GENERATOR = "the generator's checkpoint is needed"
OWN_CODE = "its own code can read it: MODULE:CLASS --weights FILE"
CODES = "it makes codes, not images: the StyleGAN2 that it was trained with is needed"
RESTORES = "it restores photos: its StyleGAN2 reads a photo's features besides its code"
OWN_IMAGE = f"which is not supported; {OWN_CODE}, with a masked image that is always the same"
NEEDS_CAMERA = f"its images depend on a camera, which is not supported; {OWN_CODE}, with the camera fixed"


def _refused(name: str, reason: str, recognises: Callable[[Checkpoint], bool]) -> Format:
    def load(checkpoint: Checkpoint, options: LoadOptions) -> NoReturn:
        raise CheckpointError(reason)

    return Format(name, recognises, load, is_supported=False)


def _with_keys(*patterns: str, without: str | None = None) -> Callable[[Checkpoint], bool]:
    """Return a test for keys: each pattern must match the beginning of some key, and `without` that of none."""

    def recognises(checkpoint: Checkpoint) -> bool:
        keys = "\n".join(checkpoint.stored)
        present = all(re.search(f"^{pattern}", keys, re.MULTILINE) for pattern in patterns)
        return present and not (without and re.search(f"^{without}", keys, re.MULTILINE))

    return recognises


def _is_mat(checkpoint: Checkpoint) -> bool:
    """Recognise the name of the first of MAT's two synthesis networks, in a state dict or in a pickle."""
    synthesis = checkpoint.persisted.modules.get("synthesis") if checkpoint.persisted else None
    pickled = isinstance(synthesis, PersistedModule) and "first_stage" in synthesis.modules
    return pickled or any(key.startswith("synthesis.first_stage.") for key in checkpoint.stored)


def _is_comodgan(checkpoint: Checkpoint) -> bool:
    """Recognise the name of an encoder's last layer among the variables of the synthesis network."""
    components = checkpoint.tensorflow.state.get("components") if checkpoint.tensorflow else None
    synthesis = components.get("synthesis") if isinstance(components, dict) else None
    variables = synthesis.state.get("variables") if isinstance(synthesis, TensorFlowNetwork) else None
    named = variables[:MAX_ENTRIES] if isinstance(variables, list) else []
    names = [one[0] for one in named if isinstance(one, tuple | list) and one]
    return any(isinstance(name, str) and name.startswith("E_4x4/") for name in names)


def _of_class(class_name: str) -> Callable[[Checkpoint], bool]:
    """Return a test for networks that NVlabs' code pickled, by a regular expression for the class."""

    def recognises(checkpoint: Checkpoint) -> bool:
        network = checkpoint.network
        return isinstance(network, PersistedModule) and re.fullmatch(class_name, network.class_name) is not None

    return recognises


FORMATS = (
    _refused(
        "SWAGAN",
        f"its images are wavelet coefficients until the end, which is not supported; {OWN_CODE}",
        _with_keys(r"conv1\.conv\.modulation\.weight$", r"(to_rgbs\.\d+\.)?iwt\.ll$"),
    ),
    _refused(
        "an encoder of photos into StyleGAN's codes (pSp, e4e)",
        CODES,
        _with_keys(r"(encoder\.)?styles\.0\.convs\.0\.weight$", without=r"decoder\."),
    ),
    _refused(
        "a StyleCLIP mapper",
        CODES,
        _with_keys(r"mapper\.(\w+\.)+mapping\.1\.weight$", without=r"decoder\."),
    ),
    _refused(
        "MAT",
        f"it completes a masked image, and draws random numbers, {OWN_IMAGE}",
        _is_mat,
    ),
    _refused("CoModGAN", f"it completes a masked image, {OWN_IMAGE}", _is_comodgan),
    _refused(
        "CoModGAN in PyTorch",
        f"it completes a masked image, {OWN_IMAGE}",
        _with_keys(r"encoder\.b4\.", r"synthesis\.b4\."),
    ),
    _refused("GFPGAN", RESTORES, _with_keys(r"conv_body_first\.", r"stylegan_decoder\.")),
    _refused("GPEN", RESTORES, _with_keys(r"ecd0\.", r"generator\.conv1\.conv\.modulation\.weight$")),
    _refused("CodeFormer", NO_LATENT, _with_keys(r"quantize\.embedding\.weight$", r"ft_layers\.0\.")),
    _refused("EG3D", NEEDS_CAMERA, _of_class("TriPlaneGenerator")),
    _refused("EG3D", NEEDS_CAMERA, _with_keys(r"backbone\.synthesis\.b4\.", r"superresolution\.")),
    _refused("an NVlabs pickle of a discriminator", NEEDS_GENERATOR, _of_class(".*Discriminator")),
    _refused("NVlabs' EDM", NOT_A_GAN, _of_class(r"(\w+Precond|Precond)")),
    _refused(
        "rosinality's StyleGAN2 discriminator",
        NEEDS_GENERATOR,
        _with_keys(r"convs\.0\.0\.weight$", r"final_linear\.0\.weight$"),
    ),
    _refused(
        "rosinality's StyleGAN discriminator",
        NEEDS_GENERATOR,
        _with_keys(r"progression\.0\.conv1\.0\.conv\.weight_orig$", r"from_rgb\.0\."),
    ),
    _refused(
        "a discriminator of genforce",
        NEEDS_GENERATOR,
        _with_keys(r"input0\.weight$", r"layer0\.weight$", without=r"output0\.weight$"),
    ),
    _refused(
        "a BigGAN discriminator",
        NEEDS_GENERATOR,
        _with_keys(r"blocks\.0\.0\.conv1\.weight$", r"embed\.weight$", without=r"output_layer\."),
    ),
    _refused(
        "a discriminator of PyTorch-StudioGAN",
        NEEDS_GENERATOR,
        _with_keys(r"blocks\.0\.0\.conv(2d1|0)\.weight", r"linear1\.weight", without=r"linear0\."),
    ),
    _refused(
        "a discriminator of torch-mimicry",
        NEEDS_GENERATOR,
        _with_keys(r"block1\.c1\.weight", r"block2\.c1\.weight", r"l\d+\.weight"),
    ),
    _refused(
        "rosinality's factor.pt",
        "it holds directions, and no generator: `sefa bank import` reads it",
        _with_keys(r"eigvec$", without=r"(?!eigvec$)"),
    ),
    _refused("a latent diffusion model", NOT_A_GAN, _with_keys(r"model\.diffusion_model\.")),
    _refused(
        "VQGAN",
        "its codes are grids of words from a codebook, with no latent vector to find directions in",
        _with_keys(r"quantize\.embed", r"decoder\.conv_in\.weight$"),
    ),
    _refused("CycleGAN", NO_LATENT, _with_keys(r"model\.\d+\.conv_block\.\d+\.weight$")),
    _refused("pix2pix", NO_LATENT, _with_keys(r"model\.model\.0\.weight$", r"model\.model\.1\.model\.")),
    _refused("ESRGAN", NO_LATENT, _with_keys(r"conv_first\.weight$", r"(body|RRDB_trunk)\.0\.")),
)
