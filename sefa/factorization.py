"""SeFa: closed-form factorization of latent semantics.

Source: Shen & Zhou, "Closed-Form Factorization of Latent Semantics in GANs", CVPR 2021, arXiv 2007.06600.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from sefa.bank import DirectionBank, DirectionSource
from sefa.errors import ArgumentError
from sefa.generators import Generator
from sefa.layers import LayerSpec, parse_layers
from sefa_runtime.version import VERSION

NORMALIZATIONS = ("none", "rows")
DEFAULT_TOP = 16
# Three standard deviations of a latent's component: beyond it the generator has seen next to no sample in training.
ALPHA_RANGE = (-3.0, 3.0)


def factorize(
    generator: Generator,
    layers: LayerSpec = "all",
    edit_layers: LayerSpec | None = None,
    top: int | None = None,
    normalize: str = "none",
) -> DirectionBank:
    """Find the directions that move a generator's first transforms most.

    Runs on the device the generator is on; needs no data and draws no samples.

    Args:
        generator: The generator.
        layers: The layers whose affine weights are analysed, stacked: see `parse_layers`. Where z is split between the
            layers, each is analysed alone, and the directions of all are ranked together.
        edit_layers: The layers an edit touches; None: those that the direction was found in, or every one of a
            BigGAN-deep, whose layers all read z itself.
        top: How many directions; None: 16, or as many as the latent has components if those are fewer.
        normalize: `none` is the paper; `rows` scales each row of A to unit length first, as the authors' released code
            does, which gives different directions.

    Returns:
        The directions, strongest first, and where they came from.

    Raises:
        ArgumentError: If a layer is unknown, `top` is not in 1..code_dim, `normalize` is unknown, or the weights are
            not finite.
    """
    analysed = parse_layers(layers, generator.num_layers, generator.default_layers)
    if edit_layers is None and generator.edits_all_layers:
        edit_layers = range(generator.num_layers)
    edited = None if edit_layers is None else parse_layers(edit_layers, generator.num_layers, generator.default_layers)
    if normalize not in NORMALIZATIONS:
        raise ArgumentError(f"normalize must be none or rows, got {normalize!r}")
    if top is not None and type(top) is not int:
        raise ArgumentError(f"top must be an integer, got {top!r}")
    affines = [affine[:, : generator.latent_dim] for affine in generator.affines()]
    # Layers that each read a part of z of their own make A block-diagonal: its eigenvectors are those of the blocks.
    blocks = [analysed] if generator.layers_share_latent else [(layer,) for layer in analysed]
    available = generator.latent_dim * len(blocks)
    if top is None:
        top = min(DEFAULT_TOP, available)
    if not 1 <= top <= available:
        raise ArgumentError(f"top must be in 1..{available}, the latent's size, got {top}")
    found = [_factorize_block(torch.cat([affines[layer] for layer in block]), normalize) for block in blocks]
    eigenvalues, order = torch.cat([values for _, values in found]).sort(descending=True, stable=True)
    vectors = torch.cat([vectors for vectors, _ in found])[order[:top]]
    vectors = F.pad(vectors, (0, generator.code_dim - generator.latent_dim))  # No direction changes the class.
    own = [blocks[index // generator.latent_dim] for index in order[:top].tolist()]
    # Weights are stored in float32: singular values below its rounding are zeros.
    zero = (generator.latent_dim * torch.finfo(torch.float32).eps) ** 2 * float(eigenvalues[0])
    return DirectionBank(
        vectors=vectors.float().cpu(),
        eigenvalues=eigenvalues[:top].cpu(),
        edited_layers=_mask([block if edited is None else edited for block in own], generator.num_layers),
        analysed_layers=_mask(own, generator.num_layers),
        names=tuple(f"direction-{index}" for index in range(top)),
        alpha_range=torch.tensor(ALPHA_RANGE).repeat(top, 1),
        source=DirectionSource(
            family=generator.family,
            checkpoint_sha256=generator.source_sha256,
            method="sefa",
            normalize=normalize,
            rank=int((eigenvalues > zero).sum()),
            version=VERSION,
        ),
    )


def _factorize_block(A: Tensor, normalize: str) -> tuple[Tensor, Tensor]:
    """All directions of [out, latent] weights, and their eigenvalues."""
    A = A.double()
    if normalize == "rows":
        A = A / A.norm(dim=1, keepdim=True).clamp_min(torch.finfo(A.dtype).tiny)  # A row of zeros stays one.
    return principal_directions(A, A.shape[1])


def principal_directions(weight: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Find the `k` latent directions that move y = A·z + b most.

    Moving z by alpha·n moves y by alpha·A·n, and |A·n|² = nᵀAᵀA·n is largest over unit n for the eigenvectors of AᵀA
    with the largest eigenvalues. Source: the paper, equations 3 to 6.

    Args:
        weight: Affine weight A, shape [out_features, latent_dim].
        k: Number of directions, 1 to latent_dim.

    Returns:
        directions: Shape [k, latent_dim], float64 unit rows, strongest first; each one's entry of largest magnitude is
            positive.
        eigenvalues: Shape [k], float64, descending, the squared singular values of A.

    Raises:
        ArgumentError: If `weight` is not 2-D or not finite, or `k` is out of range.
    """
    if weight.ndim != 2:
        raise ArgumentError(f"the affine weight must have shape [out, latent], got {list(weight.shape)}")
    if not 1 <= k <= weight.shape[1]:
        raise ArgumentError(f"top must be in 1..{weight.shape[1]}, the latent's size, got {k}")
    A = weight.double()
    if not A.isfinite().all():
        raise ArgumentError("the affine weight has NaN or infinite values")
    eigenvalues, eigenvectors = torch.linalg.eigh(A.T @ A)  # ascending; eigenvectors in columns
    eigenvalues = eigenvalues.flip(0)[:k].clamp_min(0.0)  # Rounding can leave a zero slightly negative.
    directions = eigenvectors.flip(1).T[:k]  # [k, latent_dim]
    peak = directions.abs().argmax(dim=1, keepdim=True)
    return (directions * directions.gather(1, peak).sign()).contiguous(), eigenvalues


def _mask(layers: list[tuple[int, ...]], num_layers: int) -> Tensor:
    mask = torch.zeros(len(layers), num_layers, dtype=torch.bool)
    for row, indices in enumerate(layers):
        mask[row, list(indices)] = True
    return mask
