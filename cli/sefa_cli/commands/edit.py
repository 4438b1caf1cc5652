"""sefa edit: one edited image per seed."""

from pathlib import Path
from typing import Annotated

import typer

from sefa_cli.descriptions import where_it_ran
from sefa_cli.image_warnings import warn_of_flat_images, warn_of_format, warn_of_range, warn_of_truncation
from sefa_cli.latent_options import LatentOptions, add_labels, check_image_bytes
from sefa_cli.option_groups import Typed
from sefa_cli.options import (
    LabelOption,
    LabelsOption,
    ModelArgument,
    ScaleOption,
    SessionOptions,
    TrimOption,
    TruncationOption,
    latent_options,
)
from sefa_cli.output import say, warn, working
from sefa_cli.parsing import parse_edits
from sefa_runtime.files import check_output
from sefa_runtime.model.reading import files_of, read_info


def edit(
    model: ModelArgument,
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="FILE", help="A .png (lossless), .webp or .jpg file to write.")
    ],
    *,
    latents: Annotated[
        LatentOptions,
        latent_options(
            "--seed", "--seeds", what="Which image: [b]7[/b], or several side by side: [b]1,2,5-8[/b]; 0 if not given."
        ),
    ],
    edits: Annotated[
        dict[str | int, float] | None,
        typer.Option(
            "--edit",
            metavar="DIRECTION=ALPHA",
            help="How far to move along a direction, given by name or index; may be repeated, edits add up.",
        ),
        Typed(list[str] | None, parse_edits),
    ] = None,
    label: LabelOption = None,
    labels: LabelsOption = None,
    trim: TrimOption = 0,
    truncation: TruncationOption = None,
    scale: ScaleOption = 1,
    session: SessionOptions,
) -> None:
    """Render an image, moved along one or more directions.

    [b]sefa edit faces.onnx -o face.png --seed 7 --edit turn=2.5 --edit 4=1[/b]

    [b]sefa edit letters.onnx -o word.png --labels SeFa --seeds 7,8 --edit weight=2[/b]

    A seed gives the same latent on every machine. Without [b]--edit[/b] the image is unedited. How much the edits
    change the images is measured and printed.
    """
    import numpy as np

    from sefa_runtime.images import IMAGE_SUFFIXES, check_suffix, enlarge, grid, save_image, side_by_side

    check_suffix(output, IMAGE_SUFFIXES)
    check_output(output, *files_of(model), latents.z, latents.codes)
    info = read_info(model)
    warn_of_format(info, output)
    inputs, count, classes = add_labels(info, latents.choose(info), label, labels, trim)
    inputs["truncation"] = truncation
    warn_of_truncation(truncation)
    with working("Rendering"):
        editor = session.load(model)
        check_image_bytes(editor.info, count, scale)
        images = editor.edit(**inputs, edits=edits)
        levels = np.abs(images.astype(np.int16) - editor.edit(**inputs)).mean() if edits else 0.0
    for direction, alpha in (edits or {}).items():
        warn_of_range(editor.info, editor.direction_index(direction), [alpha])
    warn_of_flat_images(images)
    rows = images[None] if labels is None else side_by_side(images, classes, trim)[:, None]
    image = enlarge(grid(rows), scale)
    save_image(image, output)
    if edits and not levels:
        warn("the edits change no pixel: the alphas are too small, or the directions do nothing (see sefa explore)")
    change = f", changed by {levels:.3g} of 255 levels on average" if levels else ""
    say(f"{output}: {image.shape[1]}x{image.shape[0]} pixels{change}, {where_it_ran(editor.session)}")
