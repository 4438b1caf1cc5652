"""Options that several commands share, each defined once."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sefa.finding import DirectionChoices
from sefa.opening import OpenOptions
from sefa_cli.option_groups import Group, Typed, given
from sefa_cli.output import say, warn
from sefa_cli.parsing import (
    parse_assumptions,
    parse_image_range,
    parse_integers,
    parse_kwargs,
    parse_provider_options,
)
from sefa_runtime.errors import InputError

if TYPE_CHECKING:
    from sefa_runtime import Editor
    from sefa_runtime.session.tuned import Choice

INTEGERS = Typed(str | None, parse_integers)

CheckpointArgument = Annotated[
    Path,
    typer.Argument(
        metavar="CHECKPOINT",
        help="A trained generator's checkpoint; [b]letters[/b], the generator that comes with sefa; or a generator of "
        "your own: MODULE:CLASS, FILE.py:CLASS, or a TorchScript archive.",
    ),
]
ModelArgument = Annotated[Path, typer.Argument(metavar="MODEL", help="An .onnx file made by [b]sefa export[/b].")]
BankOutput = Annotated[Path, typer.Option("-o", "--output", metavar="BANK", help="A .safetensors file to write.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]

# How a generator is opened; first, the options for one of the user's own.
OWN = Group(
    weights=typer.Option(
        metavar="FILE", help="Its weights: a state dict, a training checkpoint or .safetensors; read, never run."
    ),
    kwargs=(
        typer.Option(
            metavar="JSON",
            help='Keyword arguments of CLASS, which may be a function: [b]\'{"nz": 100, "ngf": 64}\'[/b].',
        ),
        Typed(str | None, parse_kwargs),
    ),
    latent_dim=typer.Option(metavar="D", help="Length of its latent code z."),
    label_format=typer.Option(
        "--label-input",
        help="With [b]--num-classes[/b]: whether it takes class indices or one-hot rows.",
        show_default="index",
    ),
    image_range=(
        typer.Option(
            metavar="LOW,HIGH",
            help="Its values for black and white: [b]0,1[/b] after a sigmoid.",
            show_default="-1,1",
        ),
        Typed(str | None, parse_image_range),
    ),
    image_layout=typer.Option(
        help="Whether its images are \\[N, C, H, W] or \\[N, H, W, C].", show_default="as their shape shows"
    ),
    output_key=typer.Option(
        metavar="KEY",
        help="Which of its outputs is the image: a key, an attribute or an index.",
        show_default="the only one that can be",
    ),
    call=typer.Option(
        metavar="ARGUMENTS",
        help="How its forward is called: [b]z,label[/b], [b]z,c=None[/b], [b]z,None,psi=1,mode='const'[/b].",
        show_default="z, then the label if there are classes",
    ),
    freeze_noise=typer.Option(
        metavar="SEED",
        help="Replace the random numbers that its forward draws by constants of this seed, the same in every image.",
    ),
    mapping=typer.Option(
        metavar="NAME",
        help="Edit its style codes: the module that maps z to them, or [b]auto[/b].",
        show_default="if the layers read its output",
    ),
    run_code=typer.Option(
        "--run-code",
        help="Load a TorchScript archive, which is a program and can do anything you can: only if you trust it.",
    ),
).in_panel("A generator of your own: MODULE:CLASS, FILE.py:CLASS, or a TorchScript archive")
OPENING = Group(
    num_classes=typer.Option(
        metavar="N",
        help="Number of classes of a conditional DCGAN or PGGAN whose label follows z, which its file does not say, or "
        "of a generator of your own.",
    ),
    entry=typer.Option(
        metavar="NAME",
        help="Which entry of the file to read if it holds several generators: [b]netG_ema[/b], "
        "[b]state_dict.generator[/b].",
        show_default="the averaged generator",
    ),
    assume=(
        typer.Option(
            metavar="FACT=VALUE",
            help="A fact that the file does not state, if what [b]sefa inspect[/b] shows as assumed is wrong: "
            "[b]stride=1,2,2,1[/b], [b]activation=leaky_relu:0.2[/b], [b]output=sigmoid[/b]; may be repeated. "
            "docs/formats.md lists the facts of each format.",
        ),
        Typed(list[str] | None, parse_assumptions),
    ),
    **OWN.options,
    noise=typer.Option(
        help="StyleGANs: [b]const[/b] is the checkpoint's constant noise, [b]none[/b] leaves the noise out."
    ),
    device=typer.Option(help="Where to compute; [b]auto[/b] takes the GPU if torch can use one."),
)
CheckpointOptions = Annotated[OpenOptions, OPENING.only("num_classes", "entry", "assume")]

# Which directions are taken from a bank, or found.
BANK = typer.Option(
    metavar="BANK", help="Use the directions of this bank, made by [b]sefa factorize[/b], instead of finding them now."
)
OTHER_CHECKPOINT = typer.Option(
    "--allow-other-checkpoint",
    help="Accept directions of another checkpoint of the same architecture, such as the one this was fine-tuned from.",
)
OtherCheckpointOption = Annotated[bool, OTHER_CHECKPOINT]
FINDING = Group(
    layers=typer.Option(
        metavar="SPEC",
        help="Layers to analyse: [b]all[/b], [b]3[/b], [b]0-3[/b], [b]0,2,5-7[/b]; for a generator of your own, "
        "the names of the layers that read the latent or the style code first, [b]main.0[/b], [b]*.style[/b], or "
        "[b]auto[/b].",
    ),
    edit_layers=typer.Option(metavar="SPEC", help="Layers that an edit changes, if other than those analysed."),
    top=typer.Option(
        metavar="K", help="How many directions to keep, strongest first.", show_default="16, or the latent's size"
    ),
    method=typer.Option(
        help="[b]sefa[/b] reads the directions from the weights; [b]ganspace[/b] takes the principal components of "
        "sampled style codes or first activations, and measures alpha in standard deviations."
    ),
    normalize=typer.Option(
        help="[b]none[/b] is the paper's formula; [b]rows[/b] scales A's rows to unit length first, as the authors' "
        "code does."
    ),
    samples=typer.Option(metavar="N", help="How many latents ganspace samples.", show_default="50000"),
    seed=typer.Option(metavar="S", help="Seed of the latents that ganspace samples.", show_default="0"),
    label=typer.Option(metavar="CLASS", help="Class of the latents that ganspace samples.", show_default="any, evenly"),
)
DirectionOptions = Annotated[DirectionChoices, FINDING]
LayersOption = Annotated[str, FINDING.options["layers"][0]]
EditLayersOption = Annotated[str | None, FINDING.options["edit_layers"][0]]

# What a model runs on.
PROVIDER = Group(
    provider=typer.Option(
        metavar="NAME",
        help="onnxruntime execution provider: [b]auto[/b] (CUDA where it works, else the CPU), [b]cuda[/b], "
        "[b]tensorrt[/b], [b]openvino[/b], [b]cpu[/b], ... A provider asked for by name runs, or the command fails.",
    ),
    provider_options=(
        typer.Option(
            "--provider-option",
            metavar="KEY=VALUE",
            help="An option of the provider under onnxruntime's name, such as [b]device_id=1[/b]; a key with a dot "
            "is a session option, such as [b]session.intra_op.allow_spinning=0[/b]; may be repeated.",
        ),
        Typed(list[str] | None, parse_provider_options),
    ),
    allow_cpu_fallback=typer.Option(
        "--allow-cpu-fallback", help="Fall back to the CPU if the provider asked for cannot run."
    ),
    threads=typer.Option(metavar="N", help="CPU threads.", show_default="the cores it may use"),
    tuned=typer.Option(
        metavar="FILE.json",
        help="Run as [b]sefa tune -o[/b] found best: its provider, threads and options, and its variant of the model.",
        show_default=False,
    ),
)


@dataclass(frozen=True)
class SessionChoices:
    """What a model runs on: arguments of `sefa_runtime.load`."""

    provider: str = "auto"
    provider_options: Mapping[str, str] = field(default_factory=dict)
    allow_cpu_fallback: bool = False
    threads: int | None = None
    tuned: Path | None = None

    def load(self, model: Path, **arguments: Any) -> "Editor":
        """Load a model, or the variant that was found best for one caller, with further arguments of `load`."""
        from sefa_runtime import load

        path, chosen, _ = self.resolve(model)
        return load(path, **chosen, **arguments)

    def resolve(self, model: Path, callers: str = "one_caller") -> "tuple[Path, dict[str, Any], Choice | None]":
        """Return what to load and the arguments of `load`, and what was read from the tuned file, if one was given.

        Raises:
            InputError: See `sefa_runtime.session.tuned.choose`; also if an option is given that the tuned file decides.
        """
        if self.tuned is None:
            return model, {name: value for name, value in vars(self).items() if name != "tuned"}, None
        both = [name.removesuffix("s") for name in given(self, "provider", "provider_options")]
        both += given(self, "threads")
        if both:
            raise InputError(f"--tuned decides {' and '.join(both)}: leave out one or the other")
        from sefa_runtime.session.tuned import choose

        choice = choose(self.tuned, model, callers)
        if choice.warning:
            warn(choice.warning)
        if choice.path != model:
            say(f"sefa: {choice.path} runs in place of {model}, as {self.tuned} says", err=True)
        return choice.path, {**choice.setting.arguments, "allow_cpu_fallback": self.allow_cpu_fallback}, choice


SessionOptions = Annotated[SessionChoices, PROVIDER]
ProviderOption = Annotated[str, PROVIDER.options["provider"][0]]


# What is rendered.
def latent_options(*names: str, what: str, show_default: str | bool = True) -> Group:
    """Return the options of `LatentOptions`, using these names and this help text for the seeds."""
    return Group(
        seeds=(typer.Option(*names, metavar="SEEDS", help=what, show_default=show_default), INTEGERS),
        z=typer.Option(metavar="FILE.npy", help="Latent codes of your own, shape \\[N, z_dim], instead of seeds."),
        codes=typer.Option(
            metavar="FILE",
            help="Style codes of inverted photographs, for a model of [b]w+[/b] or [b]w[/b]: the .npz, .npy or .pt "
            "file written by a projector or encoder.",
        ),
    )


LabelOption = Annotated[
    str | None,
    typer.Option(
        metavar="CLASS",
        help="Class of a class-conditional model, its index or name: one for all images, or one for each seed: "
        "[b]3,3,8[/b].",
    ),
]
LabelsOption = Annotated[
    str | None,
    typer.Option(
        metavar="CLASSES",
        help="Several classes of each seed, side by side: [b]S,e,F,a[/b], the word [b]SeFa[/b] if these are the names "
        "of classes, or indices, [b]0-5[/b].",
    ),
]
TrimOption = Annotated[
    int,
    typer.Option(
        metavar="N",
        help="With [b]--labels[/b]: pixels to cut off at the left and right of each image, to bring letters closer.",
    ),
]
ScaleOption = Annotated[int, typer.Option(metavar="N", help="Enlarge the images N times.")]
TruncationOption = Annotated[
    float | None,
    typer.Option(metavar="PSI", help="Truncation psi for a model exported with [b]--truncation-input[/b]."),
]
