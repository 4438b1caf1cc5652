"""Options that several commands share, and how their values are read."""

import re
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from sefa_cli.output import warn
from sefa_runtime.errors import InputError

if TYPE_CHECKING:
    from sefa_runtime import ModelInfo

Number = TypeVar("Number", int, float)

MAX_ALPHAS = 1000
MAX_ALPHA = 1e6  # far beyond any image, and far from overflow
MAX_NUMBERS = 1000
MAX_IMAGE_BYTES = 2**31


class Device(StrEnum):
    """Where torch computes."""

    AUTO = "auto"
    CUDA = "cuda"
    CPU = "cpu"


class Normalize(StrEnum):
    """How the rows of A are scaled."""

    NONE = "none"
    ROWS = "rows"


CheckpointArgument = Annotated[
    Path,
    typer.Argument(
        metavar="CHECKPOINT",
        help="A trained generator's checkpoint; or your own: MODULE:CLASS, or a TorchScript archive.",
    ),
]
ModelArgument = Annotated[Path, typer.Argument(metavar="MODEL", help="An .onnx file made by [b]sefa export[/b].")]
LayersOption = Annotated[
    str,
    typer.Option(
        metavar="SPEC",
        help="Layers to analyse: [b]all[/b], [b]3[/b], [b]0-3[/b], [b]0,2,5-7[/b]; of a generator of your own, the "
        "names of those that read the latent first: [b]main.0[/b].",
    ),
]
EditLayersOption = Annotated[
    str | None,
    typer.Option(metavar="SPEC", help="Layers that an edit touches, if not those analysed."),
]
TopOption = Annotated[
    int | None,
    typer.Option(
        metavar="K",
        help="How many directions to keep, strongest first.",
        show_default="16, or the latent's size",
    ),
]
NormalizeOption = Annotated[
    Normalize,
    typer.Option(
        help="[b]none[/b] is the paper's formula; [b]rows[/b] scales A's rows to unit length first, "
        "as the authors' code does."
    ),
]
DeviceOption = Annotated[Device, typer.Option(help="Where to compute; [b]auto[/b] is the GPU if torch can use one.")]
ProviderOption = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="onnxruntime execution provider: [b]auto[/b] (CUDA where it works, else the CPU), [b]cuda[/b], "
        "[b]tensorrt[/b], [b]openvino[/b], [b]cpu[/b], ... One asked for by name runs, or the command fails.",
    ),
]
ProviderOptionsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--provider-option",
        metavar="KEY=VALUE",
        help="An option of the provider by onnxruntime's name, as [b]device_id=1[/b]; a key with a dot in it is the "
        "session's, as [b]session.intra_op.allow_spinning=0[/b]; may be repeated.",
    ),
]
CpuFallbackOption = Annotated[
    bool, typer.Option("--allow-cpu-fallback", help="Take the CPU if the provider asked for cannot run.")
]
ThreadsOption = Annotated[
    int | None, typer.Option(metavar="N", help="CPU threads.", show_default="the cores it may use")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]
LatentFileOption = Annotated[
    Path | None,
    typer.Option("--z", metavar="FILE.npy", help="Latents of your own, shape \\[N, z_dim], instead of seeds."),
]


LabelOption = Annotated[
    str | None,
    typer.Option(
        "--label",
        metavar="CLASS",
        help="Class index, for a class-conditional model: one for all images, or one for each: [b]3,3,8[/b].",
    ),
]
OtherCheckpointOption = Annotated[
    bool,
    typer.Option(
        "--allow-other-checkpoint",
        help="Take directions of another checkpoint of the same architecture, as of one that this was tuned from.",
    ),
]
NumClassesOption = Annotated[
    int | None,
    typer.Option(
        "--num-classes",
        metavar="N",
        help="Classes of a conditional DCGAN or PGGAN whose label follows z, which its file cannot tell, or of a "
        "generator of your own.",
    ),
]

EntryOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Which of the file's entries to read, if it has several generators: [b]netG_ema[/b], "
        "[b]state_dict.generator[/b].",
        show_default="the averaged generator",
    ),
]
AssumeOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="FACT=VALUE",
        help="What the file does not tell, where it is not what [b]sefa inspect[/b] says is assumed: "
        "[b]stride=1,2,2,1[/b], [b]activation=leaky_relu:0.2[/b], [b]output=sigmoid[/b]; may be repeated. What can be "
        "told of which format stands in docs/formats.md.",
    ),
]


CodesOption = Annotated[
    Path | None,
    typer.Option(
        "--codes",
        metavar="FILE",
        help="Codes of inverted photographs, for a model of [b]w+[/b] or [b]w[/b]: the .npz, .npy or .pt file that a "
        "projector or encoder wrote.",
    ),
]
TruncationOption = Annotated[
    float | None,
    typer.Option(
        "--truncation", metavar="PSI", help="Truncation psi, for a model exported with [b]--truncation-input[/b]."
    ),
]


def parse_edit(text: str) -> tuple[str | int, float]:
    """Read `pose=2.5` or `3=-1` as direction and alpha.

    Raises:
        InputError: If it is not of that form.
    """
    direction, equals, alpha = text.partition("=")
    if not equals or not direction.strip():
        raise InputError(f"an edit looks like pose=2.5 or 3=-1, got {text!r}")
    return parse_direction(direction), _finite(alpha, text)


def parse_provider_options(texts: list[str] | None) -> dict[str, str]:
    """Read `device_id=1` and the like.

    Raises:
        InputError: If one is not of that form or a key is given twice.
    """
    options: dict[str, str] = {}
    for text in texts or []:
        key, equals, value = (part.strip() for part in text.partition("="))
        if not (key and equals and value):
            raise InputError(f"a provider option looks like device_id=1, got {text!r}")
        if key in options:
            raise InputError(f"the provider option {key} is given twice")
        options[key] = value
    return options


def parse_assumptions(texts: list[str] | None) -> dict[str, str]:
    """Read `stride=1,2,2,1` and the like.

    Raises:
        InputError: If one is not of that form or a fact is told twice.
    """
    facts: dict[str, str] = {}
    for text in texts or []:
        fact, equals, value = (part.strip() for part in text.partition("="))
        if not (fact and equals and value):
            raise InputError(f"--assume takes a fact like stride=1,2,2,1 or output=sigmoid, got {text!r}")
        if fact in facts:
            raise InputError(f"--assume tells {fact} twice")
        facts[fact] = value
    return facts


def parse_direction(text: str) -> str | int:
    """Read an index if it looks like one, else a name."""
    text = text.strip()
    try:
        return int(text)
    except ValueError:
        return text


def parse_alphas(text: str) -> list[float]:
    """Read `-3:3:7` (from, to, how many) or `-2,0,2`.

    Raises:
        InputError: If it is neither.
    """
    if ":" not in text:
        return [_finite(part, text) for part in text.split(",")]
    parts = text.split(":")
    if len(parts) != 3:
        raise InputError(f"alphas look like -3:3:7 (from, to, how many) or -2,0,2, got {text!r}")
    start, end, count = _finite(parts[0], text), _finite(parts[1], text), _number(parts[2], int, text)
    if not 1 <= count <= MAX_ALPHAS:
        raise InputError(f"alphas must be 1 to {MAX_ALPHAS} steps, got {count}")
    if count == 1 and start != end:
        raise InputError(
            f"one step does not get from {start:g} to {end:g}: give one alpha, or more steps, got {text!r}"
        )
    return linear_steps(start, end, count)


def linear_steps(start: float, end: float, count: int) -> list[float]:
    """`count` evenly spaced numbers, both ends included."""
    import numpy as np

    return [float(number) for number in np.linspace(start, end, count)]


def parse_integers(text: str) -> list[int]:
    """Read `7`, `1,2,8` or `1-6`.

    Raises:
        InputError: If it is none of these.
    """
    numbers: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,10})(?:-(\d{1,10}))?\s*", part)
        if match is None:
            raise InputError(f"numbers look like 7 or 1,2,8 or 1-6, got {text[:80]!r}")
        start, end = int(match[1]), int(match[2] or match[1])
        if end < start:
            raise InputError(f"a range must run upwards, got {part!r}")
        if len(numbers) + end - start >= MAX_NUMBERS:
            raise InputError(f"at most {MAX_NUMBERS} numbers at once, got {text[:80]!r}")
        numbers += range(start, end + 1)
    return numbers


def choose_latents(seeds: str | None, z: Path | None, codes: Path | None, info: "ModelInfo") -> dict[str, Any]:
    """The `seed=`, `z=`, `w=` or `codes=` argument for an Editor; seed 0 if nothing was given.

    Raises:
        InputError: If several were given, one cannot be read, or the model takes something else.
    """
    if sum(way is not None for way in (seeds, z, codes)) > 1:
        raise InputError("give seeds, --z or --codes, not several of them")
    if (codes is None) != (info.latent == "z"):
        raise InputError(
            f"the model takes {info.latent}: give --codes FILE, with [N, {', '.join(map(str, info.latent_shape))}]"
            if codes is None
            else "the model takes z: codes need one exported with --latent w+"
        )
    if codes is not None:
        from sefa_runtime.inputs.code_files import load_codes, looks_like_latents

        loaded = load_codes(codes, info.latent_shape, info.num_layers, lambda text: warn(f"{codes}: {text}"))
        if looks_like_latents(loaded, info):
            warn(f"{codes}: these look like latents z, not like codes: z is for a model exported without --latent")
        return {info.latent_name: loaded}
    if z is not None:
        from sefa_runtime.inputs.code_files import load_latents

        return {"z": load_latents(z)}
    return {"seed": parse_integers("0" if seeds is None else seeds)}


def check_image_bytes(info: "ModelInfo", count: int, scale: int) -> None:
    """Refuse images that together would fill the memory, before the first is rendered.

    Args:
        info: The model.
        count: How many images.
        scale: How many times each is enlarged.

    Raises:
        InputError: If so.
    """
    height, width, channels = info.image_shape
    size = count * height * width * channels * scale**2
    if size > MAX_IMAGE_BYTES:
        raise InputError(
            f"{count} images of {width * scale}x{height * scale} pixels take {size / 1e9:.3g} GB: at most "
            f"{MAX_IMAGE_BYTES / 1e9:.3g} GB at once; take fewer seeds or steps, or a smaller --scale"
        )


def parse_label(text: str | None) -> int | list[int] | None:
    """Read one class index for all images, or one for each.

    Raises:
        InputError: If it is neither.
    """
    if text is None:
        return None
    labels = parse_integers(text)
    return labels[0] if len(labels) == 1 else labels


def _finite(text: str, whole: str) -> float:
    number = _number(text, float, whole)
    if not abs(number) <= MAX_ALPHA:
        raise InputError(f"alphas must be finite numbers of at most {MAX_ALPHA:g}, got {text.strip()!r}")
    return number


def _number(text: str, kind: Callable[[str], Number], whole: str) -> Number:
    try:
        return kind(text)
    except ValueError:
        raise InputError(f"{text.strip()!r} in {whole!r} is not a number") from None
