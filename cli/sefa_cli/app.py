"""The command-line application: all commands, with errors printed as one line."""

import errno
import io
import os
import sys
from collections.abc import Callable
from inspect import cleandoc
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from sefa.errors import SefaError
from sefa_cli.commands import (
    bank,
    bench,
    compare_methods,
    demo,
    doctor,
    edit,
    explore,
    export,
    factorize,
    inspect,
    kserve,
    name,
    seal,
    serve,
    sweep,
    triton,
    tune,
    verify,
)
from sefa_cli.option_groups import spread
from sefa_cli.output import say
from sefa_cli.signals import watched_signals
from sefa_runtime.errors import SefaRuntimeError
from sefa_runtime.version import VERSION

TRACEBACK_VARIABLE = "SEFA_TRACEBACK"
# Errors that only a bug causes, not a disk, network or user: a file used after it was closed, an invalid address.
OUR_ERRNO = (errno.EBADF, errno.EFAULT)


class FlagsTakeNothing:
    """A command whose help shows no type after its flags: `--json <bool>` reads as if a value followed."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the parameters, `--help` among them."""
        parameters: list[Any] = super().get_params(ctx)  # type: ignore[misc]
        for parameter in parameters:
            if getattr(parameter, "is_flag", False):
                parameter.metavar = ""
        return parameters


class OneCommand(FlagsTakeNothing, TyperCommand):
    """A command."""


class Commands(FlagsTakeNothing, TyperGroup):
    """A group of commands that also accepts `help`, and `bench compare` besides `bench MODEL`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Treat `help COMMAND` as `COMMAND --help`."""
        if args[:1] == ["help"]:
            args = [*(argument for argument in args if argument != "help"), "--help"]
        return super().parse_args(ctx, args)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Join the first two arguments if there is a command of that name."""
        two_words = " ".join(args[:2])
        return super().resolve_command(ctx, [two_words, *args[2:]] if two_words in self.commands else args)


def _group(**options: Any) -> typer.Typer:
    return typer.Typer(
        cls=Commands,
        add_completion=False,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode="rich",
        context_settings={"help_option_names": ["-h", "--help"]},
        **options,
    )


app = _group(name="sefa")
banks = _group(name="bank", help="Work on direction banks: show, merge, subset, compare, import, export.")


def _reflow(docstring: str | None) -> str:
    """Join the lines of each paragraph so that it fills the terminal's width; leave indented paragraphs alone."""
    paragraphs = cleandoc(docstring or "").split("\n\n")
    return "\n\n".join(text if text.startswith(" ") else " ".join(text.split()) for text in paragraphs)


COMMANDS: dict[str, tuple[Callable[..., None], ...]] = {
    "Make a model (needs the extra 'export')": (factorize.factorize, export.export, demo.demo),
    "Work on directions": (
        explore.explore,
        name.name,
        compare_methods.compare_methods,
    ),
    "Use a model (needs no torch)": (edit.edit, sweep.sweep, serve.serve, bench.bench, bench.compare, tune.tune),
    "Serve a model with other servers": (triton.triton, kserve.kserve),
    "Inspect and check": (inspect.inspect, verify.verify, seal.seal, doctor.doctor),
}
NAMES: dict[Callable[..., None], str] = {bench.compare: "bench compare", bank.import_: "import"}
for panel, commands in COMMANDS.items():
    for command in commands:
        app.command(NAMES.get(command), help=_reflow(command.__doc__), cls=OneCommand, rich_help_panel=panel)(
            spread(command)
        )
for command in (bank.show, bank.merge, bank.subset, bank.compare, bank.import_, bank.export):
    banks.command(NAMES.get(command), help=_reflow(command.__doc__), cls=OneCommand)(spread(command))
app.add_typer(banks, rich_help_panel="Work on directions")


def _print_version(wanted: bool) -> None:
    if wanted:
        say(f"sefa {VERSION}")
        raise typer.Exit


HELP = """Edit what a GAN generates: pose, lighting, background.

Finds meaningful directions in a generator's latent space in closed form (SeFa, CVPR 2021), bakes generator and
directions into one ONNX graph, and serves edits from it without PyTorch.

A first tour, with a generator of letters that comes with sefa:

  sefa demo -o demo

With your own generator: see what is in the file; find directions, bake and verify; look at one; edit with it:

  sefa inspect netG.pth
  sefa export netG.pth -o netG.onnx
  sefa sweep netG.onnx -o look.png --direction 0
  sefa edit netG.onnx -o face.png --seed 7 --edit 0=2.5
"""


@app.callback(
    help=_reflow(HELP), epilog=f"Errors are printed as one line; set {TRACEBACK_VARIABLE}=1 to see the full traceback."
)
def sefa(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Handle the options that come before any command."""


def main() -> None:
    """Run the command line; an error that the user can fix becomes one line and exit code 1."""
    # Some service managers start processes without a stdout.
    sys.stdout = sys.stdout or Path(os.devnull).open("w")  # noqa: SIM115
    sys.stderr = sys.stderr or Path(os.devnull).open("w")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # Escape what the encoding lacks: ASCII has neither the frames of the help nor some letters in file names.
            stream.reconfigure(errors="backslashreplace")
    try:
        with watched_signals():
            app(prog_name="sefa")
    except Exception as error:
        message = None if os.environ.get(TRACEBACK_VARIABLE) else _message_of(error)
        if message is None:
            raise
        say(f"sefa: {' '.join(message.split())}", err=True)
        sys.exit(1)


def _message_of(error: Exception) -> str | None:
    """Return the message of an error that the user can fix; None for a bug of ours, which keeps its traceback."""
    if isinstance(error, SefaError | SefaRuntimeError):
        return str(error)
    if isinstance(error, ModuleNotFoundError):
        # Imported here because it imports importlib.metadata, which would slow down every start.
        from sefa_runtime.machine.packages import EXPORT_PACKAGES

        if error.name in EXPORT_PACKAGES:
            return f"this command needs {error.name}, which is not installed: pip install {' '.join(EXPORT_PACKAGES)}"
    if isinstance(error, OSError) and error.strerror and error.errno not in OUR_ERRNO:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return None
