"""StyleGAN of genforce: the SeFa repository's and its model zoo's."""

from collections.abc import Mapping
from functools import partial

from torch import Tensor

from sefa.checkpoints.assumptions import mapping_rate
from sefa.checkpoints.checkpoint import Checkpoint, Format, LoadOptions
from sefa.checkpoints.parts import stylegan_layers
from sefa.checkpoints.parts.assembly import Weights, check_keys, shape_of, source
from sefa.checkpoints.parts.growing import Growth, channels_of, equalized, highest, up_kernel
from sefa.checkpoints.parts.stylegan_layers import MAPPING_LR, Layer, MappingParts, dense_weight
from sefa.generators.stylegan import StyleGAN

CONST = "synthesis.layer0.const"
CENTER = "truncation.w_avg"
LABEL = "mapping.label_weight"
LOD = "synthesis.lod"


def recognises(checkpoint: Checkpoint) -> bool:
    """Its own name for the learned constant, or, should that be missing, for the noise's weights."""
    tensors = checkpoint.stored
    return CONST in tensors or highest(tensors, r"synthesis\.layer(\d{1,3})\.apply_noise\.weight") >= 0


def load(checkpoint: Checkpoint, options: LoadOptions) -> StyleGAN:
    """Build the generator."""
    tensors = checkpoint.tensors
    levels = 1 + max(
        highest(tensors, r"synthesis\.layer(\d{1,3})\..*") // 2, highest(tensors, r"synthesis\.output(\d{1,3})\..*")
    )
    dense = [f"mapping.dense{k}" for k in range(1 + max(0, highest(tensors, r"mapping\.dense(\d{1,3})\..*")))]
    layers = [f"synthesis.layer{k}" for k in range(2 * levels)]
    outputs = [f"synthesis.output{level}" for level in range(levels)]
    keys = [LOD, *(key for k, name in enumerate(layers) for key in _layer_keys(name, k))]
    keys += [f"{name}.{entry}" for name in (*dense, *outputs) for entry in ("weight", "bias")]
    check_keys(tensors, keys, (CENTER, LABEL))
    _, _, *base = shape_of(tensors, CONST, 4)
    fused_from = stylegan_layers.fused_from(options.assumptions)
    return stylegan_layers.build(
        tensors,
        mapping=_mapping(tensors, dense, mapping_rate(options.assumptions, MAPPING_LR)),
        center=source(CENTER) if CENTER in tensors else None,
        layers=[_layer(name, k, min(base) << k // 2 >= fused_from) for k, name in enumerate(layers)],
        widths=channels_of(tensors, (f"{name}.bias" for name in layers)),
        base=(base[0], base[1]),
        images=[
            Weights(source(f"{name}.weight", convert=partial(equalized, gain=1)), source(f"{name}.bias"))
            for name in outputs
        ],
        channels=channels_of(tensors, [f"{outputs[0]}.bias"])[0],
        growth=Growth.at(tensors[LOD], levels),
        noise=options.noise,
        unused=keys,
    )


def _layer_keys(name: str, k: int) -> list[str]:
    entries = ["bias", "apply_noise.weight", "apply_noise.noise", "style.weight", "style.bias"]
    return [f"{name}.{entry}" for entry in [*entries, "weight" if k else "const", *(["blur.kernel"] if _up(k) else [])]]


def _up(k: int) -> bool:
    return k > 0 and k % 2 == 0


def _layer(name: str, k: int, fused: bool) -> Layer:
    conv = source(f"{name}.weight", convert=equalized) if k else source(CONST)
    if _up(k):
        conv = source(f"{name}.weight", convert=lambda weight: up_kernel(equalized(weight), fused))
    return Layer(
        conv=conv,
        bias=source(f"{name}.bias"),
        noise_weight=source(f"{name}.apply_noise.weight"),
        noise=source(f"{name}.apply_noise.noise"),
        style=Weights(source(f"{name}.style.weight", convert=partial(equalized, gain=1)), source(f"{name}.style.bias")),
        blur=source(f"{name}.blur.kernel") if _up(k) else None,
    )


def _mapping(tensors: Mapping[str, Tensor], names: list[str], rate: float) -> MappingParts:
    shapes = [shape_of(tensors, f"{name}.weight", 2) for name in names]
    return MappingParts(
        shapes=[(inputs, outputs) for outputs, inputs in shapes],
        layers=[
            Weights(
                source(f"{name}.weight", convert=partial(dense_weight, learning_rate=rate)),
                source(f"{name}.bias", convert=lambda bias: bias * rate),
            )
            for name in names
        ],
        embedding=(source(LABEL), _pair(shape_of(tensors, LABEL, 2))) if LABEL in tensors else None,
    )


def _pair(shape: tuple[int, ...]) -> tuple[int, int]:
    return shape[0], shape[1]


FORMAT = Format("genforce StyleGAN", recognises, load)
