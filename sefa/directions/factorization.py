"""Find a generator's directions: SeFa, the closed-form factorization of latent semantics; or GANSpace.

Source: Shen & Zhou, "Closed-Form Factorization of Latent Semantics in GANs", CVPR 2021, arXiv 2007.06600.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from sefa.bank.direction_bank import DirectionBank
from sefa.choices import Method, Normalize, choice_of
from sefa.directions.ganspace import DEFAULT_SAMPLES, principal_components
from sefa.errors import ArgumentError
from sefa.generators import Generator, check_generator
from sefa.generators.layers import LayerSpec, parse_layers
from sefa.linear_algebra import right_singular_vectors, zero_level

DEFAULT_TOP = 16
# Of the largest value of a weight: eigenvalues are squares, and sums of many, in float64.
LEAST, MOST = 1e-140, 1e140
MAX_NUMBERS = 2**26  # of a bank: 256 MB


def factorize(
    generator: Generator,
    layers: LayerSpec = "all",
    edit_layers: LayerSpec | None = None,
    top: int | None = None,
    method: str = "sefa",
    normalize: str = "none",
    samples: int | None = None,
    seed: int | None = None,
    label: int | None = None,
    progress: Callable[[float], None] | None = None,
) -> DirectionBank:
    """Find the directions that change a generator's output most.

    `sefa` reads them from the weights of the first transforms, in closed form: it needs no data and no samples.
    `ganspace` takes the principal components of sampled style codes or activations, see `sefa.directions.ganspace`.
    Alpha is a distance in latent space with `sefa`, and counts standard deviations with `ganspace`.

    Runs on the generator's device.

    Args:
        generator: The generator.
        layers: The layers to analyse together: see `parse_layers`. If z is split between the layers, each is analysed
            on its own, and all directions are ranked together. With `ganspace`, a StyleGAN's style codes are the same
            for all layers, so this only chooses the layers that an edit changes.
        edit_layers: The layers that an edit changes; None: those that the direction was found in, or all layers of a
            BigGAN-deep, which all read z itself.
        top: How many directions; None: 16, or the latent's size if that is smaller.
        method: `sefa` or `ganspace`.
        normalize: `none` follows the paper; `rows` scales each row of A to unit length first, as the authors' released
            code does, which gives different directions. Only for `sefa`.
        samples: How many latents `ganspace` samples; None: 50,000.
        seed: Seed of these latents; None: 0. The same seed gives the same latents on every machine.
        label: Class of these latents; None: any class, all equally likely.
        progress: Called with the share of the samples that is done, 0 to 1.

    Returns:
        The directions, strongest first, and where they came from.

    Raises:
        ArgumentError: If it is no generator, a layer is unknown, `top` is out of range, an option is unknown or does
            not belong to the method, or the weights are not finite.

    Examples:
        >>> bank = sefa.factorize(sefa.load("netG.pth"), top=4)
        >>> bank.names
        ('direction-0', 'direction-1', 'direction-2', 'direction-3')
        >>> bank.vectors.shape
        torch.Size([4, 20])
    """
    check_generator(generator)
    analysed = parse_layers(layers, generator.num_layers, generator.default_layers, generator.layer_names)
    if edit_layers is not None:
        edit_layers = parse_layers(edit_layers, generator.num_layers, generator.default_layers, generator.layer_names)
    if top is not None and type(top) is not int:
        raise ArgumentError(f"top must be an integer, got {top!r}")
    method, normalize = choice_of(Method, method, "method"), choice_of(Normalize, normalize, "normalize")
    _check_options(method, normalize, samples, seed, label)
    # If each layer reads its own part of z, A is block-diagonal: its eigenvectors are those of its blocks.
    blocks = [analysed] if generator.layers_share_latent else [(layer,) for layer in analysed]
    available = generator.latent_size(analysed)
    if top is None:
        top = min(DEFAULT_TOP, available)
    if not 1 <= top <= available:
        raise ArgumentError(f"top must be in 1..{available}, the latent's size, got {top}")
    most = MAX_NUMBERS // (generator.code_dim + generator.num_layers)
    if top > most:
        raise ArgumentError(f"top must be at most {most} for codes of {generator.code_dim}, got {top}")
    found: Sequence[tuple[Tensor, Tensor]]
    if method is Method.SEFA:
        affines = [affine[:, : generator.latent_dim] for affine in generator.affines()]
        kept = min(top, generator.latent_dim)  # No block can have more than this among the strongest of all.
        found = [_factorize_block(torch.cat([affines[layer] for layer in block]), normalize, kept) for block in blocks]
        samples = 0
    else:
        samples, seed = DEFAULT_SAMPLES if samples is None else samples, 0 if seed is None else seed
        found = principal_components(generator, blocks, samples, seed, label, progress)
    eigenvalues, order = torch.cat([values for _, values in found]).sort(descending=True, stable=True)
    chosen = [divmod(index, generator.latent_dim) for index in order[:top].tolist()]
    vectors = torch.stack([found[block][0][rank] for block, rank in chosen])
    return DirectionBank.found_in(
        generator,
        vectors,
        eigenvalues[:top],
        [blocks[block] for block, _ in chosen],
        edit_layers,
        method=method.value,
        normalize=normalize.value,
        rank=int((eigenvalues > zero_level(eigenvalues, generator.latent_dim)).sum()),
        alpha_unit="distance" if method is Method.SEFA else "sigma",
        samples=samples,
        seed=seed,
        label=label,
    )


def _check_options(
    method: Method, normalize: Normalize, samples: int | None, seed: int | None, label: int | None
) -> None:
    """Refuse options that do not apply to the method."""
    if method is Method.GANSPACE and normalize is not Normalize.NONE:
        raise ArgumentError(f"normalize={normalize} scales weights, which ganspace does not analyse: leave it out")
    given = {"samples": samples, "seed": seed, "label": label}
    inapt = [name for name, value in given.items() if value is not None]
    if method is Method.SEFA and inapt:
        raise ArgumentError(f"{inapt[0]} is an option of ganspace: sefa takes no samples")


def _factorize_block(A: Tensor, normalize: Normalize, k: int) -> tuple[Tensor, Tensor]:
    A = _checked(A)
    if normalize is Normalize.ROWS:
        A = A / A.norm(dim=1, keepdim=True).clamp_min(LEAST)  # A row of zeros stays one.
    return principal_directions(A, k)


def principal_directions(weight: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Find the `k` latent directions that change y = A·z + b most.

    Moving z by alpha·n moves y by alpha·A·n, and |A·n|² = nᵀAᵀA·n is largest over unit n for the eigenvectors of AᵀA
    with the largest eigenvalues. Source: the paper, equations 3 to 6.

    Args:
        weight: Affine weight A, shape [out_features, latent_dim].
        k: Number of directions, 1 to latent_dim.

    Returns:
        directions: Shape [k, latent_dim], float64 unit rows, strongest first; each one's entry of largest magnitude is
            positive.
        eigenvalues: Shape [latent_dim], float64, descending, the squared singular values of A.

    Raises:
        ArgumentError: If `weight` is not 2-D, not finite or in float64 beyond what can be squared, or `k` is out of
            range.
    """
    if weight.ndim != 2:
        raise ArgumentError(f"the affine weight must have shape [out, latent], got {list(weight.shape)}")
    if not 1 <= k <= weight.shape[1]:
        raise ArgumentError(f"top must be in 1..{weight.shape[1]}, the latent's size, got {k}")
    return right_singular_vectors(_checked(weight), k)


def _checked(weight: Tensor) -> Tensor:
    """Return a weight in float64."""
    A = weight.double()
    largest = float(torch.linalg.vector_norm(A, math.inf)) if A.numel() else 0.0
    if not math.isfinite(largest):
        raise ArgumentError("the affine weight has NaN or infinite values")
    if largest and not LEAST <= largest <= MOST:
        raise ArgumentError(f"the affine weight's largest value must be in {LEAST:g}..{MOST:g}, got {largest:.3g}")
    return A
