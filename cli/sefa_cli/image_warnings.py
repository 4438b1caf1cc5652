"""Warnings about options that a command obeys although they are probably mistakes."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sefa_cli.output import warn

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sefa_runtime import ModelInfo


def warn_of_truncation(psi: float | None) -> None:
    """Warn about a truncation that removes all effect of the latents, or moves codes beyond what was trained."""
    if psi == 0:
        warn("truncation psi 0 is the centre itself: the same image for every seed")
    elif psi is not None and not 0 < psi <= 1.5:
        warn(f"truncation psi is usually in 0 to 1, got {psi:g}: expect images that look broken")


def warn_of_format(info: "ModelInfo", output: Path) -> None:
    """Warn about a file format that cannot hold the model's alpha channel.

    Raises:
        InputError: If no format can hold the model's images.
    """
    from sefa_runtime.images import TRANSPARENT_SUFFIXES, check_channels

    check_channels(info.channels)
    if info.channels == 4 and output.suffix.lower() not in TRANSPARENT_SUFFIXES:
        kinds = " and ".join(TRANSPARENT_SUFFIXES)
        warn(f"{output.suffix} has no transparency, which the model's images have: they are on white ({kinds} keep it)")


def warn_of_range(info: "ModelInfo", index: int, alphas: Iterable[float]) -> None:
    """Warn about alphas beyond a direction's suggested range."""
    direction = info.directions[index]
    low, high = direction.alpha_range
    rounding = (high - low) * 1e-6
    beyond = [alpha for alpha in alphas if not low - rounding <= alpha <= high + rounding]
    if beyond:
        warn(
            f"alpha {max(beyond, key=abs):g} of {direction.name} is beyond its suggested range, {low:g} to {high:g}: "
            "the further, the less the image is what the generator learnt"
        )


def warn_of_flat_images(images: "NDArray[Any]") -> None:
    """Warn about images of a single colour; models exported before the graph marked NaN render it as black.

    Args:
        images: Shape [..., H, W, C].
    """
    flat = images.reshape(-1, images.shape[-3] * images.shape[-2], images.shape[-1])  # [N, H·W, C]
    count = sum(bool((image == image[0]).all()) for image in flat) if flat.shape[1] > 1 else 0
    if count:
        which = "the image is" if len(flat) == 1 else f"{count} of {len(flat)} images are"
        warn(f"{which} of one flat colour: an alpha or a code is far too large, or NaN came out of the model")
