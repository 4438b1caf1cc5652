"""sefa export: checkpoint to ONNX, TorchScript or .pt2."""

from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from sefa.errors import ArgumentError
from sefa.opening import OpenOptions
from sefa_cli.descriptions import describe_parity, origin_facts
from sefa_cli.from_checkpoint import check_bank_options, find_directions, open_generator
from sefa_cli.image_warnings import warn_of_truncation
from sefa_cli.option_groups import Typed, given
from sefa_cli.options import BANK, OPENING, CheckpointArgument, DirectionOptions, JsonOption, OtherCheckpointOption
from sefa_cli.output import format_bytes, print_json, say, working
from sefa_cli.parsing import parse_class_names, parse_sizes
from sefa_runtime.files import check_output
from sefa_runtime.model.choices import Latent, OutputType, Precision
from sefa_runtime.model.reading import read_info, weights_path


class Format(StrEnum):
    """The format of the exported file."""

    ONNX = "onnx"
    TORCHSCRIPT = "torchscript"
    PT2 = "pt2"


# Endings that promise a format; a file may have any other.
ENDINGS = {".onnx": Format.ONNX, ".ts": Format.TORCHSCRIPT, ".pt2": Format.PT2}


def export(
    checkpoint: CheckpointArgument,
    output: Annotated[Path, typer.Option("-o", "--output", metavar="MODEL", help="The file to write.")],
    *,
    bank: Annotated[Path | None, BANK] = None,
    allow_other_checkpoint: OtherCheckpointOption = False,
    choices: DirectionOptions,
    opening: Annotated[OpenOptions, OPENING],
    latent: Annotated[
        Latent,
        typer.Option(
            help="Input of the graph: latents [b]z[/b]; for StyleGANs also a style code [b]w[/b], or one per layer, "
            "[b]w+[/b], as for inverted photographs."
        ),
    ] = Latent.Z,
    truncation: Annotated[
        float | None,
        typer.Option(
            metavar="PSI",
            help="Truncation psi, fixed in the graph; 0.7 is customary for StyleGANs.",
            show_default="1, which is off",
        ),
    ] = None,
    truncation_input: Annotated[
        bool, typer.Option("--truncation-input", help="Make psi an input of the graph instead, one per image.")
    ] = False,
    file_format: Annotated[Format, typer.Option("--format", help="The kind of file to write.")] = Format.ONNX,
    precision: Annotated[
        Precision,
        typer.Option(
            help="[b]fp16[/b] computes convolutions in half precision and shrinks the file to 50 to 65 %; refused if "
            "an image falls below 40 dB PSNR to float32."
        ),
    ] = Precision.FP32,
    batch: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Fix the batch size, for engines that need static shapes, or code that makes a number of it.",
        ),
    ] = None,
    edits: Annotated[int | None, typer.Option(metavar="E", help="Fix the number of edits per image, too.")] = None,
    compiled: Annotated[
        bool,
        typer.Option(
            "--compile", help="Compile a .pt2 with AOTInductor, for CPUs like this one; needs a C++ compiler."
        ),
    ] = False,
    external_data: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Keep the weights in a file of this name beside the model, such as [b]netG.safetensors[/b]; models of "
            "one generator that name the same file share it.",
        ),
    ] = None,
    winograd: Annotated[
        bool,
        typer.Option(
            "--winograd",
            help="Write the 3x3 convolutions of 128 channels or more at 16 to 128 pixels in Winograd's form, which is "
            "faster on CPUs; their weights take four times the space. [b]sefa tune[/b] compares both files.",
        ),
    ] = False,
    winograd_at: Annotated[
        tuple[int, ...] | None,
        typer.Option(
            metavar="SIZES",
            help="The same for all 3x3 convolutions at these resolutions instead, such as [b]32,64[/b].",
        ),
        Typed(str | None, parse_sizes),
    ] = None,
    keep_layers: Annotated[
        bool,
        typer.Option(
            "--keep-layers",
            help="Leave convolutions and layers that double the size in the generator's own form, which is slower on "
            "the provider [b]cpu[/b] and faster on OpenVINO in bfloat16; in half precision they are always left.",
        ),
    ] = False,
    output_type: Annotated[
        OutputType,
        typer.Option(
            help="[b]uint8[/b]: images \\[batch, H, W, C]; [b]float32[/b]: \\[batch, C, H, W] in -1 to 1.",
        ),
    ] = OutputType.UINT8,
    license: Annotated[
        str | None,
        typer.Option(
            metavar="SPDX",
            help="Licence of the generator, to record in the file: [b]CC-BY-4.0[/b], or other text of one line.",
            show_default="the one that the checkpoint names, if any",
        ),
    ] = None,
    note: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT",
            help="What else users of the file should know of the generator, one line.",
            show_default="what the checkpoint says, if anything",
        ),
    ] = None,
    class_names: Annotated[
        tuple[str, ...] | None,
        typer.Option(
            metavar="NAMES|FILE",
            help="Names of the classes, in the order of their indices: [b]cat,dog,bird[/b], or a text file with one a "
            "line.",
            show_default="those in the checkpoint, if any",
        ),
        Typed(str | None, parse_class_names),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Bake a generator and its directions into one graph that takes (z, direction, alpha).

    [b]sefa export netG.pth -o netG.onnx[/b]

    The graph is compared with PyTorch over several batches, directions and alphas before the file is put in place. The
    file describes itself: its directions, resolution and origin, and the difference that was measured.
    """
    from sefa.bank.direction_bank import DirectionBank
    from sefa_export import export_onnx, export_pt2, export_torchscript

    check_output(output, checkpoint, bank, opening.weights)
    if output.suffix.lower() == ".safetensors":
        raise ArgumentError(f"{output}: the name is that of a direction bank or of weights: a model ends in .onnx")
    promised = ENDINGS.get(output.suffix.lower(), file_format)
    if promised != file_format:
        raise ArgumentError(
            f"{output}: the name is that of a {promised} file, and the file would be {file_format}: give --format "
            f"{promised}, or another name"
        )
    check_bank_options(bank, allow_other_checkpoint, given(choices))
    if truncation_input and truncation is not None:
        raise ArgumentError("give --truncation or --truncation-input, not both")
    if precision != Precision.FP32 and file_format != Format.ONNX:
        raise ArgumentError(f"--precision fp16 is for ONNX files, not for {file_format}")
    if compiled and file_format != Format.PT2:
        raise ArgumentError(f"--compile is for pt2 files, not for {file_format}")
    if external_data is not None and file_format != Format.ONNX:
        raise ArgumentError(f"--external-data is for ONNX files, not for {file_format}")
    if (winograd or winograd_at is not None) and file_format != Format.ONNX:
        raise ArgumentError(f"--winograd is for ONNX files, not for {file_format}")
    if keep_layers and file_format != Format.ONNX:
        raise ArgumentError(f"--keep-layers is for ONNX files, not for {file_format}")
    warn_of_truncation(truncation)
    generator = open_generator(checkpoint, opening, choices.layers, need_layers=bank is None)
    if class_names is not None:
        generator.class_names = class_names
    directions = find_directions(generator, choices) if bank is None else DirectionBank.load(bank)
    psi = None if truncation_input else 1.0 if truncation is None else truncation
    write: Callable[..., Path]
    options: dict[str, Any] = {
        "latent": latent,
        "truncation": psi,
        "allow_other_checkpoint": allow_other_checkpoint,
        "batch": batch,
        "num_edits": edits,
        "license": license,
        "note": note,
    }
    if file_format == Format.ONNX:
        write = export_onnx
        options |= {"precision": precision, "external_data": external_data, "keep_layers": keep_layers}
        options["winograd"] = winograd if winograd_at is None else winograd_at
    elif file_format == Format.PT2:
        write, options = export_pt2, options | {"compiled": compiled}
    else:
        write = export_torchscript
    with working("Exporting and verifying against PyTorch"):
        write(generator, directions, output, output_type, **options)
    info = read_info(output)
    if json:
        print_json({"model": str(output), "bytes": output.stat().st_size, "info": info.to_dict()})
        return
    height, width = info.resolution
    say(f"{output}: {format_bytes(output.stat().st_size)}, {width}x{height} pixels, {len(info.directions)} directions")
    weights = weights_path(output, info)
    if weights is not None:
        say(f"{weights}: {format_bytes(weights.stat().st_size)} of weights; keep it beside the model")
    say(f"verified against PyTorch: {describe_parity(info)}")
    for name, value in origin_facts(info):
        from_file = {"license": license, "note": note}.get(name, "") is None
        say(f"{name}: {value}" + (f", as {(opening.weights or checkpoint).name} says" if from_file else ""))
