"""Read direction banks from the files of other tools, and write such files."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from sefa.bank.direction_bank import DirectionBank
from sefa.bank_files.boundaries import vectors_bank, write_boundaries
from sefa.bank_files.ganspace_components import (
    components_bank,
    is_components,
    is_named_component,
    named_component_bank,
)
from sefa.bank_files.numpy_bank import is_bank, load_arrays, read_bank, write_bank
from sefa.bank_files.pickled_files import load_pickled
from sefa.bank_files.rosinality_factor import export_factor, import_factor, is_factor
from sefa.bank_files.style_space import check_no_style_space
from sefa.directions.compatibility import check_fits
from sefa.errors import ArgumentError, BankError
from sefa.generators import Generator, check_generator
from sefa.generators.layers import LayerSpec
from sefa_runtime.files import input_problem

WRITERS: dict[str, Callable[[DirectionBank, Path], Path]] = {
    ".npz": write_bank,
    ".npy": write_boundaries,
    ".pt": export_factor,
}


def import_bank(
    path: str | Path,
    generator: Generator | None = None,
    layers: LayerSpec = "all",
    edit_layers: LayerSpec | None = None,
    *,
    allow_other_checkpoint: bool = False,
    report: Callable[[str], None] = lambda text: None,
) -> DirectionBank:
    """Read directions from another tool's file; the tool is recognised from its contents.

    Args:
        path: An `.npz` that `export_bank` wrote; the boundaries `.npy` of genforce's tools (SeFa, InterFaceGAN); the
            components of GANSpace, `.npz`, single ones as `.pkl`, and e4e's `.pt` of them; rosinality's `factor.pt`; or
            vectors for all layers or for each, of any length, as `.npy`, `.pt` or `.safetensors`, alone or by name.
        generator: The generator that the directions belong to. Only the first kind of file says which generator that
            is; if one is given as well, it must fit.
        layers: The layers that were analysed, for boundaries and components. The eigenvalues of boundaries are measured
            on the weights of these layers.
        edit_layers: Layers that an edit changes; None: those analysed.
        allow_other_checkpoint: See `sefa.directions.compatibility.check_fits`; for the first kind of file.
        report: Called with a sentence about what was read as something other than it seems.

    Raises:
        BankError: If the file is missing, damaged or none of these, or does not fit the generator.
        ArgumentError: If the generator is missing or of the wrong kind, or layers are given although the file states
            them.
    """
    path = Path(path)
    problem = input_problem(path)
    if problem:
        raise BankError(f"{path}: {problem}")
    arrays = load_arrays(path)
    layers_given = (layers, edit_layers) != ("all", None)
    if arrays is not None and is_bank(arrays):
        if layers_given:
            raise ArgumentError(f"{path}: the file says itself what layers its directions are of")
        bank = read_bank(path, arrays)
        if generator is not None:
            check_fits(bank, generator, allow_other_checkpoint=allow_other_checkpoint)
        return bank
    if generator is None:
        raise ArgumentError(f"{path}: it does not say what generator its directions are of: name the checkpoint, too")
    check_generator(generator)
    content: Any = load_pickled(path) if arrays is None else arrays
    check_no_style_space(path, content, generator)
    says_layers = is_factor(content) or is_named_component(content)
    if layers_given and says_layers:
        what = (
            "a factor.pt is of all layers" if is_factor(content) else "the component says itself what layers it edits"
        )
        raise ArgumentError(f"{path}: {what}")
    if is_factor(content):
        return import_factor(path, generator)
    if is_named_component(content):
        return named_component_bank(path, content, generator)
    if is_components(content):
        return components_bank(path, content, generator, layers, edit_layers)
    return vectors_bank(path, content, generator, layers, edit_layers, report)


def export_bank(bank: DirectionBank, path: str | Path) -> Path:
    """Write a bank for other tools; the suffix of the file's name chooses the format.

    `.npz`: everything, for numpy; `import_bank` reads it back. `.npy`: unit directions [K, D], the boundaries of
    genforce's tools. `.pt`: rosinality's factor.pt.

    Raises:
        ArgumentError: If the name has another suffix.
        BankError: If the format cannot hold this bank.
        OSError: If the file cannot be written.
    """
    path = Path(path)
    write = WRITERS.get(path.suffix.lower())
    if write is None:
        raise ArgumentError(f"{path}: the name must end in {', '.join(WRITERS)}")
    return write(bank, path)
