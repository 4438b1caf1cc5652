"""Images from uint8 arrays: files, grids, labelled sheets and animations. Videos are in `images.video`."""

from sefa_runtime.images.animations import (
    ANIMATION_SUFFIXES,
    check_pace,
    eased,
    forth_and_back,
    round_trip,
    save_animation,
)
from sefa_runtime.images.conversion import Images, check_channels, on_white, to_pillow
from sefa_runtime.images.layout import contact_sheet, enlarge, grid, mosaic, side_by_side
from sefa_runtime.images.saving import IMAGE_SUFFIXES, TRANSPARENT_SUFFIXES, check_suffix, save_image

__all__ = [
    "ANIMATION_SUFFIXES",
    "IMAGE_SUFFIXES",
    "TRANSPARENT_SUFFIXES",
    "Images",
    "check_channels",
    "check_pace",
    "check_suffix",
    "contact_sheet",
    "eased",
    "enlarge",
    "forth_and_back",
    "grid",
    "mosaic",
    "on_white",
    "round_trip",
    "save_animation",
    "save_image",
    "side_by_side",
    "to_pillow",
]
