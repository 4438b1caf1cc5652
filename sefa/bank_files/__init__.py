"""Read direction banks from the files of other tools, and write such files."""

from collections.abc import Callable
from pathlib import Path

from sefa.bank.direction_bank import DirectionBank
from sefa.bank_files.boundaries import boundaries_bank, write_boundaries
from sefa.bank_files.ganspace_components import components_bank, is_components
from sefa.bank_files.numpy_bank import is_bank, load_arrays, read_bank, write_bank
from sefa.bank_files.rosinality_factor import export_factor, import_factor
from sefa.directions.compatibility import check_fits
from sefa.errors import ArgumentError, BankError
from sefa.generators import Generator
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
) -> DirectionBank:
    """Read directions from another tool's file; the tool is recognised from its contents.

    Args:
        path: An `.npz` that `export_bank` wrote; the boundaries `.npy` of genforce's tools (SeFa, InterFaceGAN); the
            components `.npz` of GANSpace; or rosinality's `factor.pt`.
        generator: The generator that the directions belong to. Only the first kind of file says which generator that
            is; if one is given as well, it must fit.
        layers: The layers that were analysed, for boundaries and components. The eigenvalues of boundaries are measured
            on the weights of these layers.
        edit_layers: Layers that an edit changes; None: those analysed.
        allow_other_checkpoint: See `sefa.directions.compatibility.check_fits`; for the first kind of file.

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
    if arrays is None:
        if layers_given:
            raise ArgumentError(f"{path}: a factor.pt is of all layers")
        return import_factor(path, generator)
    if is_components(arrays):
        return components_bank(path, arrays, generator, layers, edit_layers)
    return boundaries_bank(path, arrays, generator, layers, edit_layers)


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
