"""StyleGAN2 as the decoder of an encoder of photos: pSp, e4e, ReStyle, HyperStyle, StyleCLIP's mappers.

A state dict of everything: encoder, hypernet or mapper, which are not needed, and decoder, which is rosinality's
StyleGAN2. Beside it is the centre of truncation, once for each layer.
"""

from sefa.checkpoints.checkpoint import Checkpoint, Format, LoadOptions
from sefa.checkpoints.formats.rosinality import rosinality_stylegan2
from sefa.generators import StyleGAN2

DECODER = "decoder."


def recognises(checkpoint: Checkpoint) -> bool:
    """Recognise rosinality's names below `decoder.`, beside other networks."""
    needed = {f"{DECODER}{key}" for key in rosinality_stylegan2.first_keys()}
    return needed <= checkpoint.stored.keys() and not all(key.startswith(DECODER) for key in checkpoint.stored)


def load(checkpoint: Checkpoint, options: LoadOptions) -> StyleGAN2:
    """Build the generator."""
    generator = rosinality_stylegan2.load(_decoder(checkpoint), options)
    others = sorted({key.partition(".")[0] for key in checkpoint.stored if "." in key} - {DECODER[:-1]})
    where = ".".join((*checkpoint.location, ""))
    generator.source_entry = f"{where}decoder, beside {', '.join(others[:4])}"
    return generator


def _decoder(checkpoint: Checkpoint) -> Checkpoint:
    stored = checkpoint.stored
    decoder = {key.removeprefix(DECODER): value for key, value in stored.items() if key.startswith(DECODER)}
    decoder |= {key: stored[key] for key in (rosinality_stylegan2.CENTER,) if key in stored}
    return Checkpoint(checkpoint.path, decoder, checkpoint.beside, (*checkpoint.location, DECODER[:-1]))


FORMAT = Format("StyleGAN2 with an encoder (pSp, e4e, ReStyle, HyperStyle)", recognises, load)
