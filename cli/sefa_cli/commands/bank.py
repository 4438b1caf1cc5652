"""sefa bank show, merge, subset, compare, import, export: work on direction banks."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sefa.bank.naming import find_all
from sefa.errors import ArgumentError
from sefa.opening import Device
from sefa_cli.descriptions import alpha_range, checkpoint_fact, print_directions, spans
from sefa_cli.from_checkpoint import open_checkpoint
from sefa_cli.options import (
    BankOutput,
    CheckpointOptions,
    EditLayersOption,
    JsonOption,
    LayersOption,
    OtherCheckpointOption,
)
from sefa_cli.output import print_facts, print_json, print_table, say
from sefa_runtime.files import check_output

if TYPE_CHECKING:
    from torch import Tensor

    from sefa.bank.comparison import BankComparison
    from sefa.bank.direction_bank import DirectionBank, DirectionSource

BankArgument = Annotated[Path, typer.Argument(metavar="BANK", help="A direction bank.")]


def show(bank: BankArgument, json: JsonOption = False) -> None:
    """Show everything about a bank: directions, layers, ranges, and where each came from.

    [b]sefa bank show faces.safetensors[/b]
    """
    from sefa.bank.direction_bank import DirectionBank

    loaded = DirectionBank.load(bank)
    if json:
        print_json(_document(loaded))
        return
    source = loaded.source
    layers = loaded.edited_layers.shape[1]
    print_facts(
        [
            ("file", f"{bank}, direction bank"),
            ("generator", f"{source.family}, {layers} layer{'s' * (layers > 1)}, codes of {loaded.code_dim}"),
            checkpoint_fact(source.checkpoint_sha256),
            *[("found by", _origin(origin)) for origin in dict.fromkeys(loaded.origins or (source,))],
        ]
    )
    say()
    several = len(set(loaded.origins)) > 1
    print_table(
        ("index", "name", "eigenvalue", "length", "edits", "found in", "alpha", *(["found by"] if several else [])),
        [
            (
                index,
                name,
                f"{float(loaded.eigenvalues[index]):.4g}",
                _length(loaded.lengths(index)),
                _layers(loaded.edited_layers[index]),
                _layers(loaded.analysed_layers[index]),
                alpha_range(loaded, index),
                *([loaded.origin(index).method] if several else []),
            )
            for index, name in enumerate(loaded.names)
        ],
    )


def merge(
    banks: Annotated[list[Path], typer.Argument(metavar="BANK...", help="Banks of one generator.")],
    output: BankOutput,
    prefixes: Annotated[
        str | None,
        typer.Option(
            "--prefix",
            metavar="LIST",
            help="Prefixes for the names of each bank's directions: [b]coarse-,fine-[/b].",
            show_default="names stay, direction-N are numbered anew where they would stand twice",
        ),
    ] = None,
    allow_other_checkpoint: OtherCheckpointOption = False,
) -> None:
    """Merge several banks of one generator, such as layer groups or methods, into one.

    [b]sefa bank merge pose.safetensors light.safetensors -o both.safetensors[/b]
    """
    from sefa.bank.direction_bank import DirectionBank
    from sefa.bank.editing import merge as merge_banks

    check_output(output, *banks)
    merged = merge_banks(
        [DirectionBank.load(bank) for bank in banks],
        None if prefixes is None else prefixes.split(","),
        allow_other_checkpoint=allow_other_checkpoint,
    )
    _save(merged, output)


def subset(
    bank: BankArgument,
    directions: Annotated[
        str,
        typer.Argument(metavar="LIST", help="Directions to select, in this order: [b]0,3,1[/b], [b]0-7[/b] or names."),
    ],
    output: BankOutput,
) -> None:
    """Select some directions of a bank, in any order.

    [b]sefa bank subset faces.safetensors 1,3,pose -o few.safetensors[/b]
    """
    from sefa.bank.direction_bank import DirectionBank
    from sefa.bank.editing import subset as subset_of

    check_output(output, bank)
    loaded = DirectionBank.load(bank)
    _save(subset_of(loaded, find_all(loaded.names, directions)), output)


def compare(
    a: Annotated[Path, typer.Argument(metavar="A", help="A direction bank.")],
    b: Annotated[Path, typer.Argument(metavar="B", help="Another one.")],
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="FILE.png", help="Plot the matrix of |cosine| (needs matplotlib)."),
    ] = None,
    json: JsonOption = False,
) -> None:
    """See which directions of two banks are similar.

    [b]sefa bank compare mine.safetensors theirs.safetensors -o alike.png[/b]

    The cosine compares what two edits add to the codes, so it counts the layers that both edit. Each direction of A is
    matched with at most one of B, the most similar first; a cosine of -1 is the same direction, reversed.
    """
    from sefa.bank.comparison import compare_banks
    from sefa.bank.direction_bank import DirectionBank
    from sefa.method_comparison.plot import save_matrix
    from sefa_runtime.latency.plot import check_plot

    if output is not None:
        check_output(output, a, b)
        check_plot(output)
    one, other = DirectionBank.load(a), DirectionBank.load(b)
    comparison = compare_banks(one, other)
    if output is not None:
        save_matrix(comparison, one, other, output)
    if json:
        print_json(
            {
                "pairs": [
                    {"name_a": one.names[pair.a], "name_b": other.names[pair.b]} | asdict(pair)
                    for pair in comparison.pairs
                ],
                "cosines": comparison.cosines.tolist(),
            }
        )
        return
    _print_pairs(comparison, one, other)
    if one.source.checkpoint_sha256 != other.source.checkpoint_sha256:
        say("", "the banks are of different checkpoints")
    if output is not None:
        say("", f"{output}: the matrix of all {len(one)} x {len(other)}")


def import_(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="Boundaries .npy of genforce's tools, GANSpace's components, rosinality's factor.pt, vectors as .npy, "
            ".pt or .safetensors, or an .npz of [b]sefa bank export[/b].",
        ),
    ],
    output: BankOutput,
    *,
    checkpoint: Annotated[
        Path | None,
        typer.Argument(metavar="CHECKPOINT", help="The generator that the directions belong to.", show_default=False),
    ] = None,
    layers: LayersOption = "all",
    edit_layers: EditLayersOption = None,
    opening: CheckpointOptions,
    allow_other_checkpoint: OtherCheckpointOption = False,
) -> None:
    """Make a bank from directions that another tool found.

    [b]sefa bank import pose_boundary.npy stylegan.pth -o pose.safetensors --layers 0-3[/b]

    The kind of file is detected from its contents; nothing in it is run. Vectors may be for all layers or for each, and
    of any length: alpha then counts them. Only an .npz of [b]sefa bank export[/b]
    says which generator it belongs to.
    """
    from sefa.bank_files import import_bank

    check_output(output, file, checkpoint)
    generator = None if checkpoint is None else open_checkpoint(checkpoint, replace(opening, device=Device.CPU))
    bank = import_bank(
        file,
        generator,
        layers,
        edit_layers,
        allow_other_checkpoint=allow_other_checkpoint,
        report=lambda text: say(f"{file}: {text}", err=True),
    )
    bank.save(output)
    print_directions(bank)
    say("", f"{output}: {len(bank)} directions of {bank.code_dim} components, by {bank.source.method}")


def export(
    bank: BankArgument,
    output: Annotated[
        Path,
        typer.Option(
            "-o",
            "--output",
            metavar="FILE",
            help="[b].npz[/b]: everything, as numpy arrays. [b].npy[/b]: unit directions \\[K, D], the boundaries of "
            "genforce's tools. [b].pt[/b]: rosinality's factor.pt.",
        ),
    ],
    checkpoint: Annotated[
        str,
        typer.Option(
            "--ckpt", metavar="PATH", help="The checkpoint that factor.pt names as its own.", show_default=False
        ),
    ] = "",
) -> None:
    """Write a bank's directions for another tool.

    [b]sefa bank export faces.safetensors -o boundaries.npy[/b]
    """
    from sefa.bank.direction_bank import DirectionBank
    from sefa.bank_files import export_bank
    from sefa.bank_files.rosinality_factor import export_factor

    check_output(output, bank)
    loaded = DirectionBank.load(bank)
    if checkpoint and output.suffix.lower() != ".pt":
        raise ArgumentError(f"--ckpt is for a factor.pt, not for {output}")
    if checkpoint:
        export_factor(loaded, output, checkpoint)
    else:
        export_bank(loaded, output)
    say(f"{output}: {len(loaded)} directions of {loaded.code_dim} components")
    if output.suffix.lower() == ".npy":
        edited = dict.fromkeys(map(_layers, loaded.edited_layers))
        say(f"it does not hold names, ranges, lengths, or the layers to edit: {'; '.join(edited)}")


def _save(bank: "DirectionBank", output: Path) -> None:
    bank.save(output)
    print_directions(bank)
    say("", f"{output}: {len(bank)} directions of {bank.code_dim} components")


def _document(bank: "DirectionBank") -> dict[str, Any]:
    return {
        "kind": "direction bank",
        "family": bank.source.family,
        "checkpoint_sha256": bank.source.checkpoint_sha256,
        "code_dim": bank.code_dim,
        "num_layers": bank.edited_layers.shape[1],
        "directions": [
            {
                "index": index,
                "name": name,
                "eigenvalue": float(bank.eigenvalues[index]),
                "length": bank.lengths(index).tolist() if bank.has_own_vectors else float(bank.vectors[index].norm()),
                "alpha_range": bank.alpha_range[index].tolist(),
                "edited_layers": bank.edited_layers[index].nonzero()[:, 0].tolist(),
                "analysed_layers": bank.analysed_layers[index].nonzero()[:, 0].tolist(),
                "found_by": {
                    key: value
                    for key, value in asdict(bank.origin(index)).items()
                    if key not in ("family", "checkpoint_sha256")
                },
            }
            for index, name in enumerate(bank.names)
        ],
    }


def _print_pairs(comparison: "BankComparison", a: "DirectionBank", b: "DirectionBank") -> None:
    print_table(
        ("A", "name", "B", "name", "cosine", "of vectors", "of layers"),
        [
            (
                pair.a,
                a.names[pair.a],
                pair.b,
                b.names[pair.b],
                f"{pair.cosine:+.4f}",
                f"{pair.same_direction:.4f}",
                f"{pair.shared_layers:.4f}",
            )
            for pair in comparison.pairs
        ],
    )


def _origin(source: "DirectionSource") -> str:
    parts = [source.method]
    if source.alpha_unit != "sigma":
        parts.append(f"normalize {source.normalize}")
    if source.samples:
        label = "" if source.label is None else f" of class {source.label}"
        parts.append(f"{source.samples} samples{label}, seed {source.seed}")
    alpha = {"sigma": "standard deviations", "vector": "the file's own vectors"}.get(source.alpha_unit, "distance")
    return ", ".join([*parts, f"rank {source.rank}", f"alpha counts {alpha}", f"sefa {source.version}"])


def _length(lengths: "Tensor") -> str:
    """Return the length of a direction's vector, or those of its shortest and longest if each layer has its own."""
    shown = dict.fromkeys(f"{float(length):.4g}" for length in (lengths.min(), lengths.max()))
    return "-".join(shown)


def _layers(mask: "Tensor") -> str:
    """Return the layers of a mask [L, ...] as `all`, `0-3,7` or `none`."""
    layers = mask.nonzero()[:, 0].tolist()
    return "all" if len(layers) == len(mask) else spans(layers) or "none"
