"""StyleGAN-XL as its authors' PyTorch code pickles it, a stem or a super-resolution: StyleGAN3 with other labels."""

from torch import Tensor
from torch.nn import functional as F

from sefa.checkpoints.assembly import combine, shape_of, source
from sefa.checkpoints.checkpoint import Checkpoint, Format, LoadOptions, clean
from sefa.checkpoints.formats.nvidia_stylegan3 import SQRT2, Embedding, build, dense, has_sinusoids, is_stylegan_xl
from sefa.generators.stylegan3 import StyleGAN3

EMBED = "mapping.embed.weight"
PROJECTION = "mapping.embed_proj"


def recognises(checkpoint: Checkpoint) -> bool:
    """A StyleGAN3 whose labels pass a pretrained embedding and a projection, or that was built on a smaller one."""
    return has_sinusoids(checkpoint.persisted) and is_stylegan_xl(checkpoint.persisted)


def load(checkpoint: Checkpoint, options: LoadOptions) -> StyleGAN3:
    """Build the generator."""
    network = checkpoint.persisted
    assert network is not None
    tensors = clean(network.tensors())
    if not network.attribute("c_dim", int):
        return build(network, tensors, None)
    projection = dense(network, PROJECTION, SQRT2, "lrelu")
    table = combine(source(EMBED), *projection, convert=_project)
    return build(network, tensors, Embedding(table, shape_of(tensors, f"{PROJECTION}.weight", 2)[0]))


def _project(embed: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """All classes' embeddings at once, [num_classes, dim]."""
    return F.leaky_relu(F.linear(embed, weight, bias), 0.2)


FORMAT = Format("StyleGAN-XL", recognises, load)
