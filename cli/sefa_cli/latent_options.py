"""The latents given to a command: seeds, a file of z, or a file of codes."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sefa_cli.output import warn
from sefa_runtime.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from sefa_runtime import ModelInfo

MAX_IMAGE_BYTES = 2**31


@dataclass(frozen=True)
class LatentOptions:
    """Where latents come from: at most one of these; if none is given, seed 0."""

    seeds: list[int] | None = None
    z: Path | None = None
    codes: Path | None = None

    def choose(self, info: "ModelInfo") -> dict[str, Any]:
        """Return the `seed=`, `z=`, `w=` or `codes=` argument for an Editor.

        Raises:
            InputError: If several were given, a file cannot be read, or the model takes another kind of latent.
        """
        if sum(way is not None for way in vars(self).values()) > 1:
            raise InputError("give seeds, --z or --codes, not several of them")
        if (self.codes is None) != (info.latent == "z"):
            raise InputError(
                f"the model takes {info.latent}: give --codes FILE, with [N, {', '.join(map(str, info.latent_shape))}]"
                if self.codes is None
                else "the model takes z: codes need one exported with --latent w+"
            )
        if self.codes is not None:
            return {info.latent_name: _load_codes(self.codes, info)}
        if self.z is not None:
            from sefa_runtime.inputs.code_files import load_latents

            z = load_latents(self.z)
            return {"z": z if z.ndim > 1 else z[None]}
        return {"seed": [0] if self.seeds is None else self.seeds}


def add_labels(
    info: "ModelInfo", inputs: dict[str, Any], label: str | None, labels: str | None, trim: int = 0
) -> tuple[dict[str, Any], int, int]:
    """Add the classes to the arguments for an Editor.

    Args:
        info: The model.
        inputs: What `LatentOptions.choose` returned.
        label: Classes of all latents, or one for each; None: not given.
        labels: Classes of each latent: N latents become N times as many, all classes of one before the next.
        trim: Columns to cut off at each side of these.

    Returns:
        The arguments, the number of images, and how many of them are one latent's in different classes.

    Raises:
        InputError: If both are given, there is no such class, the model takes no label, or the trim leaves nothing.
    """
    import numpy as np

    from sefa_runtime.inputs.labels import parse_labels

    ((name, latents),) = inputs.items()
    if label is not None and labels is not None:
        raise InputError("give --label or --labels, not both")
    if trim and labels is None:
        raise InputError("--trim is for --labels, whose images stand side by side")
    if not 0 <= 2 * trim < info.resolution[1]:
        raise InputError(f"--trim must be 0 to {(info.resolution[1] - 1) // 2} for this model, got {trim}")
    if labels is not None:
        found = parse_labels(info, labels)
        crossed = {name: np.repeat(latents, len(found), axis=0), "label": found * len(latents)}
        return crossed, len(latents) * len(found), len(found)
    if label is None:
        return inputs, len(latents), 1
    found = parse_labels(info, label)
    return inputs | {"label": found}, max(len(latents), len(found)), 1


def check_image_bytes(info: "ModelInfo", count: int, scale: int) -> None:
    """Check, before the first is rendered, that the images do not need too much memory in total.

    Args:
        info: The model.
        count: How many images.
        scale: How many times each is enlarged.

    Raises:
        InputError: If they do.
    """
    height, width, channels = info.image_shape
    size = count * height * width * channels * scale**2
    if size > MAX_IMAGE_BYTES:
        raise InputError(
            f"{count} images of {width * scale}x{height * scale} pixels take {size / 1e9:.3g} GB: at most "
            f"{MAX_IMAGE_BYTES / 1e9:.3g} GB at once; take fewer seeds or steps, or a smaller --scale"
        )


def _load_codes(path: Path, info: "ModelInfo") -> "NDArray[np.float32]":
    from sefa_runtime.inputs.code_files import load_codes, looks_like_latents

    codes = load_codes(path, info.latent_shape, info.num_layers, lambda text: warn(f"{path}: {text}"))
    if looks_like_latents(codes, info):
        warn(f"{path}: these look like latents z, not like codes: z is for a model exported without --latent")
    return codes
