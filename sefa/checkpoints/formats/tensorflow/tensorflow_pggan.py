"""PGGAN as the original TensorFlow code pickles it."""

from torch import Tensor

from sefa.checkpoints.checkpoint import Checkpoint, Format, LoadOptions, clean
from sefa.checkpoints.parts import pggan_layers
from sefa.checkpoints.parts.assembly import Source, Weights, check_keys, shape_of, source
from sefa.checkpoints.parts.growing import SQRT2, Growth, channels_of, equalized, highest, split_latent, up_kernel
from sefa.checkpoints.parts.tensorflow_variables import check_kwargs, integer, levels_of
from sefa.checkpoints.sizes import one_hot_codes
from sefa.errors import CheckpointError
from sefa.generators.pggan import PGGAN

DENSE = "4x4/Dense"
# The original's defaults, as far as they decide what the variables mean.
KWARGS = {
    "normalize_latents": (True,),
    "use_wscale": (True,),
    "use_pixelnorm": (True,),
    "pixelnorm_epsilon": (1e-8,),
    "use_leakyrelu": (True,),
    "tanh_at_end": (None,),
}


def recognises(checkpoint: Checkpoint) -> bool:
    """A dense layer of z makes the 4x4 level."""
    network = checkpoint.tensorflow
    return network is not None and any(name.startswith(f"{DENSE}/") for name in network.tensors())


def load(checkpoint: Checkpoint, options: LoadOptions) -> PGGAN:
    """Build the generator."""
    network = checkpoint.tensorflow
    assert network is not None
    tensors = clean(network.tensors())
    kwargs = network.static_kwargs
    check_kwargs(kwargs, KWARGS)
    levels = max(levels_of(tensors), 1 + highest(tensors, r"ToRGB_lod(\d{1,3})/\w+"))
    layers = [DENSE, "4x4/Conv"]
    for level in range(1, levels):
        size = 4 << level
        fused = any(name.startswith(f"{size}x{size}/Conv0_up/") for name in tensors)
        layers += [f"{size}x{size}/{'Conv0_up' if fused else 'Conv0'}", f"{size}x{size}/Conv1"]
    images = [f"ToRGB_lod{levels - 1 - level}" for level in range(levels)]
    keys = ["lod", *(f"{name}/{entry}" for name in (*layers, *images) for entry in ("weight", "bias"))]
    check_keys(tensors, keys)
    inputs = shape_of(tensors, f"{DENSE}/weight", 2)[0]
    label_size = integer(kwargs, "label_size", 0)
    if label_size >= inputs:
        raise CheckpointError(
            f"its network was built with label_size = {label_size}, but {DENSE} takes {inputs} values"
        )
    num_classes = label_size or options.num_classes or 0
    if "label_size" not in kwargs:
        options.assumptions.note(
            f"a one-hot label of {num_classes} classes behind z (as told)" if num_classes else "no label behind z"
        )
    options.assumptions.note("the original's defaults where its options are silent: leaky ReLU 0.2, no tanh")
    return pggan_layers.build(
        tensors,
        layers=[
            Weights(source(f"{DENSE}/weight", convert=_dense_weight), source(f"{DENSE}/bias", convert=_dense_bias)),
            *(Weights(_conv_weight(name), source(f"{name}/bias")) for name in layers[1:]),
        ],
        widths=channels_of(tensors, (f"{name}/bias" for name in layers)),
        images=[
            Weights(
                source(f"{name}/weight", convert=lambda weight: equalized(_conv(weight), 1)), source(f"{name}/bias")
            )
            for name in images
        ],
        channels=channels_of(tensors, ["ToRGB_lod0/bias"])[0],
        growth=Growth.at(tensors["lod"], levels),
        z_dim=split_latent(inputs, num_classes),
        class_codes=one_hot_codes(num_classes) if num_classes else None,
        unused=keys,
    )


def _dense_weight(weight: Tensor) -> Tensor:
    """[D, C·16] to [C·16, D], with the fan-in of the 4x4 convolution that it stands for."""
    return equalized(weight.T, SQRT2 / 4)


def _dense_bias(bias: Tensor) -> Tensor:
    return bias.repeat_interleave(16)


def _conv(weight: Tensor) -> Tensor:
    """[k, k, in, out] to [out, in, k, k]."""
    return weight.permute(3, 2, 0, 1)


def _conv_weight(name: str) -> Source:
    if name.endswith("/Conv0_up"):  # [k, k, out, in]
        return source(f"{name}/weight", convert=lambda weight: up_kernel(equalized(weight.permute(2, 3, 0, 1)), True))
    if name.endswith("/Conv0"):
        return source(f"{name}/weight", convert=lambda weight: up_kernel(equalized(_conv(weight)), False))
    return source(f"{name}/weight", convert=lambda weight: equalized(_conv(weight)))


FORMAT = Format("TensorFlow PGGAN", recognises, load)
