"""sefa sweep: an image strip, a grid or an animation along one direction."""

from pathlib import Path
from typing import Annotated

import typer

from sefa_cli.descriptions import where_it_ran
from sefa_cli.image_warnings import warn_of_flat_images, warn_of_format, warn_of_range, warn_of_truncation
from sefa_cli.latent_options import LatentOptions, check_image_bytes
from sefa_cli.options import LabelOption, ModelArgument, ScaleOption, SessionOptions, TruncationOption, latent_options
from sefa_cli.output import progress_bar, say, warn
from sefa_cli.parsing import linear_steps, parse_alphas, parse_direction
from sefa_runtime.files import check_output
from sefa_runtime.model.reading import files_of, read_info


def sweep(
    model: ModelArgument,
    output: Annotated[
        Path,
        typer.Option(
            "-o",
            "--output",
            metavar="FILE",
            help="[b].png[/b], [b].jpg[/b]: rows are seeds, columns are alphas. [b].gif[/b], [b].webp[/b]: a looping "
            "animation. [b].mp4[/b]: a video, which needs ffmpeg, or [b]pip install 'sefa\\[video]'[/b].",
        ),
    ],
    *,
    direction: Annotated[str, typer.Option(metavar="NAME|INDEX", help="The direction to move along.")] = "0",
    latents: Annotated[
        LatentOptions,
        latent_options("--seeds", "--seed", what="[b]7[/b], or several: [b]1,2,5-8[/b]; 0 if not given."),
    ],
    alphas: Annotated[
        str | None,
        typer.Option(
            metavar="FROM:TO:STEPS",
            help="The distances, such as [b]-3:3:7[/b] or [b]-2,0,2[/b]. An animation runs back and forth over them, "
            "and over [b]FROM:TO:STEPS[/b] slows down before each turn.",
            show_default="the direction's suggested range, 7 steps, 24 in an animation",
        ),
    ] = None,
    label: LabelOption = None,
    truncation: TruncationOption = None,
    scale: ScaleOption = 1,
    frames_per_second: Annotated[float, typer.Option("--fps", help="Frames per second of an animation.")] = 12.0,
    session: SessionOptions,
) -> None:
    """See what a direction does: move along it, for one or more seeds.

    [b]sefa sweep faces.onnx -o turn.gif --direction turn --seeds 1-6 --scale 3[/b]

    An animation shows all seeds at once, in a grid.
    """
    from sefa_runtime.images import (
        ANIMATION_SUFFIXES,
        IMAGE_SUFFIXES,
        check_pace,
        check_suffix,
        eased,
        enlarge,
        grid,
        mosaic,
        save_animation,
        save_image,
    )
    from sefa_runtime.images.video import VIDEO_SUFFIXES, find_ffmpeg, save_video

    check_suffix(output, (*IMAGE_SUFFIXES, ".gif", *VIDEO_SUFFIXES))
    check_output(output, *files_of(model), latents.z, latents.codes)
    check_pace(frames_per_second)
    filmed = output.suffix.lower() in VIDEO_SUFFIXES
    animated = filmed or output.suffix.lower() in ANIMATION_SUFFIXES
    if filmed:
        find_ffmpeg()  # Fail now rather than after minutes of rendering.
    steps = None if alphas is None else parse_alphas(alphas)
    steps_between = eased if animated else linear_steps
    if steps is not None and alphas is not None and ":" in alphas:
        steps = steps_between(steps[0], steps[-1], len(steps))
    info = read_info(model)
    warn_of_format(info, output)
    inputs = latents.choose(info)
    warn_of_truncation(truncation)
    with progress_bar("Rendering") as show:
        editor = session.load(model)
        index = editor.direction_index(parse_direction(direction))
        if steps is None:
            steps = steps_between(*editor.info.directions[index].alpha_range, 24 if animated else 7)
        check_image_bytes(editor.info, len(next(iter(inputs.values()))) * len(steps), scale)
        images = editor.sweep(
            **inputs, direction=index, alphas=steps, label=label, truncation=truncation, progress=show
        )
    warn_of_range(editor.info, index, steps)
    warn_of_flat_images(images)
    images = enlarge(images, scale)
    if animated:
        if len(steps) == 1:
            warn("one step is one frame: nothing moves")
        save = save_video if filmed else save_animation
        save(mosaic(images), output, frames_per_second)
    else:
        save_image(grid(images), output)
    say(
        f"{output}: {editor.info.names[index]}, alpha {steps[0]:g} to {steps[-1]:g} in {len(steps)} steps, "
        f"{len(images)} {'image' if len(images) == 1 else 'images'}, {where_it_ran(editor.session)}"
    )
