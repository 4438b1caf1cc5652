"""Find the meaningful latent directions of a trained GAN, in closed form.

>>> import sefa
>>> generator = sefa.load("netG.pth")
>>> bank = sefa.factorize(generator, top=16)
>>> bank.save("bank.safetensors")
PosixPath('bank.safetensors')
"""

from typing import TYPE_CHECKING

from sefa_runtime.lazy_names import lazy_names
from sefa_runtime.version import __version__ as __version__

if TYPE_CHECKING:
    from sefa.bank.direction_bank import DirectionBank as DirectionBank
    from sefa.bank_files.rosinality_factor import import_factor as import_factor
    from sefa.checkpoints import load as load
    from sefa.custom import wrap as wrap
    from sefa.directions.factorization import factorize as factorize
    from sefa.errors import ArgumentError as ArgumentError
    from sefa.errors import BankError as BankError
    from sefa.errors import CheckpointError as CheckpointError
    from sefa.errors import SefaError as SefaError
    from sefa.generators import Generator as Generator
    from sefa.generators.layers import parse_layers as parse_layers
else:
    __all__, __getattr__ = lazy_names(
        __name__,
        {
            "sefa.bank.direction_bank": ("DirectionBank",),
            "sefa.bank_files.rosinality_factor": ("import_factor",),
            "sefa.checkpoints": ("load",),
            "sefa.custom": ("wrap",),
            "sefa.directions.factorization": ("factorize",),
            "sefa.errors": ("ArgumentError", "BankError", "CheckpointError", "SefaError"),
            "sefa.generators": ("Generator",),
            "sefa.generators.layers": ("parse_layers",),
        },
    )
