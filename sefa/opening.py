"""Open a generator from a checkpoint of a known format, a class of the user's own, or a TorchScript archive.

Importing this module does not need torch: `kind_of` works where torch is not installed.
"""

import contextlib
import json
import shlex
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from sefa.bundled import find_bundled, hint
from sefa.choices import ImageLayout, LabelFormat, Noise
from sefa.errors import ArgumentError
from sefa_runtime.archives import open_archive
from sefa_runtime.errors import InputError
from sefa_runtime.files import input_problem, sha256_of
from sefa_runtime.model.info import EXTRA_FILE
from sefa_runtime.model.reading import is_onnx, is_pt2, is_torchscript

if TYPE_CHECKING:
    from torch import nn

    from sefa.custom.custom_generator import CustomGenerator
    from sefa.custom.discovery import Discovery
    from sefa.custom.style_space.style_generator import CustomStyleGenerator
    from sefa.generators import Generator

# Warn if more than this share of the values lies beyond black and white: most generators without a tanh have a few.
MAX_BEYOND = 0.05
Warn = Callable[[str], None]
# The options that are arguments of `sefa.wrap`.
WRAPPED = [
    "latent_dim",
    "num_classes",
    "label_format",
    "image_range",
    "image_layout",
    "output_key",
    "call",
    "freeze_noise",
]


class Device(StrEnum):
    """Where torch computes."""

    AUTO = "auto"
    CUDA = "cuda"
    CPU = "cpu"


class Kind(StrEnum):
    """What a source is: a kind of file, or the name of a class."""

    ONNX = "ONNX model"
    PT2 = ".pt2 model"
    TORCHSCRIPT = "TorchScript model"
    BANK = "direction bank"
    CLASS = "class"
    ARCHIVE = "TorchScript"  # not made by `sefa export`
    CHECKPOINT = "checkpoint"

    @property
    def is_model(self) -> bool:
        """Whether the file was made by `sefa export`."""
        return self in (Kind.ONNX, Kind.PT2, Kind.TORCHSCRIPT)

    @property
    def is_own(self) -> bool:
        """Whether it is a generator of the user's own, which means running the user's code."""
        return self in (Kind.CLASS, Kind.ARCHIVE)


@dataclass(frozen=True)
class OpenOptions:
    """How a generator is opened.

    Attributes:
        device: `auto` is the GPU if torch can use one.
        num_classes: See `sefa.load` and `sefa.wrap`.
        noise: See `sefa.load`.
        entry: See `sefa.load`; for a class, the entry of the weights file.
        assume: See `sefa.load`; only for checkpoints.
        weights: File with the state dict of a class; None: the weights that its constructor gives it. This and all
            attributes below are only for generators of the user's own.
        kwargs: Keyword arguments of the class.
        latent_dim: See `sefa.wrap`, where it must be given.
        label_format: See `sefa.wrap`; None: by index.
        image_range: See `sefa.wrap`.
        image_layout: See `sefa.wrap`.
        output_key: See `sefa.wrap`.
        call: See `sefa.wrap`.
        freeze_noise: See `sefa.wrap`.
        mapping: The module that gives the style code, or `auto`; see `sefa.custom.edit_styles`.
        run_code: Whether a TorchScript archive may be loaded, which runs its code.
    """

    device: Device = Device.AUTO
    num_classes: int | None = None
    noise: Noise = Noise.CONST
    entry: str | None = None
    assume: Mapping[str, str] = field(default_factory=dict)
    weights: Path | None = None
    kwargs: Mapping[str, object] | None = None
    latent_dim: int | None = None
    label_format: LabelFormat | None = None
    image_range: tuple[float, float] | None = None
    image_layout: ImageLayout | None = None
    output_key: str | None = None
    call: str | None = None
    freeze_noise: int | None = None
    mapping: str | None = None
    run_code: bool = False

    @property
    def own(self) -> list[str]:
        """The given options that apply only to generators of the user's own."""
        return [option_name(name) for name in self.own_fields]

    @property
    def own_fields(self) -> list[str]:
        """The fields of these options."""
        names = list(vars(self))
        own = names[names.index("weights") :]
        return [name for name in own if (value := getattr(self, name)) is not None and value is not False]


def option_name(field: str) -> str:
    """Return a field's option name on the command line, for messages."""
    return "--label-input" if field == "label_format" else f"--{field.replace('_', '-')}"


def kind_of(source: Path) -> Kind:
    """Return what a source is, judged by its contents; whatever is nothing else counts as a checkpoint.

    So does the name of a generator that comes with the package.

    Raises:
        InputError: If there is no such file.
    """
    module, colon, name = str(source).rpartition(":")
    if colon and not source.exists():
        names = name.split(".") if module.endswith(".py") else (*module.split("."), *name.split("."))
        if all(part.isidentifier() for part in names):
            return Kind.CLASS
    source = find_bundled(source)
    problem = input_problem(source)
    if problem:
        raise InputError(f"{source}: {problem}{hint(source)}")
    if is_torchscript(source):
        with open_archive(source) as archive:
            is_exported = any(entry.endswith(f"/{EXTRA_FILE}") for entry in archive.namelist())
        return Kind.TORCHSCRIPT if is_exported else Kind.ARCHIVE
    if is_onnx(source):
        return Kind.ONNX
    if is_pt2(source):
        return Kind.PT2
    return Kind.BANK if _is_bank(source) else Kind.CHECKPOINT


def open_generator(
    source: Path,
    options: OpenOptions,
    layers: str = "all",
    *,
    need_layers: bool = True,
    warn: Warn = lambda text: None,
) -> "Generator":
    """Open a generator from any kind of source.

    Args:
        source: A checkpoint; MODULE:CLASS or FILE.py:CLASS, of a class or a function; or a TorchScript archive.
        options: How to open it.
        layers: For a generator of the user's own: comma-separated names of the layers to analyse; `all`: none given.
        need_layers: Whether directions will be searched for, which needs these names.
        warn: Called with a message about anything that is probably a mistake.

    Returns:
        The generator, on the requested device.

    Raises:
        ArgumentError: If an option is missing or does not fit, torch cannot use the device, the user's code raises, or
            running a TorchScript archive is not allowed.
        CheckpointError: If the source is missing or cannot be loaded.
    """
    try:
        kind = kind_of(source)
    except InputError:  # Loading the checkpoint reports it.
        kind = Kind.CHECKPOINT
    if kind.is_own:
        if options.assume:
            raise ArgumentError(f"{source}: --assume is for checkpoints: a generator of your own is what its code says")
        device = choose_device(options.device)
        return _open_own(source, kind, options, layers, need_layers, warn).to(device)
    if options.own:
        raise ArgumentError(
            f"{source}: "
            + (input_problem(source) or "neither MODULE:CLASS nor a whole TorchScript archive")
            + f"; {options.own[0]} is for a generator of your own"
        )
    return open_checkpoint(source, options)


def discover_own(source: Path, options: OpenOptions, layers: str, warn: Warn) -> "tuple[Discovery, list[str]]":
    """Find out what a generator of the user's own takes and gives, on the CPU.

    Args:
        source: What `kind_of` calls the user's own.
        options: What is known of it.
        layers: As in `open_generator`.
        warn: As in `open_generator`.

    Returns:
        What was found, and the options with which other commands open it: `--latent-dim`, `100`, ...

    Raises:
        ArgumentError: If no way of calling it gives images, or as `open_generator`.
    """
    from sefa.custom.discovery import discover
    from sefa.custom.sources.module_sources import check_may_run

    kind = kind_of(source)
    if kind == Kind.ARCHIVE:
        check_may_run(source, options.run_code)
    given = {name: value for name in WRAPPED if (value := getattr(options, name)) is not None}
    with contextlib.redirect_stdout(sys.stderr):
        module, _ = _build(source, kind, options, warn)
        try:
            found = discover(module, given, options.mapping)
        except ArgumentError as error:
            raise ArgumentError(f"{source}: {error}") from error.__cause__
    found.generator.checkpoint_format = str(source) if kind == Kind.CLASS else "TorchScript"
    names = [layer.name for layer in found.layers.layers if layer.shape is not None]
    named = layers if layers != "all" else ",".join(names) if found.layers.reads == "z" and names else "auto"
    return found, [*_as_written(replace(options, **found.options)), "--layers", named]


def _as_written(options: OpenOptions) -> list[str]:
    """Return the options of a generator of the user's own as words of a command line."""
    words: list[str] = []
    for one in (
        *(name for name in ("num_classes", "entry") if getattr(options, name) is not None),
        *options.own_fields,
    ):
        value = getattr(options, one)
        if isinstance(value, bool):
            written: list[str] = []
        elif isinstance(value, tuple):
            written = [",".join(f"{number:g}" for number in value)]
        else:
            written = [json.dumps(value) if isinstance(value, Mapping) else str(value)]
        words += [option_name(one), *written]
    return words


def open_checkpoint(path: Path, options: OpenOptions) -> "Generator":
    """Open a checkpoint on the requested device.

    Raises:
        ArgumentError: If an option does not fit, or torch cannot use the device.
        CheckpointError: If the checkpoint cannot be loaded.
    """
    from sefa.checkpoints import load

    device = choose_device(options.device)
    return load(
        path, num_classes=options.num_classes, noise=options.noise, entry=options.entry, assume=options.assume
    ).to(device)


def choose_device(device: Device) -> str:
    """Return torch's name for a device.

    Raises:
        ArgumentError: If it is `cuda` and torch finds no usable GPU.
    """
    import torch

    if device == Device.CUDA and not torch.cuda.is_available():
        raise ArgumentError(f"--device cuda: torch {torch.__version__} finds no usable CUDA device")
    return "cuda" if device != Device.CPU and torch.cuda.is_available() else "cpu"


def _open_own(
    source: Path, kind: Kind, options: OpenOptions, layers: str, need_layers: bool, warn: Warn
) -> "CustomGenerator | CustomStyleGenerator":
    from sefa.checkpoints.card import read_card
    from sefa.custom import wrap
    from sefa.custom.sources.module_sources import check_may_run
    from sefa.custom.style_space.style_generator import edit_what_is_read

    if kind == Kind.ARCHIVE:
        check_may_run(source, options.run_code)
    names = [] if layers == "all" else [name for part in layers.split(",") if (name := part.strip())]
    if options.latent_dim is None or (kind == Kind.ARCHIVE and need_layers and not names):
        raise ArgumentError(
            f"{source}: a generator of your own needs --latent-dim and --layers, the layers that read the latent "
            f"first: --latent-dim 100 --layers main.0; sefa inspect {shlex.quote(str(source))} finds them out"
        )
    if options.label_format is not None and not options.num_classes:
        raise ArgumentError("--label-input needs --num-classes")
    with contextlib.redirect_stdout(sys.stderr):  # What the user's code prints is not our output.
        module, source_entry = _build(source, kind, options, warn)
        if need_layers and not names and options.mapping is None:
            from sefa.custom.layer_readers import name_usable_layers

            raise ArgumentError(
                f"{source}: --layers is needed: which of its layers read the latent first? auto finds them; "
                "those with a weight are "
                f"{name_usable_layers(module)}"
            )
        try:
            wrapped = wrap(
                module,
                latent_dim=options.latent_dim,
                layers=[],
                num_classes=options.num_classes or 0,
                label_format=options.label_format or LabelFormat.INDEX,
                image_range=options.image_range,
                image_layout=options.image_layout,
                output_key=options.output_key,
                call=options.call,
                freeze_noise=options.freeze_noise,
            )
            _warn_of_range(wrapped, options.image_range is not None, warn)
            is_automatic = names in ([], ["auto"])
            generator = (
                wrapped
                if options.mapping is None and not names
                else edit_what_is_read(wrapped, None if is_automatic else names, options.mapping)
            )
        except ArgumentError as error:
            raise ArgumentError(f"{source}: {error}") from error.__cause__
    file = options.weights if kind == Kind.CLASS else source
    generator.checkpoint_format = str(source) if kind == Kind.CLASS else "TorchScript"
    generator.source_entry = source_entry
    if file is not None:
        generator.source_sha256 = sha256_of(file)
        generator.license, generator.note = read_card(file)
    return generator


def _build(source: Path, kind: Kind, options: OpenOptions, warn: Warn) -> tuple["nn.Module", str]:
    """Build the module; return it and the entry of the weights file that was loaded into it."""
    import torch

    from sefa.custom import build_module, load_torchscript, load_weights

    if kind == Kind.ARCHIVE:
        inapt = [name for name in options.own if name in ("--weights", "--kwargs")]
        if inapt:
            raise ArgumentError(f"{source}: a TorchScript archive brings its own weights: leave out {inapt[0]}")
        return load_torchscript(source, run_code=options.run_code), ""
    if options.run_code:
        raise ArgumentError(f"{source}: code that is named by its class runs anyway: leave out --run-code")
    if options.weights is None:
        warn(f"no --weights: {source} keeps the weights that its constructor gives it")
    torch.manual_seed(0)  # So that two commands without --weights see the same generator.
    module = build_module(str(source), options.kwargs or {})
    return module, "" if options.weights is None else load_weights(module, options.weights, options.entry)


def _warn_of_range(generator: "CustomGenerator", given: bool, warn: Warn) -> None:
    from sefa.custom.probing import trial_codes

    images = generator.decode(trial_codes(4, generator.z_dim, generator.num_classes)[:, None])
    if not given and float(images.min()) >= 0 and float(images.max()) <= 1:
        warn("its images lie between 0 and 1: --image-range 0,1 would probably show them as intended")
    beyond = float((images.abs() > 1).float().mean())
    if beyond > MAX_BEYOND:
        low, high = generator.image_range
        warn(f"{beyond:.0%} of its values lie beyond {low:g} to {high:g} and will be clipped: see --image-range")


def _is_bank(path: Path) -> bool:
    """Return whether the file is a safetensors file with a bank's key in its metadata."""
    with path.open("rb") as file:
        head = file.read(9)
        if head[8:] != b"{" or head[:1] == b"{":
            return False
        file.seek(8)
        header = file.read(min(int.from_bytes(head[:8], "little"), path.stat().st_size))
    from sefa.bank.direction_bank import METADATA_KEY

    return METADATA_KEY.encode() in header
