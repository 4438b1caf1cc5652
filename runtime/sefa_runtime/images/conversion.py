"""Convert images from numpy to Pillow."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sefa_runtime.errors import InputError

# uint8 [..., H, W, C]: 1 (grey), 3 (RGB) or 4 (RGBA) channels.
Images = NDArray[np.uint8]
PAPER = (255, 255, 255)


def to_pillow(image: Images) -> Image.Image:
    """Return one image, [H, W, C], as a Pillow image.

    Raises:
        InputError: If its channels cannot be shown as colours, or it is not a uint8 array of that shape.
    """
    if image.ndim != 3 or image.dtype != np.uint8:
        raise InputError(f"an image is uint8 [H, W, C], got {image.dtype} {list(image.shape)}")
    check_channels(image.shape[-1])
    return Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)


def on_white(image: Image.Image) -> Image.Image:
    """Return an RGBA image as RGB, composited on white, and any other image as it is."""
    if image.mode != "RGBA":
        return image
    return Image.alpha_composite(Image.new("RGBA", image.size, PAPER), image).convert("RGB")


def check_channels(channels: int) -> None:
    """Reject a number of channels that cannot be shown as colours.

    Raises:
        InputError: If it cannot.
    """
    if channels not in (1, 3, 4):
        raise InputError(
            f"images of {channels} channels cannot be shown: 1 (grey), 3 (RGB) or 4 (RGBA) are needed; "
            "sefa_runtime.load(MODEL).edit gives them as an array"
        )
