"""Find the meaningful latent directions of a trained GAN, in closed form.

>>> import sefa
>>> generator = sefa.load("netG.pth")
>>> bank = sefa.factorize(generator, top=16)
>>> bank.save("bank.safetensors")
"""

from typing import TYPE_CHECKING, Any

from sefa_runtime.version import __version__

if TYPE_CHECKING:
    from sefa.bank.direction_bank import DirectionBank
    from sefa.bank.files.rosinality_factor import import_factor
    from sefa.checkpoints import load
    from sefa.custom import wrap
    from sefa.directions.factorization import factorize
    from sefa.errors import ArgumentError, BankError, CheckpointError, SefaError
    from sefa.generators import Generator
    from sefa.generators.layers import parse_layers

# Resolved on first use: the command line starts without torch.
_HOMES = {
    "ArgumentError": "sefa.errors",
    "BankError": "sefa.errors",
    "CheckpointError": "sefa.errors",
    "DirectionBank": "sefa.bank.direction_bank",
    "Generator": "sefa.generators",
    "SefaError": "sefa.errors",
    "factorize": "sefa.directions.factorization",
    "import_factor": "sefa.bank.files.rosinality_factor",
    "load": "sefa.checkpoints",
    "parse_layers": "sefa.generators.layers",
    "wrap": "sefa.custom",
}

__all__ = [
    "ArgumentError",
    "BankError",
    "CheckpointError",
    "DirectionBank",
    "Generator",
    "SefaError",
    "__version__",
    "factorize",
    "import_factor",
    "load",
    "parse_layers",
    "wrap",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'sefa' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
