"""sefa factorize: checkpoint to direction bank."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sefa.errors import ArgumentError
from sefa_cli.custom import (
    CustomOptions,
    ImageLayoutOption,
    ImageRangeOption,
    KwargsOption,
    LabelInputOption,
    LatentDimOption,
    OutputKeyOption,
    RunCodeOption,
    WeightsOption,
    is_custom,
    load_custom,
)
from sefa_cli.options import (
    AssumeOption,
    CheckpointArgument,
    Device,
    DeviceOption,
    EditLayersOption,
    EntryOption,
    JsonOption,
    LayersOption,
    Normalize,
    NormalizeOption,
    NumClassesOption,
    TopOption,
    parse_assumptions,
)
from sefa_cli.output import Cell, origin_facts, print_json, print_table, progress_bar, say, warn, working
from sefa_runtime.files import check_utf8_output, input_problem

if TYPE_CHECKING:
    from sefa.bank.direction_bank import DirectionBank
    from sefa.generators import Generator


class Method(StrEnum):
    """How directions are found."""

    SEFA = "sefa"
    GANSPACE = "ganspace"


MethodOption = Annotated[
    Method,
    typer.Option(
        help="[b]sefa[/b] reads the directions from the weights; [b]ganspace[/b] takes the principal components of "
        "sampled style codes or first activations, and counts alpha in standard deviations."
    ),
]
SamplesOption = Annotated[
    int | None,
    typer.Option("--samples", metavar="N", help="Latents that ganspace draws.", show_default="50000"),
]
SampleSeedOption = Annotated[
    int | None, typer.Option("--seed", metavar="S", help="Of the latents that ganspace draws.", show_default="0")
]
SampleLabelOption = Annotated[
    int | None,
    typer.Option(
        "--label", metavar="CLASS", help="Class of the latents that ganspace draws.", show_default="any, evenly"
    ),
]


@dataclass(frozen=True)
class Finding:
    """How directions are to be found: the options that `factorize` and `export` share."""

    layers: str = "all"
    edit_layers: str | None = None
    top: int | None = None
    method: Method = Method.SEFA
    normalize: Normalize = Normalize.NONE
    samples: int | None = None
    seed: int | None = None
    label: int | None = None

    @property
    def given(self) -> list[str]:
        """Names of the options that were given."""
        default = Finding()
        return [f"--{name.replace('_', '-')}" for name, value in vars(self).items() if value != getattr(default, name)]


def factorize(
    checkpoint: CheckpointArgument,
    output: Annotated[Path, typer.Option("-o", "--output", metavar="BANK", help="A .safetensors file to write.")],
    layers: LayersOption = "all",
    edit_layers: EditLayersOption = None,
    top: TopOption = None,
    method: MethodOption = Method.SEFA,
    normalize: NormalizeOption = Normalize.NONE,
    samples: SamplesOption = None,
    seed: SampleSeedOption = None,
    label: SampleLabelOption = None,
    num_classes: NumClassesOption = None,
    entry: EntryOption = None,
    assume: AssumeOption = None,
    weights: WeightsOption = None,
    kwargs: KwargsOption = None,
    latent_dim: LatentDimOption = None,
    label_input: LabelInputOption = None,
    image_range: ImageRangeOption = None,
    image_layout: ImageLayoutOption = None,
    output_key: OutputKeyOption = None,
    run_code: RunCodeOption = False,
    device: DeviceOption = Device.AUTO,
    json: JsonOption = False,
) -> None:
    """Find a generator's directions and save them as a bank.

    They are the unit eigenvectors of AᵀA with the largest eigenvalues, where A is the first transform that the latent
    meets. No data and no training: this takes well under a second. Look at what they do with [b]sefa export[/b] and
    [b]sefa sweep[/b]; give them names with [b]sefa name[/b]. [b]--method ganspace[/b] draws samples instead.
    """
    check_utf8_output(output, checkpoint, weights)
    custom = CustomOptions(weights, kwargs, latent_dim, label_input, image_range, image_layout, output_key, run_code)
    with working("Loading the checkpoint"):
        generator, layers = load_any(
            checkpoint, device, layers, custom, num_classes=num_classes, entry=entry, assume=assume
        )
    finding = Finding(layers, edit_layers, top, method, normalize, samples, seed, label)
    bank = find_directions(generator, finding)
    bank.save(output)
    if json:
        print_json(
            {
                "bank": str(output),
                "names": list(bank.names),
                "eigenvalues": bank.eigenvalues.tolist(),
                "rank": bank.source.rank,
                "checkpoint_sha256": bank.source.checkpoint_sha256,
            }
        )
        return
    print_directions(bank)
    say("", f"{output}: {len(bank)} directions of {bank.code_dim} components")
    for name, value in origin_facts(generator):
        say(f"{name}: {value}")


def load_any(
    argument: Path,
    device: Device,
    layers: str,
    custom: CustomOptions,
    *,
    num_classes: int | None = None,
    noise: str = "const",
    entry: str | None = None,
    assume: list[str] | None = None,
    need_layers: bool = True,
) -> tuple["Generator", str]:
    """Load a checkpoint or a generator of the user's own; and the layers to analyse, which for the latter are all.

    Raises:
        ArgumentError: If an option does not fit.
        CheckpointError: If the checkpoint cannot be loaded.
    """
    if is_custom(argument):
        where = _choose_device(device)
        if assume:
            raise ArgumentError(
                f"{argument}: --assume is for checkpoints: a generator of your own is what its code says"
            )
        generator = load_custom(argument, layers, custom, num_classes, need_layers=need_layers, entry=entry)
        return generator.to(where), "all"
    if custom.given:
        raise ArgumentError(
            f"{argument}: "
            + (input_problem(argument) or "neither MODULE:CLASS nor a whole TorchScript archive")
            + f"; {custom.given[0]} is for a generator of your own"
        )
    return load_on(argument, device, num_classes=num_classes, noise=noise, entry=entry, assume=assume), layers


def load_on(
    checkpoint: Path,
    device: Device,
    *,
    num_classes: int | None = None,
    noise: str = "const",
    entry: str | None = None,
    assume: list[str] | None = None,
) -> "Generator":
    """Load a generator onto the device asked for; options as `sefa.load`, but `assume`, which is as it was typed.

    Raises:
        ArgumentError: If it is `cuda` and torch cannot use one.
        CheckpointError: If the checkpoint cannot be loaded.
    """
    from sefa.checkpoints import load

    where = _choose_device(device)
    facts = parse_assumptions(assume)
    return load(checkpoint, num_classes=num_classes, noise=noise, entry=entry, assume=facts).to(where)


def _choose_device(device: Device) -> str:
    import torch

    if device == Device.CUDA and not torch.cuda.is_available():
        raise ArgumentError(f"--device cuda: torch {torch.__version__} finds no usable CUDA device")
    return "cuda" if device != Device.CPU and torch.cuda.is_available() else "cpu"


def find_directions(generator: "Generator", finding: Finding) -> "DirectionBank":
    """Factorize, and warn of directions that change nothing."""
    from sefa.directions.factorization import factorize

    options = {**vars(finding), "method": finding.method.value, "normalize": finding.normalize.value}
    if finding.method == Method.SEFA:
        bank = factorize(generator, **options)
    else:
        with progress_bar("Sampling") as show:
            bank = factorize(generator, **options, progress=show)
    if bank.source.rank < len(bank):
        warn(f"the rank is {bank.source.rank}: directions from {bank.source.rank} on change nothing")
    return bank


def print_directions(bank: "DirectionBank") -> None:
    """Print a table of the directions, with each one's strength relative to the strongest of its source."""
    strongest = {bank.origin(index): 0.0 for index in range(len(bank))}
    for index, eigenvalue in enumerate(bank.eigenvalues.tolist()):
        strongest[bank.origin(index)] = max(strongest[bank.origin(index)], eigenvalue)
    rows = []
    for index, name in enumerate(bank.names):
        origin, eigenvalue = bank.origin(index), float(bank.eigenvalues[index])
        strength = (eigenvalue / strongest[origin]) ** 0.5 if strongest[origin] else 0.0
        low, high = bank.alpha_range[index].tolist()
        unit = " σ" if origin.alpha_unit == "sigma" else ""
        cells: tuple[Cell, ...] = (index, name, f"{eigenvalue:.4g}", "█" * max(1, round(20 * strength)))
        rows.append((*cells, f"{low:g} to {high:g}{unit}"))
    print_table(("index", "name", "eigenvalue", "strength", "alpha"), rows)
