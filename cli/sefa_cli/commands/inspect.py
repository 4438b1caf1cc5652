"""sefa inspect: what is in a file?"""

import re
import shlex
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sefa.bundled import find_bundled, is_bundled
from sefa.errors import listed
from sefa.opening import Device, Kind, OpenOptions, kind_of
from sefa_cli.descriptions import checkpoint_fact, describe_parity, origin_facts, print_directions, spans
from sefa_cli.from_checkpoint import discover_own, open_generator
from sefa_cli.options import OPENING, JsonOption, LayersOption
from sefa_cli.output import format_bytes, print_facts, print_json, print_table, say
from sefa_runtime.archives import open_archive
from sefa_runtime.files import sha256_of
from sefa_runtime.model.class_names import listed_classes
from sefa_runtime.model.info import ModelInfo, Prefix
from sefa_runtime.model.reading import check_payload, read_info, weights_path

if TYPE_CHECKING:
    from sefa.generators import Generator

MAX_SHOWN = 8  # most code files of an archive to list


def inspect(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="A checkpoint, a direction bank, an exported model, or [b]letters[/b], the generator that comes with "
            "sefa.",
        ),
    ],
    *,
    opening: Annotated[OpenOptions, OPENING.without("noise", "device")],
    layers: LayersOption = "all",
    json: JsonOption = False,
) -> None:
    """Show what is in a file: checkpoint, direction bank or exported model.

    [b]sefa inspect netG.pth[/b]

    The kind is detected from the contents, not the name. Inspecting an exported model needs no torch.
    """
    kind = kind_of(file)
    if kind == Kind.ARCHIVE and not opening.own and layers == "all":
        _inspect_torchscript(file, json)
    elif kind.is_model:
        _inspect_model(file, kind, json)
    elif kind == Kind.BANK:
        _inspect_bank(file, json)
    elif kind.is_own and (layers == "all" or opening.latent_dim is None):
        _inspect_own(file, layers, replace(opening, device=Device.CPU), json)
    else:
        _inspect_generator(file, layers, replace(opening, device=Device.CPU), json)


def _inspect_model(path: Path, kind: Kind, json: bool) -> None:
    info = read_info(path)
    beside = weights_path(path, info)
    if kind == Kind.ONNX:
        check_payload(path, info)
    if json:
        print_json({"kind": kind, "bytes": path.stat().st_size, "info": info.to_dict()})
        return
    print_facts(
        [
            ("file", f"{path}, {kind}, {format_bytes(path.stat().st_size)}"),
            *([("weights", f"{beside}, {format_bytes(beside.stat().st_size)}")] if beside else []),
            (
                "generator",
                f"{info.family}, latent {info.latent} of {'x'.join(map(str, info.latent_shape))}, "
                f"{_pixels(info.resolution, info.channels)}"
                + (f", {info.num_classes} classes" if info.num_classes else ""),
            ),
            *([("classes", listed_classes(info.class_names, info.num_classes))] if info.class_names else []),
            *([("truncation", f"{_psi(info)}, centre: {info.truncation_center}")] if info.truncation_center else []),
            *([("noise", info.noise)] if info.noise else []),
            ("output", _output(info)),
            ("precision", info.precision + (" at export" if info.seal else "")),
            *([("winograd", f"3x3 convolutions at {_listed(info.winograd)} pixels")] if info.winograd else []),
            ("directions", f"{len(info.directions)}, found by {info.method}, normalize {info.normalize}"),
            *([("multiply-adds", _macs(info.macs))] if info.macs is not None else []),
            *([("once", _prefix(info.prefix))] if info.prefix else []),
            ("parity", describe_parity(info)),
            *([("sealed", info.seal.in_words)] if info.seal else []),
            checkpoint_fact(info.source_sha256, f"{info.source_format}, "),
            *origin_facts(info),
            ("made with", ", ".join(f"{name} {number}" for name, number in info.versions.items())),
        ]
    )
    say()
    print_table(
        ("index", "name", "eigenvalue", "alpha"),
        [
            (
                index,
                direction.name,
                f"{direction.eigenvalue:.4g}",
                f"{direction.alpha_range[0]:g} to {direction.alpha_range[1]:g}",
            )
            for index, direction in enumerate(info.directions)
        ],
    )


def _inspect_bank(path: Path, json: bool) -> None:
    from sefa.bank.direction_bank import DirectionBank

    bank = DirectionBank.load(path)
    source = bank.source
    if json:
        print_json(
            {
                "kind": "direction bank",
                "names": list(bank.names),
                "eigenvalues": bank.eigenvalues.tolist(),
                "alpha_ranges": bank.alpha_range.tolist(),
                "code_dim": bank.code_dim,
                "num_layers": bank.edited_layers.shape[1],
                "family": source.family,
                "method": source.method,
                "normalize": source.normalize,
                "rank": source.rank,
                "checkpoint_sha256": source.checkpoint_sha256,
                "version": source.version,
            }
        )
        return
    print_facts(
        [
            ("file", f"{path}, direction bank"),
            ("generator", f"{source.family}, {bank.edited_layers.shape[1]} layers, codes of {bank.code_dim}"),
            ("method", f"{source.method}, normalize {source.normalize}, rank of A {source.rank}"),
            checkpoint_fact(source.checkpoint_sha256),
            ("made with", f"sefa {source.version}"),
        ]
    )
    say()
    print_directions(bank)


def _inspect_generator(path: Path, layers: str, opening: OpenOptions, json: bool) -> None:
    generator = open_generator(path, opening, layers)
    shapes = [list(affine.shape) for affine in generator.affines()]
    parameters = sum(parameter.numel() for parameter in generator.parameters())
    if json:
        print_json(
            {
                "kind": "checkpoint",
                "format": generator.checkpoint_format,
                "family": generator.family,
                "z_dim": generator.z_dim,
                "code_dim": generator.code_dim,
                "num_layers": generator.num_layers,
                "resolution": list(generator.resolution),
                "channels": generator.channels,
                "num_classes": generator.num_classes,
                "class_names": list(generator.class_names),
                "truncation_center": generator.truncation_center,
                "noise": generator.noise,
                "affine_shapes": shapes,
                "parameters": parameters,
                "sha256": generator.source_sha256,
                "source_entry": generator.source_entry,
                "assumptions": list(generator.assumptions),
                "license": generator.license,
                "note": generator.note,
            }
        )
        return
    print_facts(
        [
            ("file", _checkpoint(path, generator.checkpoint_format)),
            ("generator", f"{generator.family}, latent z of {generator.z_dim}"),
            ("image", _pixels(generator.resolution, generator.channels)),
            ("classes", _classes(generator)),
            ("truncation", f"centre: {generator.truncation_center}" if generator.truncation_center else "none"),
            ("noise", generator.noise or "none"),
            ("parameters", f"{parameters:,}"),
            ("layers", _layers(shapes)),
            ("sha256", generator.source_sha256 or "none: not from a file"),
            *origin_facts(generator),
        ]
    )


def _inspect_own(source: Path, layers: str, opening: OpenOptions, json: bool) -> None:
    """Print what was found out about a user's module by running it, and the command that exports it."""
    found, options = discover_own(source, opening, layers)
    generator, read_by = found.generator, found.layers
    model = re.sub(r"\W", "", source.name.rpartition(":")[2].rpartition(".")[2] or source.stem).lower() or "mine"
    command = ["sefa", "export", str(source), *options, "-o", f"{model}.onnx"]
    parameters = sum(parameter.numel() for parameter in generator.parameters())
    called = generator.form.call.text
    if json:
        print_json(
            {
                "kind": "module",
                "format": generator.checkpoint_format,
                "z_dim": generator.z_dim,
                "call": called,
                "resolution": list(generator.resolution),
                "channels": generator.channels,
                "values": list(found.values),
                "num_classes": generator.num_classes,
                "noise": generator.noise,
                "parameters": parameters,
                "reads": read_by.reads,
                "mapping": read_by.mapping,
                "code_dim": read_by.code_dim,
                "layers": [{"name": one.name, "kind": one.kind, "shape": one.shape} for one in read_by.layers],
                "assumptions": list(generator.assumptions),
                "license": generator.license,
                "note": generator.note,
                "command": command,
            }
        )
        return
    read = "its latent z" if read_by.reads == "z" else f"a style code w of {read_by.code_dim}"
    if read_by.mapping:
        read += f", which {read_by.mapping} ({read_by.mapping_kind}) gives"
    analysed = [f"{one.name} ({one.kind}, A {'x'.join(map(str, one.shape))})" for one in read_by.layers if one.shape]
    unfit = [one.name for one in read_by.layers if one.shape is None]
    low, high = found.values
    print_facts(
        [
            ("file", f"{source}, {'a class' if kind_of(source) == Kind.CLASS else 'TorchScript archive'}"),
            ("generator", f"{generator.family}, latent z of {generator.z_dim}, called with {called}"),
            ("image", f"{_pixels(generator.resolution, generator.channels)}, values {low:.3g} to {high:.3g}"),
            ("classes", generator.num_classes or "none"),
            ("random numbers", generator.noise or "none"),
            ("parameters", f"{parameters:,}"),
            ("layers", f"{listed(analysed) or 'none'}, which read {read}"),
            *([("", f"{listed(unfit)} read it too, but are no affine maps of it")] if unfit else []),
            *([("style codes", read_by.reason)] if read_by.reads == "z" and not analysed else []),
            *([("codes", read_by.reason or "each layer may have its own (W+)")] if read_by.reads == "w" else []),
            *origin_facts(generator),
        ]
    )
    say("", f"next: {shlex.join(command)}")


def _inspect_torchscript(path: Path, json: bool) -> None:
    """Print what the archive's file list shows; nothing in the archive is loaded."""
    with open_archive(path) as archive:
        entries = archive.infolist()
    root = entries[0].filename.partition("/")[0]
    inside = {entry.filename.removeprefix(f"{root}/"): entry.file_size for entry in entries}
    code = {name: size for name, size in inside.items() if name.startswith("code/") and name.endswith(".py")}
    tensors = [size for name, size in inside.items() if name.startswith(("data/", "constants/"))]
    if json:
        print_json(
            {
                "kind": "TorchScript",
                "bytes": path.stat().st_size,
                "code": code,
                "tensors": len(tensors),
                "tensor_bytes": sum(tensors),
                "sha256": sha256_of(path),
            }
        )
        return
    shown = [f"{name} ({format_bytes(size)})" for name, size in code.items()][:MAX_SHOWN]
    more = f" and {len(code) - len(shown)} more" if len(code) > len(shown) else ""
    print_facts(
        [
            ("file", f"{path}, TorchScript archive, {format_bytes(path.stat().st_size)}"),
            ("code", f"{', '.join(shown) or 'none'}{more}: not run"),
            ("tensors", f"{len(tensors)}, {format_bytes(sum(tensors))}"),
            ("sha256", sha256_of(path)),
        ]
    )
    say("", "TorchScript is code: --run-code loads it, with --latent-dim and --layers, and shows what generator it is")


def _checkpoint(path: Path, checkpoint_format: str) -> str:
    if is_bundled(path):
        return f"{path}, {_checkpoint(find_bundled(path), checkpoint_format)}; comes with sefa, docs/letters.md"
    if not path.exists():
        return f"{path}, a class"
    return f"{path}, {checkpoint_format} checkpoint, {format_bytes(path.stat().st_size)}"


def _layers(shapes: list[list[int]]) -> str:
    """Return `0-7: A 512x512, 8: A 256x512`, with consecutive layers of one shape together."""
    return ", ".join(
        f"{spans(index for index, _ in group)}: A {rows}x{columns}"
        for (rows, columns), group in groupby(enumerate(shapes), lambda pair: pair[1])
    )


def _pixels(resolution: tuple[int, int], channels: int) -> str:
    height, width = resolution
    colours = {1: "grey", 3: "RGB", 4: "RGBA"}.get(channels, f"{channels} channels")
    return f"{width}x{height} pixels, {colours}"


def _classes(generator: "Generator") -> str:
    if not generator.class_names:
        return str(generator.num_classes or "none")
    return f"{generator.num_classes}: {listed_classes(generator.class_names, generator.num_classes)}"


def _psi(info: ModelInfo) -> str:
    return "an input" if info.truncation is None else f"psi {info.truncation:g}"


def _macs(macs: int) -> str:
    size, unit = (1e9, "billion") if macs >= 1e9 else (1e6, "million")
    return f"{macs / size:.3g} {unit} an image, in convolutions and matrix products"


def _listed(numbers: tuple[int, ...]) -> str:
    return ", ".join(map(str, numbers))


def _prefix(prefix: Prefix) -> str:
    return f"for each latent, {prefix.share:.0%} of the multiplications, which no edit reaches"


def _output(info: ModelInfo) -> str:
    output = info.signature.output
    shape = ", ".join(map(str, output.shape))
    return f"{output.dtype} [{shape}]" + (" in -1 to 1" if output.dtype == "float32" else "")
