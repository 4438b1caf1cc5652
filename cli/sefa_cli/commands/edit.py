"""sefa edit: one edited image per seed."""

from pathlib import Path
from typing import Annotated

import typer

from sefa_cli.options import (
    CodesOption,
    CpuFallbackOption,
    LabelOption,
    LatentFileOption,
    ModelArgument,
    ProviderOption,
    ProviderOptionsOption,
    ThreadsOption,
    TruncationOption,
    check_image_bytes,
    choose_latents,
    parse_edit,
    parse_label,
    parse_provider_options,
)
from sefa_cli.output import say, warn, where_it_ran, working
from sefa_cli.surprises import warn_of_flat_images, warn_of_format, warn_of_range, warn_of_truncation
from sefa_runtime.errors import InputError
from sefa_runtime.files import check_output
from sefa_runtime.model.reading import files_of, read_info


def edit(
    model: ModelArgument,
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="FILE", help="A .png (lossless), .webp or .jpg file to write.")
    ],
    seed: Annotated[
        str | None,
        typer.Option(
            "--seed",
            "--seeds",
            metavar="SEEDS",
            help="Which image: [b]7[/b], or several side by side: [b]1,2,5-8[/b]; 0 if not given.",
        ),
    ] = None,
    z: LatentFileOption = None,
    codes: CodesOption = None,
    edits: Annotated[
        list[str] | None,
        typer.Option(
            "--edit",
            metavar="DIRECTION=ALPHA",
            help="How far to go along a direction, by name or index; may be repeated, edits add up.",
        ),
    ] = None,
    label: LabelOption = None,
    truncation: TruncationOption = None,
    scale: Annotated[int, typer.Option(metavar="N", help="Enlarge the images N times.")] = 1,
    provider: ProviderOption = "auto",
    provider_options: ProviderOptionsOption = None,
    allow_cpu_fallback: CpuFallbackOption = False,
    threads: ThreadsOption = None,
) -> None:
    """Draw a seed's image, moved along one or more directions.

    [b]sefa edit faces.onnx -o face.png --seed 7 --edit turn=2.5 --edit 4=1[/b]

    The same seed is the same latent on every machine. Without [b]--edit[/b] it is the unedited one. How far the edits
    change the images is measured and said.
    """
    import numpy as np

    from sefa_runtime import load
    from sefa_runtime.images import IMAGE_SUFFIXES, check_suffix, enlarge, grid, save_image

    check_suffix(output, IMAGE_SUFFIXES)
    check_output(output, *files_of(model), z, codes)
    parsed = [parse_edit(text) for text in edits or []]
    wanted = dict(parsed)
    if len(wanted) < len(parsed):
        raise InputError(f"a direction is given twice: {', '.join(edits or [])}")
    options = parse_provider_options(provider_options)
    info = read_info(model)
    warn_of_format(info, output)
    inputs = choose_latents(seed, z, codes, info) | {"label": parse_label(label), "truncation": truncation}
    warn_of_truncation(truncation)
    with working("Drawing"):
        editor = load(model, provider, options, threads, allow_cpu_fallback=allow_cpu_fallback)
        check_image_bytes(editor.info, len(next(iter(inputs.values()))), scale)
        images = editor.edit(**inputs, edits=wanted)
        levels = np.abs(images.astype(np.int16) - editor.edit(**inputs)).mean() if wanted else 0.0
    for direction, alpha in wanted.items():
        warn_of_range(editor.info, editor.direction_index(direction), [alpha])
    warn_of_flat_images(images)
    image = enlarge(grid(images[None]), scale)
    save_image(image, output)
    if wanted and not levels:
        warn("the edits change no pixel: the alphas are too small, or the directions do nothing (sefa explore tells)")
    change = f", changed by {levels:.3g} of 255 levels on average" if levels else ""
    say(f"{output}: {image.shape[1]}x{image.shape[0]} pixels{change}, {where_it_ran(editor.session)}")
