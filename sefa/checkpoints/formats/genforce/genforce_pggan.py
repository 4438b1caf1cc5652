"""PGGAN of genforce: the SeFa repository's and its model zoo's."""

from collections.abc import Mapping, Sequence
from functools import partial

from torch import Tensor

from sefa.checkpoints.assumptions import Assumptions, one_of, positive
from sefa.checkpoints.checkpoint import Checkpoint, Format, LoadOptions
from sefa.checkpoints.parts import pggan_layers
from sefa.checkpoints.parts.assembly import Weights, check_keys, shape_of, source
from sefa.checkpoints.parts.growing import Growth, channels_of, equalized, highest, split_latent, up_kernel
from sefa.checkpoints.sizes import one_hot_codes
from sefa.generators.pggan import PGGAN


def recognises(checkpoint: Checkpoint) -> bool:
    """Numbered layers, the first of which is a convolution of z as an image, and numbered outputs."""
    tensors = checkpoint.stored
    first = tensors.get("layer0.weight")
    return isinstance(first, Tensor) and first.ndim == 4 and highest(tensors, r"output(\d{1,3})\.\w+") >= 0


def load(checkpoint: Checkpoint, options: LoadOptions) -> PGGAN:
    """Build the generator."""
    tensors = checkpoint.tensors
    levels = 1 + max(highest(tensors, r"layer(\d{1,3})\.\w+") // 2, highest(tensors, r"output(\d{1,3})\.\w+"))
    layers = [f"layer{k}" for k in range(2 * levels)]
    outputs = [f"output{level}" for level in range(levels)]
    keys = ["lod", *(f"{name}.{entry}" for name in (*layers, *outputs) for entry in ("weight", "bias"))]
    check_keys(tensors, keys)
    _, inputs, height, width = shape_of(tensors, "layer0.weight", 4)
    widths = channels_of(tensors, (f"{name}.bias" for name in layers))
    fused = _fused(tensors, widths, options.assumptions)
    options.assumptions.note(
        f"a one-hot label of {options.num_classes} classes behind z (as told)"
        if options.num_classes
        else "no label behind z"
    )
    slope = options.assumptions.take("slope", 0.2, positive)
    output = options.assumptions.take("output", "none", partial(one_of, names=("none", "tanh")))
    options.assumptions.note(f"leaky ReLU {slope:g}", "slope")
    options.assumptions.note("tanh at the end" if output == "tanh" else "nothing behind the last layer", "output")
    up_weight = partial(_up_weight, fused=fused)
    return pggan_layers.build(
        tensors,
        layers=[
            Weights(
                source("layer0.weight", convert=_dense_weight),
                source("layer0.bias", convert=lambda bias: bias.repeat_interleave(height * width)),
            ),
            *(
                Weights(
                    source(f"{name}.weight", convert=equalized if k % 2 else up_weight),
                    source(f"{name}.bias"),
                )
                for k, name in enumerate(layers)
                if k
            ),
        ],
        widths=widths,
        images=[
            Weights(source(f"{name}.weight", convert=partial(equalized, gain=1)), source(f"{name}.bias"))
            for name in outputs
        ],
        channels=channels_of(tensors, ["output0.bias"])[0],
        growth=Growth.at(tensors["lod"], levels),
        z_dim=split_latent(inputs, options.num_classes),
        class_codes=one_hot_codes(options.num_classes) if options.num_classes else None,
        base=(height, width),
        normalize_z=True,
        slope=slope,
        tanh=output == "tanh",
        unused=keys,
    )


def _fused(tensors: Mapping[str, Tensor], widths: Sequence[int], assumptions: Assumptions) -> bool:
    """Whether the original fuses doubling and convolution: it then stores [in, out, 3, 3]."""
    ups = range(2, len(widths), 2)
    telling = [k for k in ups if widths[k - 1] != widths[k]]
    if telling or not ups:
        return any(shape_of(tensors, f"layer{k}.weight", 4)[:2] == (widths[k - 1], widths[k]) for k in telling)
    fused = assumptions.take("fused", "none", partial(one_of, names=("none", "all"))) == "all"
    assumptions.note("upsampling fused" if fused else "no upsampling fused", "fused")
    return fused


def _dense_weight(weight: Tensor) -> Tensor:
    """[C, D, h, w] to [C·h·w, D]: on a 1x1 image, padded by kernel - 1, a convolution is its kernel turned around."""
    return equalized(weight).flip(2, 3).permute(0, 2, 3, 1).flatten(0, 2)


def _up_weight(weight: Tensor, fused: bool) -> Tensor:
    return up_kernel(equalized(weight.transpose(0, 1) if fused else weight), fused)


FORMAT = Format("genforce PGGAN", recognises, load)
