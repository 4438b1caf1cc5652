"""GANSpace: principal components of what a generator computes from random latents.

Source: Härkönen, Hertzmann, Lehtinen & Paris, "GANSpace: Discovering Interpretable GAN Controls", NeurIPS 2020, arXiv
2004.02546. For StyleGANs the style codes w are analysed; for other families, the outputs of the first transforms, from
which a linear regression leads back to z.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from sefa.errors import ArgumentError
from sefa.generators import Generator
from sefa.linear_algebra import MAX_SIDE, eigenpairs, fix_signs, zero_level

DEFAULT_SAMPLES = 50_000
MAX_SAMPLES = 100_000_000
# Fixed, so that a seed gives the same samples on every machine.
CHUNK = 1000


class Components(NamedTuple):
    """The principal components found in one group of layers.

    Attributes:
        vectors: Shape [D, D], float64, strongest first: what alpha 1, one standard deviation, adds to the code.
        variances: Shape [D], float64, descending: variance of the analysed values along each component.
    """

    vectors: Tensor
    variances: Tensor


def principal_components(
    generator: Generator,
    groups: Sequence[Sequence[int]],
    samples: int = DEFAULT_SAMPLES,
    seed: int = 0,
    label: int | None = None,
    progress: Callable[[float], None] | None = None,
) -> list[Components]:
    """Sample latents and find the principal components of what the generator computes from them.

    The covariance is accumulated in float64 and decomposed once. That needs as little memory as scikit-learn's
    IncrementalPCA, and is exact and faster: docs/discover.md has the figures.

    StyleGANs: w is analysed, which is the same for all layers; the length of a component's vector is σ, the standard
    deviation of w along it.

    Others: y = A·x is analysed, where A stacks the first transforms of a group's layers and x is the latent as they
    read it; what a class adds to y is left out. The direction of the code for each component of y is found by
    regression and scaled to unit length, which is one standard deviation, since z is standard normal.

    Args:
        generator: The generator, on any device.
        groups: Groups of layers to analyse together. If z is split between the layers, each layer is its own group.
        samples: How many latents to sample.
        seed: Seed of the latents and labels.
        label: Class of all latents; None: any class, all equally likely.
        progress: Called with the share that is done, 0 to 1.

    Returns:
        All components of each group.

    Raises:
        ArgumentError: If an argument is out of range, or the codes are all the same or not finite.
    """
    _check(generator, samples, seed, label)
    sums = [_Moments() for _ in groups]
    with torch.no_grad():
        done = 0
        for codes in random_codes(generator, samples, seed, label):
            for group, moments in zip(groups, sums, strict=True):
                code = codes[:, group[0]]  # [N, D]
                x = code[:, : generator.latent_dim]
                if generator.normalizes_codes:
                    x = torch.cat([generator.normalize_codes(code)[:, : generator.latent_dim], x], dim=1)
                moments.add(x)
            done += len(codes)
            if progress is not None:
                progress(done / samples)
        if generator.has_style_codes:
            return [_components(moments.covariance()) for moments in sums]
        affines = [affine[:, : generator.latent_dim].double() for affine in generator.affines()]
        return [
            _components_of_outputs(torch.cat([affines[layer] for layer in group]), moments.covariance())
            for group, moments in zip(groups, sums, strict=True)
        ]


def _components(covariance: Tensor) -> Components:
    directions, variances = eigenpairs(covariance)
    _check_variance(variances)
    sigma = variances.clamp_min(zero_level(variances, len(covariance))).sqrt()  # A vector must not be zero.
    return Components(directions * sigma[:, None], variances)


def _components_of_outputs(A: Tensor, covariance: Tensor) -> Components:
    """Find the components of y = A·x, which has more entries than x, without forming its covariance.

    With S = cov(x) = R·R, each eigenvector v of R·AᵀA·R gives an eigenvector A·R·v / |A·R·v| of cov(y) = A·S·Aᵀ with
    the same eigenvalue. The coordinates of y along these, divided by their standard deviations, are vᵀ·R⁻¹·(x - x̄).
    They are uncorrelated, so the least-squares map from them back to the code c is their covariance with c,
    vᵀ·R⁻¹·cov(x, c).
    """
    size = A.shape[1]
    S, cross = covariance[:size, :size], covariance[:size, -size:]  # x is c itself if nothing is normalised.
    axes, variances_of_x = eigenpairs(S)
    _check_variance(variances_of_x)
    sigma = variances_of_x.clamp_min(zero_level(variances_of_x, size)).sqrt()
    R, inverse = axes.T * sigma @ axes, axes.T / sigma @ axes
    v, variances = eigenpairs(R @ (A.T @ A) @ R)
    return Components(fix_signs(F.normalize(v @ inverse @ cross, dim=1)), variances)


@torch.no_grad()
def random_codes(generator: Generator, samples: int, seed: int, label: int | None = None) -> Iterator[Tensor]:
    """Yield the codes of random latents, [N, L, D] at a time; classes are random unless `label` is given."""
    random = torch.Generator().manual_seed(seed)
    device = next(generator.parameters()).device
    for start in range(0, samples, CHUNK):
        count = min(CHUNK, samples - start)
        z = torch.randn(count, generator.z_dim, generator=random).to(device)
        labels = None
        if generator.num_classes:
            labels = torch.randint(generator.num_classes, (count,), generator=random).to(device)
            if label is not None:
                labels.fill_(label)
        yield generator.encode(z, labels)


class _Moments:
    """Accumulates the mean and covariance, in float64, of vectors that come in chunks."""

    def __init__(self) -> None:
        self.count = 0
        self.origin: Tensor | None = None  # The first chunk's mean: close to the overall mean, so little cancels.

    def add(self, x: Tensor) -> None:
        """Add vectors [N, D]."""
        x = x.double()
        if self.origin is None:
            self.origin = x.mean(dim=0)
            self.sum = torch.zeros_like(self.origin)
            self.products = x.new_zeros(x.shape[1], x.shape[1])
        x = x - self.origin
        self.count += len(x)
        self.sum += x.sum(dim=0)
        self.products += x.T @ x

    def covariance(self) -> Tensor:
        """Return the unbiased covariance, [D, D]."""
        return (self.products - torch.outer(self.sum, self.sum) / self.count) / (self.count - 1)


def _check(generator: Generator, samples: int, seed: int, label: int | None) -> None:
    for name, value in (("samples", samples), ("seed", seed)):
        if type(value) is not int:
            raise ArgumentError(f"{name} must be an integer, got {value!r}")
    if samples <= generator.latent_dim:
        raise ArgumentError(
            f"samples must be more than {generator.latent_dim}, the latent's size, and better a hundred times as many; "
            f"got {samples}"
        )
    if samples > MAX_SAMPLES:
        raise ArgumentError(f"samples must be at most {MAX_SAMPLES}, got {samples}")
    if generator.latent_dim > MAX_SIDE:
        raise ArgumentError(
            f"ganspace is for latents of at most {MAX_SIDE} values, this one has {generator.latent_dim}: use sefa"
        )
    if not 0 <= seed < 2**63:
        raise ArgumentError(f"seed must be in 0..{2**63 - 1}, got {seed}")
    if label is None:
        return
    if not generator.num_classes:
        raise ArgumentError("the generator is not class-conditional: it takes no label")
    if type(label) is not int or not 0 <= label < generator.num_classes:
        raise ArgumentError(f"label must be in 0..{generator.num_classes - 1}, got {label!r}")


def _check_variance(variances: Tensor) -> None:
    if not variances.isfinite().all():
        raise ArgumentError("the generator's codes are not finite")
    if not float(variances[0]) > 0:
        raise ArgumentError("the generator's codes are all the same: there is nothing to analyse")
