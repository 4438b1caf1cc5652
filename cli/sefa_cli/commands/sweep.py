"""sefa sweep: an image strip, a grid or an animation along one direction."""

from pathlib import Path
from typing import Annotated

import typer

from sefa_cli.descriptions import where_it_ran
from sefa_cli.image_warnings import warn_of_flat_images, warn_of_format, warn_of_range, warn_of_truncation
from sefa_cli.latent_options import LatentOptions, add_labels, check_image_bytes
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
from sefa_cli.output import progress_bar, say, warn
from sefa_cli.parsing import linear_steps, parse_alphas, parse_direction
from sefa_runtime.errors import InputError
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
            help="[b].png[/b], [b].jpg[/b]: a row for each seed and direction, columns are alphas. [b].gif[/b], "
            "[b].webp[/b]: a looping animation. [b].mp4[/b]: a video, which needs ffmpeg, or "
            "[b]pip install 'sefa\\[video]'[/b].",
        ),
    ],
    *,
    direction: Annotated[
        str,
        typer.Option(
            metavar="NAME|INDEX",
            help="The direction to move along; or several, [b]weight,slant[/b], one after the other in an animation.",
        ),
    ] = "0",
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
            show_default="each direction's suggested range, 7 steps; in an animation 24, of several directions 17",
        ),
    ] = None,
    label: LabelOption = None,
    labels: LabelsOption = None,
    trim: TrimOption = 0,
    truncation: TruncationOption = None,
    scale: ScaleOption = 1,
    frames_per_second: Annotated[float, typer.Option("--fps", help="Frames per second of an animation.")] = 12.0,
    session: SessionOptions,
) -> None:
    """See what a direction does: move along it, for one or more seeds.

    [b]sefa sweep faces.onnx -o turn.gif --direction turn --seeds 1-6 --scale 3[/b]

    [b]sefa sweep letters.onnx -o word.gif --labels SeFa --direction weight,slant --seeds 7,8[/b]

    An animation shows all seeds at once, in a grid; with [b]--labels[/b], a row for each.
    """
    import numpy as np

    from sefa_runtime.images import (
        ANIMATION_SUFFIXES,
        IMAGE_SUFFIXES,
        Images,
        check_pace,
        check_suffix,
        eased,
        enlarge,
        grid,
        mosaic,
        round_trip,
        save_animation,
        save_image,
        side_by_side,
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
    inputs, count, classes = add_labels(info, latents.choose(info), label, labels, trim)
    warn_of_truncation(truncation)
    with progress_bar("Rendering") as show:
        editor = session.load(model)
        indices = [editor.direction_index(parse_direction(part)) for part in direction.split(",")]
        if len(set(indices)) < len(indices):
            raise InputError(f"a direction is given twice: {direction}")
        # An odd number of steps has 0, where the directions meet, if their ranges are symmetric.
        usual = 7 if not animated else 24 if len(indices) == 1 else 17
        ranges = [editor.info.directions[index].alpha_range for index in indices]
        all_steps = [steps_between(*one, usual) if steps is None else steps for one in ranges]
        check_image_bytes(editor.info, count * sum(map(len, all_steps)), scale)
        sweeps: list[Images] = []  # [images, alphas, H, W, C] each
        for index, steps in zip(indices, all_steps, strict=True):
            done = len(sweeps)
            sweeps.append(
                editor.sweep(
                    **inputs,
                    direction=index,
                    alphas=steps,
                    truncation=truncation,
                    progress=lambda share, done=done: show((done + share) / len(indices)),  # type: ignore[misc]
                )
            )
    for index, steps in zip(indices, all_steps, strict=True):
        warn_of_range(editor.info, index, steps)
    warn_of_flat_images(np.concatenate(sweeps))
    if animated:
        if len(all_steps[0]) == 1:
            warn("one step is one frame: nothing moves")
        closed = len(sweeps) > 1
        if closed:  # One direction after the other.
            rounds = [images[:, round_trip(steps)] for images, steps in zip(sweeps, all_steps, strict=True)]
            sweeps = [np.concatenate(rounds, axis=1)]
        frames = enlarge(side_by_side(sweeps[0], classes, trim), scale)
        frames = mosaic(frames, None if labels is None else 1)
        save = save_video if filmed else save_animation
        save(frames, output, frames_per_second, closed=closed)
    else:
        images = enlarge(
            side_by_side(np.stack(sweeps, axis=1), classes, trim), scale
        )  # [rows, directions, alphas, ...]
        gap = 0 if labels is None else images.shape[-3] // 4  # Else words would run into each other.
        save_image(grid(images.reshape(-1, *images.shape[2:]), gap), output)
    paths = [
        f"{editor.info.names[index]}, alpha {steps[0]:g} to {steps[-1]:g}"
        for index, steps in zip(indices, all_steps, strict=True)
    ]
    say(
        f"{output}: {', '.join(paths)} in {len(all_steps[0])} steps, "
        f"{count} {'image' if count == 1 else 'images'}, {where_it_ran(editor.session)}"
    )
