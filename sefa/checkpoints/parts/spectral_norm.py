"""Layers with torch's spectral norm, and without: what the file holds of them, and their effective weights.

torch.nn.utils.spectral_norm stores a weight as weight_orig, with weight_u and weight_v, from which inference computes
the norm by which it divides. torch-mimicry's own layers store a weight with the left vector alone, sn_u.

Source: Miyato, Kataoka, Koyama & Yoshida, "Spectral Normalization for Generative Adversarial Networks", ICLR 2018.
"""

import math
from collections.abc import Callable, Mapping

from torch import Tensor, nn
from torch.nn import functional as F

from sefa.checkpoints.parts.assembly import Assembly, Parameters, Stored
from sefa.errors import CheckpointError
from sefa.generators.biggan import Attention

LEFT_VECTOR = "sn_u"
EPSILON = 1e-12  # of the norm that is estimated from it


class SpectralLayers:
    """A file's layers, some of which have spectral norms.

    Args:
        file: The file's tensors.
    """

    def __init__(self, file: Assembly) -> None:
        self.file = file

    def shape(self, name: str, ndim: int) -> tuple[int, ...]:
        """Return the shape of a layer's weight, as `Assembly.shape` does."""
        return self.file.shape(f"{name}.weight_orig" if self.is_normalizable(name) else f"{name}.weight", ndim)

    def has(self, name: str) -> bool:
        """Return whether there is a weight of this name."""
        return f"{name}.weight" in self.file.tensors or f"{name}.weight_orig" in self.file.tensors

    def is_normalizable(self, name: str) -> bool:
        """Return whether a layer's weight comes with both vectors of its norm, rather than already normalised."""
        tensors = self.file.tensors
        return f"{name}.weight_v" in tensors or (f"{name}.weight_orig" in tensors and f"{name}.weight" not in tensors)

    def weight(self, name: str, shape: tuple[int, ...], argument: str = "weight", axis: int = 0) -> dict[str, Stored]:
        """Return where a layer's weight is, with the vectors of its norm if it is yet to be normalised.

        Args:
            name: The layer's name.
            shape: The weight's shape.
            argument: The name that `normalized` will be given.
            axis: The axis of the outputs, which the left vector has; 1 in transposed convolutions.
        """
        if not self.is_normalizable(name):
            stored: dict[str, Stored] = {argument: (f"{name}.weight", shape)}
            if f"{name}.{LEFT_VECTOR}" in self.file.tensors:
                stored[f"{argument}_left"] = (f"{name}.{LEFT_VECTOR}", (1, shape[axis]))
            return stored
        return {
            argument: (f"{name}.weight_orig", shape),
            f"{argument}_u": (f"{name}.weight_u", (shape[axis],)),
            f"{argument}_v": (f"{name}.weight_v", (math.prod(shape) // shape[axis],)),
        }

    def add(self, module: nn.Module, name: str, make: Callable[..., Parameters] | None = None, **more: Stored) -> None:
        """Note a linear layer or a convolution, whose parameters `make` returns; by default, those of the file."""
        axis = int(isinstance(module, nn.ConvTranspose2d))
        weight = self.weight(name, tuple(module.get_parameter("weight").shape), axis=axis)
        bias = None if module.bias is None else f"{name}.bias"
        self.file.layer(module, make or (transposed if axis else dense), **weight, bias=bias, **more)

    def add_attention(self, attention: Attention, template: str, last: str, gamma: str) -> None:
        """Note a self-attention layer.

        Args:
            attention: The layer.
            template: The names of its convolutions; {} stands for theta, phi, g and `last`.
            last: The last convolution's name there.
            gamma: The key of the factor of what is attended to.
        """
        for part in ("theta", "phi", "g"):
            self.add(getattr(attention, part), template.format(part))
        self.add(attention.o, template.format(last), attended, gamma=(gamma, 1))


def dense(**tensors: Tensor) -> Parameters:
    """Return the parameters of a linear layer or a convolution."""
    bias = {"bias": tensors["bias"]} if "bias" in tensors else {}
    return {"weight": normalized(tensors, "weight"), **bias}


def transposed(**tensors: Tensor) -> Parameters:
    """Return the parameters of a transposed convolution, whose weight is [in, out, k, k]."""
    weight = dense(**{**tensors, "weight": tensors["weight"].transpose(0, 1)})["weight"]
    return {"weight": weight.transpose(0, 1), "bias": tensors["bias"]}


def attended(gamma: Tensor, **tensors: Tensor) -> Parameters:
    """Return the parameters of attention's last convolution, multiplied by its factor gamma."""
    return {"weight": dense(**tensors)["weight"] * gamma.reshape(())}


def normalized(tensors: Mapping[str, Tensor], name: str) -> Tensor:
    """Divide a weight by its spectral norm: uᵀ·W·v, with u and v as stored, or estimated from a left vector alone.

    Without them, it is returned as it is.

    Raises:
        CheckpointError: If the norm is 0.
    """
    weight = tensors[name]
    if f"{name}_left" in tensors:
        return spectrally_normalized(weight, tensors[f"{name}_left"], EPSILON)
    if f"{name}_u" not in tensors:
        return weight
    sigma = tensors[f"{name}_u"].double() @ weight.flatten(1).double() @ tensors[f"{name}_v"].double()
    if sigma == 0:
        raise CheckpointError(f"a weight of shape {list(weight.shape)} has a spectral norm of 0")
    return (weight / sigma).float()


def spectrally_normalized(weight: Tensor, u: Tensor, epsilon: float) -> Tensor:
    """Divide a weight by its largest singular value, as estimated from a stored left vector [1, out].

    Raises:
        CheckpointError: If the weight is all zeros.
    """
    W = weight.flatten(1).double()  # [out, in·kh·kw]
    v = F.normalize(u.double() @ W, dim=1, eps=epsilon)  # [1, in·kh·kw]
    Wv = v @ W.T  # [1, out]
    sigma = (F.normalize(Wv, dim=1, eps=epsilon) * Wv).sum()
    if sigma <= 0:
        raise CheckpointError(f"a weight of shape {list(weight.shape)} has no spectral norm: its values are all zero")
    return (weight / sigma).float()
