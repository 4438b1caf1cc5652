"""sefa demo: the whole workflow on a generator of letters that comes with the package, or on one of faces."""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import typer

from sefa.bank.naming import find_all, parse_change, resolve
from sefa.bundled import BUNDLED, LETTERS, is_bundled
from sefa.demo.ruler import CHARACTERS
from sefa.opening import OpenOptions, open_checkpoint
from sefa_cli.descriptions import describe_parity, print_record
from sefa_cli.options import OPENING, ProviderOption
from sefa_cli.output import command_line, format_bytes, print_table, progress_bar, save_json, say, working
from sefa_runtime.files import check_output
from sefa_runtime.model.reading import read_info

if TYPE_CHECKING:
    from sefa.bank.direction_bank import DirectionBank
    from sefa.generators import Generator
    from sefa_runtime import Editor
    from sefa_runtime.images import Images

MEASURED_FONTS = 40
SHEET_COLUMNS = 5
ANIMATION_STEPS = 17  # of each direction, as `sefa sweep` takes
BENCH_SECONDS = 3.0
Words = Sequence[object]  # of a command line


class Model(StrEnum):
    """Which generator is shown."""

    LETTERS = "letters"
    FACES = "faces"


def demo(
    output: Annotated[
        Path,
        typer.Option("-o", "--output", metavar="DIR", help="A folder for the results; created if missing."),
    ],
    *,
    model: Annotated[
        Model,
        typer.Option(
            help="[b]letters[/b] comes with sefa; [b]faces[/b] is in a package of PyPI, which an error names if it is "
            "not there."
        ),
    ] = Model.LETTERS,
    opening: Annotated[OpenOptions, OPENING.only("device")],
    provider: ProviderOption = "auto",
) -> None:
    """Run the whole workflow on a trained generator of letters, and show the commands for it.

    [b]sefa demo -o demo[/b]

    Writes to DIR: [b]letters.safetensors[/b], the directions; [b]letters.onnx[/b] and [b]letters.ts[/b], the exported
    models; [b]sheet.png[/b], what the directions do; [b]word.gif[/b]; [b]latency.json[/b]. With [b]--model faces[/b],
    [b]faces.safetensors[/b] and so on, and [b]turn.gif[/b].
    """
    from sefa.bank.editing import change, subset
    from sefa.directions.factorization import factorize
    from sefa_export import export_onnx, export_torchscript
    from sefa_runtime import load
    from sefa_runtime.images import save_animation, save_image
    from sefa_runtime.latency import measure
    from sefa_runtime.session.doctor import probe

    probe(provider)
    show: Show = Letters() if model == Model.LETTERS else Faces()
    output.mkdir(exist_ok=True)
    bank_path, onnx_path, torchscript_path = (output / f"{model}.{kind}" for kind in ("safetensors", "onnx", "ts"))
    sheet_path, gif_path, record_path = (output / name for name in ("sheet.png", show.animated, "latency.json"))
    check_output(bank_path)

    top = () if show.top is None else ("--top", show.top)
    _show_command(f"sefa factorize {show.source} {command_line('-o', bank_path, *top)}")
    generator = open_checkpoint(show.checkpoint, opening)
    started = time.perf_counter()
    bank = factorize(generator, top=show.top)
    milliseconds = (time.perf_counter() - started) * 1000
    bank.save(bank_path)
    say(f"{len(bank)} directions of {bank.code_dim} components in {milliseconds:.0f} ms")

    changes, kept = show.names(generator, bank)
    if changes:
        keep = () if kept is None else ("--keep", kept)
        _show_command(command_line("sefa", "name", bank_path, *changes, *keep))
        bank = change(bank, resolve(bank.names, [parse_change(text) for text in changes]))
        if kept is not None:
            bank = subset(bank, find_all(bank.names, kept))
        bank.save(bank_path)
        say(", ".join(f"{index} is {name}" for index, name in enumerate(bank.names) if not name.endswith(f"-{index}")))

    psi = None if show.truncated else 1.0
    inputs = ("--truncation-input",) if show.truncated else ()
    kinds: tuple[tuple[Path, Words, Callable[..., object]], ...] = (
        (onnx_path, (), export_onnx),
        (torchscript_path, ("--format", "torchscript"), export_torchscript),
    )
    for path, kind, write in kinds:
        _show_command(f"sefa export {show.source} {command_line('--bank', bank_path, '-o', path, *inputs, *kind)}")
        with working("Exporting and verifying against PyTorch"):
            write(generator, bank, path, truncation=psi)
        info = read_info(path)
        takes = ", ".join(one.name for one in info.signature.inputs)
        say(f"{format_bytes(path.stat().st_size)}, takes {takes}; {describe_parity(info)}")

    editor = load(onnx_path, provider)
    sheet, shows = show.sheet(editor)
    save_image(sheet, sheet_path)
    say("", f"# {sheet_path}: {shows}; on {editor.provider}", bold=True)

    options, frames = show.animation(editor)
    _show_command(command_line("sefa", "sweep", onnx_path, "-o", gif_path, *options))
    save_animation(frames, gif_path, closed=show.closed)
    say(f"{len(frames)} images of {frames.shape[2]}x{frames.shape[1]} pixels")

    bench = ("--batch", "1,8", "--seconds", f"{BENCH_SECONDS:g}", "-o", record_path)
    _show_command(command_line("sefa", "bench", onnx_path, *bench))
    with progress_bar("Measuring") as progress:
        record = measure(load(onnx_path, provider), (1, 8), seconds=BENCH_SECONDS, progress=progress)
    save_json(record.to_dict(), record_path)
    print_record(record)
    then = command_line("sefa", "edit", onnx_path, "-o", *show.edit(editor))
    say(
        "",
        f"Look at {sheet_path} and {gif_path}; then: {then}",
        f"Try all by hand: {command_line('sefa', 'serve', onnx_path)}",
    )


class Show(ABC):
    """What is particular to a generator.

    Attributes:
        checkpoint: Its file.
        source: How the commands name it.
        top: How many directions are found; None: as many as usual.
        truncated: Whether the models take a truncation psi.
        animated: The animation's file name.
        closed: Whether its last frame leads to the first.
    """

    checkpoint: Path
    source: str
    top: ClassVar[int | None] = None
    truncated: ClassVar[bool] = False
    animated: ClassVar[str]
    closed: ClassVar[bool] = False

    @abstractmethod
    def names(self, generator: "Generator", bank: "DirectionBank") -> tuple[list[str], str | None]:
        """Return changes to the directions, and which of them to keep, as `sefa name` takes them."""

    @abstractmethod
    def sheet(self, editor: "Editor") -> tuple["Images", str]:
        """Return an image of what the directions do, and what it shows in words."""

    @abstractmethod
    def animation(self, editor: "Editor") -> tuple[Words, "Images"]:
        """Return options of `sefa sweep`, and the frames that it renders with them."""

    @abstractmethod
    def edit(self, editor: "Editor") -> Words:
        """Return what follows `sefa edit MODEL -o`."""


class Letters(Show):
    """Letters, digits too, of many fonts: the class is the character, and the latent is the font."""

    top = 8
    truncated = True
    animated = "word.gif"
    closed = True
    word = "SeFa"
    specimen = "Rag"
    fonts = (3, 7)
    trim = 8  # pixels at each side of these letters that are paper
    psi = 0.7

    def __init__(self) -> None:
        self.checkpoint = BUNDLED[LETTERS]
        self.source = LETTERS if is_bundled(Path(LETTERS)) else command_line(_short(self.checkpoint))

    def names(self, generator: "Generator", bank: "DirectionBank") -> tuple[list[str], str | None]:
        from sefa.demo.responses import names_of, respond

        say("", f"# A ruler measures {MEASURED_FONTS} fonts, each edited by an alpha of its own", bold=True)
        with progress_bar("Measuring") as progress:
            names = names_of(respond(generator, bank, MEASURED_FONTS, progress))
        if len(names) < 2:
            say("fewer than two directions move one measure so reliably and so purely that they are named after it")
            return [one.change for one in names], None
        print_table(
            ("direction", "moves", "correlation with alpha", "by up to"),
            [
                (one.index, one.measured, f"{one.correlation:+.2f}", f"{abs(one.effect):.1f} σ of fonts")
                for one in names
            ],
        )
        return [one.change for one in names], ",".join(one.measured for one in names)

    def sheet(self, editor: "Editor") -> tuple["Images", str]:
        import numpy as np

        from sefa_runtime.images import contact_sheet

        directions = editor.info.directions
        alphas = np.linspace(*directions[0].alpha_range, SHEET_COLUMNS).round(2).tolist()
        words = [
            self._specimen(editor, font, index, alphas) for font in self.fonts for index, _ in enumerate(directions)
        ]
        sheet = contact_sheet(
            np.stack(words).reshape(len(self.fonts), len(directions), *words[0].shape),
            titles=[f"seed {seed}" for seed in self.fonts],
            row_labels=editor.info.names,
            column_labels=[f"{alpha:+g}" if alpha else "0" for alpha in alphas],
        )
        return sheet, f"rows are directions, columns are alphas, {len(self.fonts)} fonts"

    def animation(self, editor: "Editor") -> tuple[Words, "Images"]:
        import numpy as np

        from sefa_runtime.images import eased, enlarge, mosaic, round_trip, side_by_side

        names = editor.info.names[:2]
        rounds = []
        for index, _ in enumerate(names):
            alphas = eased(*editor.info.directions[index].alpha_range, ANIMATION_STEPS)
            images = editor.sweep(
                seed=np.repeat(self.fonts, len(self.word)).tolist(),
                direction=index,
                alphas=alphas,
                label=self._labels(self.word) * len(self.fonts),
                truncation=self.psi,
            )  # [fonts·letters, alphas, H, W, C]
            rounds.append(images[:, round_trip(alphas)])
        words = side_by_side(np.concatenate(rounds, axis=1), len(self.word), self.trim)  # [fonts, frames, H, W, C]
        frames = mosaic(enlarge(words, 2), 1)
        sweep = ("--direction", ",".join(names), "--labels", self.word, "--seeds", _list(self.fonts))
        return (*sweep, "--truncation", self.psi, "--trim", self.trim, "--scale", 2), frames

    def edit(self, editor: "Editor") -> Words:
        return ("letter.png", "--label", "g", "--seed", self.fonts[0], "--edit", f"{editor.info.names[0]}=1")

    def _labels(self, text: str) -> list[int]:
        return [CHARACTERS.index(character) for character in text]

    def _specimen(self, editor: "Editor", font: int, direction: int, alphas: Sequence[float]) -> "Images":
        """Render some letters of a font for each alpha, side by side and close together: [A, H, W, C]."""
        import numpy as np

        from sefa_runtime.images import side_by_side

        images = editor.sweep(
            seed=[font] * len(self.specimen),
            direction=direction,
            alphas=alphas,
            label=self._labels(self.specimen),
            truncation=self.psi,
        )  # [letters, A, H, W, C]
        (words,) = side_by_side(images, len(self.specimen), self.trim)
        return np.pad(words, [(0, 0), (0, 0), (self.trim, self.trim), (0, 0)], constant_values=255)


class Faces(Show):
    """Faces, of a DCGAN from PyPI."""

    animated = "turn.gif"
    people = (7, 15, 35)
    turn = "turn"
    alphas = (-3.0, -1.5, 0.0, 1.5, 3.0)
    rows = 8

    def __init__(self) -> None:
        from sefa.demo.faces import find_faces

        self.checkpoint = find_faces()
        self.source = "$FACES"
        _show_command(f"FACES={command_line(_short(self.checkpoint))}")

    def names(self, generator: "Generator", bank: "DirectionBank") -> tuple[list[str], str | None]:
        from sefa.demo.faces import NAMES

        return list(NAMES), None

    def sheet(self, editor: "Editor") -> tuple["Images", str]:
        import numpy as np

        from sefa_runtime.images import contact_sheet

        directions = range(min(self.rows, len(editor.info.directions)))
        sweeps = [editor.sweep(seed=self.people, direction=index, alphas=self.alphas) for index in directions]
        sheet = contact_sheet(
            np.stack(sweeps, axis=1),  # [people, directions, alphas, H, W, C]
            titles=[f"seed {seed}" for seed in self.people],
            row_labels=[editor.info.names[index] for index in directions],
            column_labels=[f"{alpha:+g}" if alpha else "0" for alpha in self.alphas],
        )
        return sheet, f"rows are directions, columns are alphas, {len(self.people)} people"

    def animation(self, editor: "Editor") -> tuple[Words, "Images"]:
        from sefa_runtime.images import eased, enlarge, mosaic

        alphas = eased(*editor.info.directions[editor.direction_index(self.turn)].alpha_range, 24)
        turns = editor.sweep(seed=self.people, direction=self.turn, alphas=alphas)  # [people, alphas, H, W, C]
        return ("--direction", self.turn, "--seeds", _list(self.people), "--scale", 3), mosaic(enlarge(turns, 3))

    def edit(self, editor: "Editor") -> Words:
        return ("face.png", "--seed", 7, "--edit", f"{self.turn}=2")


def _short(path: Path) -> str:
    """Return the path, relative to the current folder if it lies inside."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def _list(numbers: Sequence[int]) -> str:
    return ",".join(map(str, numbers))


def _show_command(command: str) -> None:
    say("", f"$ {command}", bold=True)
