"""Directions of StyleSpace, recognised to say why they are refused.

StyleSpace (Wu et al., "StyleSpace Analysis", CVPR 2021) is made of the outputs of all style affines, s_l = A_l·w + b_l.
StyleCLIP's global directions move its channels.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sefa.errors import BankError
from sefa.generators import Generator

WHY = "edits here are added to w, before the affines, and cannot move single channels of their outputs"
CLIP_FEATURES = (512, 640, 768, 1024)


def check_no_style_space(path: Path, content: Any, generator: Generator) -> None:
    """Refuse what StyleSpace's and StyleCLIP's tools write.

    Args:
        path: The file, for messages.
        content: A mapping of arrays, by "" if there is one, or whatever else the file holds.
        generator: The generator whose channels they may be.

    Raises:
        BankError: If the content is such.
    """
    if not generator.has_style_codes:
        return
    content = content.get("", content) if isinstance(content, Mapping) else content
    channels = [len(affine) for affine in generator.affines()]
    if isinstance(content, np.ndarray):
        width = generator.code_dim
        if (
            content.ndim == 2
            and content.shape[1] in CLIP_FEATURES
            and len(content) > width
            and not _has_unit_rows(content)
        ):
            raise BankError(
                f"{path}: what each of {len(content)} channels does to {content.shape[1]} features of CLIP (fs3.npy "
                f"of StyleCLIP), of which a text makes a direction of StyleSpace: {WHY}"
            )
        if (
            content.ndim in (1, 2)
            and content.shape[-1] != width
            and content.shape[-1] in (sum(channels), sum(channels[:-1]))
        ):
            raise BankError(f"{path}: a direction of the {content.shape[-1]} channels of StyleSpace: {WHY}")
        return
    items = list(content.values() if isinstance(content, Mapping) else content if isinstance(content, list) else ())
    if items and all(_is_channel(item) for item in items):
        raise BankError(f"{path}: a list of {len(items)} channels of StyleSpace, layer and number: {WHY}")
    widths = [item.shape[-1] for item in items if isinstance(item, np.ndarray) and item.ndim in (1, 2)]
    if len(items) == len(widths) > 1 and len(set(widths)) > 1 and set(widths) <= set(channels):
        raise BankError(f"{path}: a direction of the channels of StyleSpace, in {len(widths)} layers: {WHY}")


def _has_unit_rows(rows: np.ndarray[Any, Any]) -> bool:
    return bool(np.allclose(np.linalg.norm(rows.astype(np.float64), axis=1), 1, atol=1e-3))


def _is_channel(item: Any) -> bool:
    is_pair = isinstance(item, Sequence) and len(item) in (2, 3) and not isinstance(item, str)
    return is_pair and all(type(number) is int for number in item[:2])
