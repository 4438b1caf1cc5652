"""Generators of the user's own on the command line: MODULE:CLASS with weights, or a TorchScript archive."""

import contextlib
import sys
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sefa.errors import ArgumentError
from sefa_cli.output import warn
from sefa_runtime.archives import open_archive
from sefa_runtime.files import sha256_of
from sefa_runtime.json_text import parse_json
from sefa_runtime.model.info import EXTRA_FILE
from sefa_runtime.model.reading import is_torchscript

if TYPE_CHECKING:
    from torch import nn

    from sefa.custom.custom_generator import CustomGenerator

# A share of values beyond black and white that is worth a word: most generators without a tanh have a few.
MAX_BEYOND = 0.05
PANEL = "A generator of your own: MODULE:CLASS, or a TorchScript archive"


class LabelInput(StrEnum):
    """How a module takes its label."""

    INDEX = "index"
    ONEHOT = "onehot"


class ImageLayout(StrEnum):
    """Which axis of a module's images the channels are."""

    NCHW = "nchw"
    NHWC = "nhwc"


WeightsOption = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="The state dict of MODULE:CLASS, as torch.save wrote it.", rich_help_panel=PANEL),
]
KwargsOption = Annotated[
    str | None,
    typer.Option(metavar="JSON", help='Arguments of CLASS: [b]\'{"nz": 100, "ngf": 64}\'[/b].', rich_help_panel=PANEL),
]
LatentDimOption = Annotated[
    int | None, typer.Option("--latent-dim", metavar="D", help="Length of its latent z.", rich_help_panel=PANEL)
]
LabelInputOption = Annotated[
    LabelInput | None,
    typer.Option(
        "--label-input",
        help="With [b]--num-classes[/b]: whether it takes class indices or one-hot rows.",
        show_default="index",
        rich_help_panel=PANEL,
    ),
]
ImageLayoutOption = Annotated[
    ImageLayout | None,
    typer.Option(
        "--image-layout",
        help="Whether its images are \\[N, C, H, W] or \\[N, H, W, C].",
        show_default="as their shape shows",
        rich_help_panel=PANEL,
    ),
]
OutputKeyOption = Annotated[
    str | None,
    typer.Option(
        "--output-key",
        metavar="KEY",
        help="Which of its outputs is the image: a key, an attribute or an index.",
        show_default="the only one that can be",
        rich_help_panel=PANEL,
    ),
]
RunCodeOption = Annotated[
    bool,
    typer.Option(
        "--run-code",
        help="Load a TorchScript archive although it is a program, which may do what you may: only if you trust it.",
        rich_help_panel=PANEL,
    ),
]
ImageRangeOption = Annotated[
    str | None,
    typer.Option(
        "--image-range",
        metavar="LOW,HIGH",
        help="What it gives for black and white: [b]0,1[/b] behind a sigmoid.",
        show_default="-1,1",
        rich_help_panel=PANEL,
    ),
]


@dataclass(frozen=True)
class CustomOptions:
    """The options of a generator of the user's own, as given; None: not given."""

    weights: Path | None = None
    kwargs: str | None = None
    latent_dim: int | None = None
    label_input: LabelInput | None = None
    image_range: str | None = None
    image_layout: ImageLayout | None = None
    output_key: str | None = None
    run_code: bool = False

    @property
    def given(self) -> list[str]:
        """Names of the options that were given."""
        return [f"--{name.replace('_', '-')}" for name, value in vars(self).items() if value not in (None, False)]


def is_module_reference(argument: Path) -> bool:
    """Whether the argument is MODULE:CLASS, whose code may be imported, rather than a file."""
    text = str(argument)
    module, colon, name = text.partition(":")
    return (
        bool(colon)
        and all(part.isidentifier() for part in (*module.split("."), *name.split(".")))
        and not argument.exists()
    )


def is_torchscript_generator(argument: Path) -> bool:
    """Whether the argument is a TorchScript archive that `sefa export` did not make."""
    if not is_torchscript(argument):
        return False
    with open_archive(argument) as archive:
        return not any(name.endswith(f"/{EXTRA_FILE}") for name in archive.namelist())


def is_custom(argument: Path) -> bool:
    """Whether the argument is a generator of the user's own rather than a checkpoint of a known format."""
    return is_module_reference(argument) or is_torchscript_generator(argument)


def load_custom(
    argument: Path,
    layers: str,
    options: CustomOptions,
    num_classes: int | None,
    *,
    need_layers: bool = True,
    entry: str | None = None,
) -> "CustomGenerator":
    """Load a generator of the user's own, on the CPU.

    Args:
        argument: MODULE:CLASS or a TorchScript archive.
        layers: Comma-separated names; `all`: none were given.
        options: The options that were given.
        num_classes: As `sefa.wrap`.
        need_layers: Whether directions will be looked for.
        entry: Which of the entries of the file of weights to read, if it has several generators.

    Raises:
        ArgumentError: If an option is missing or does not fit, the user's code raises, or a TorchScript archive may not
            be run.
        CheckpointError: If the weights or the archive cannot be read, or do not fit.
    """
    from sefa.custom import wrap

    if is_torchscript_generator(argument) and not options.run_code:
        raise ArgumentError(
            f"{argument}: TorchScript is code: to load it is to run it, and it may do whatever you may; if you trust "
            "where it comes from, --run-code runs it"
        )
    names = [] if layers == "all" else [name for part in layers.split(",") if (name := part.strip())]
    if options.latent_dim is None or (is_torchscript_generator(argument) and need_layers and not names):
        raise ArgumentError(
            f"{argument}: a generator of your own needs --latent-dim and --layers, the layers that read the latent "
            "first: --latent-dim 100 --layers main.0"
        )
    if options.label_input is not None and not num_classes:
        raise ArgumentError("--label-input needs --num-classes")
    image_range = None if options.image_range is None else _parse_range(options.image_range)
    with contextlib.redirect_stdout(sys.stderr):  # Whatever the user's code prints is no result of ours.
        module, source_entry = _build(argument, options, entry)
        if need_layers and not names:
            from sefa.custom.latent_layers import name_usable_layers

            raise ArgumentError(
                f"{argument}: --layers is needed: which of its layers read the latent first? Those with a weight are "
                f"{name_usable_layers(module)}"
            )
        try:
            generator = wrap(
                module,
                latent_dim=options.latent_dim,
                layers=names,
                num_classes=num_classes or 0,
                label_format=(options.label_input or LabelInput.INDEX).value,
                image_range=image_range,
                image_layout=options.image_layout and options.image_layout.value,
                output_key=options.output_key,
            )
        except ArgumentError as error:
            raise ArgumentError(f"{argument}: {error}") from error.__cause__
        _warn_of_range(generator, options.image_range is not None)
    generator.checkpoint_format = str(argument) if is_module_reference(argument) else "TorchScript"
    generator.source_entry = source_entry
    source = options.weights if is_module_reference(argument) else argument
    generator.source_sha256 = "" if source is None else sha256_of(source)
    return generator


def _build(argument: Path, options: CustomOptions, entry: str | None) -> tuple["nn.Module", str]:
    """The module, and which entry of the file of weights went into it."""
    import torch

    from sefa.custom import build_module, load_torchscript, load_weights

    if not is_module_reference(argument):
        inapt = [name for name in options.given if name in ("--weights", "--kwargs")]
        if inapt:
            raise ArgumentError(f"{argument}: a TorchScript archive brings its own weights: leave out {inapt[0]}")
        return load_torchscript(argument, run_code=options.run_code), ""
    if options.run_code:
        raise ArgumentError(f"{argument}: code that is named by its class runs anyway: leave out --run-code")
    if options.weights is None:
        warn(f"no --weights: {argument} stays as its constructor makes it")
    torch.manual_seed(0)  # So that two commands without --weights see the same generator.
    module = build_module(str(argument), _parse_kwargs(options.kwargs))
    if options.weights is not None:
        return module, load_weights(module, options.weights, entry)
    return module, ""


def _parse_kwargs(text: str | None) -> dict[str, Any]:
    try:
        arguments = parse_json(text or "{}")
    except ValueError as error:
        raise ArgumentError(
            f"--kwargs is not JSON ({error}): it looks like '{{\"nz\": 100}}', got {text!r:.80}"
        ) from None
    if not isinstance(arguments, dict):
        raise ArgumentError(f"--kwargs must be a JSON object like '{{\"nz\": 100}}', got {text!r:.80}")
    return arguments


def _parse_range(text: str) -> tuple[float, float]:
    try:
        low, high = map(float, text.split(","))
    except ValueError:
        raise ArgumentError(f"--image-range looks like 0,1, got {text[:80]!r}") from None
    return low, high


def _warn_of_range(generator: "CustomGenerator", given: bool) -> None:
    from sefa.custom.custom_generator import random_codes

    images = generator.decode(random_codes(4, generator.z_dim, generator.num_classes)[:, None])
    if not given and float(images.min()) >= 0 and float(images.max()) <= 1:
        warn("its images lie between 0 and 1: --image-range 0,1 would show them as they are meant")
    beyond = float((images.abs() > 1).float().mean())
    if beyond > MAX_BEYOND:
        low, high = generator.image_range
        warn(f"{beyond:.0%} of its values lie beyond {low:g} to {high:g} and will be cut off: see --image-range")
