"""StyleGAN2 and StyleGAN3 from Hammer, genforce's trainer (bytedance/Hammer).

Both are NVlabs' PyTorch code under other names: w_avg; mapping.dense0, ... and mapping.embedding; in StyleGAN2,
synthesis.layer0, ..., output0, ... and residual1, ...; in StyleGAN3, synthesis.early_layer and layer0, ... StyleGAN3's
names do not have the sizes of images: the stored grid of its sinusoids has the first, and filters say the others.
"""

import re
from collections.abc import Callable, Mapping

from torch import Tensor

from sefa.checkpoints.checkpoint import Checkpoint, Format, LoadOptions
from sefa.checkpoints.formats.genforce.hammer_options import Facts, facts
from sefa.checkpoints.formats.nvidia import nvidia_stylegan2_state_dict, nvidia_stylegan3_state_dict
from sefa.checkpoints.formats.nvidia.nvidia_stylegan3 import FILTERS
from sefa.errors import CheckpointError
from sefa.generators import StyleGAN2
from sefa.generators.stylegan3 import StyleGAN3

CONST, GRID = "synthesis.early_layer.const", "synthesis.early_layer.grid"
UPSAMPLE = "synthesis.filter"
STYLEGAN2_FACTS: Facts = {"mapping_lr": ("mapping_lr_mul", 0.01), "conv_clamp": ("conv_clamp", None)}
STYLEGAN3_FACTS: Facts = {
    "mapping_lr": ("mapping_lr_mul", 0.01),
    "conv_clamp": ("conv_clamp", 256),
    "output_scale": ("output_scale", 0.25),
    "first_cutoff": ("first_cutoff", 2),
    "lrelu_upsampling": ("act_upsampling", 2),
}
GAIN = 1.0
MAX_RATE = 2**14  # pixels, beyond any real generator's
LAYER = re.compile(r"synthesis\.(layer|output|residual)(\d{1,3})\.(.+)")
NAMES = {
    "w_avg": "mapping.w_avg",
    r"mapping\.dense(\d+)\.(\w+)": r"mapping.fc\1.\2",
    r"mapping\.embedding\.(\w+)": r"mapping.embed.\1",
    r"synthesis\.early_layer\.const": "synthesis.b4.const",
    r"synthesis\.early_layer\.frequency": "synthesis.input.freqs",
    r"synthesis\.early_layer\.phase": "synthesis.input.phases",
    r"synthesis\.early_layer\.(weight|transform|affine\.\w+)": r"synthesis.input.\1",
}
# Of a layer, the rest of its name.
RESTS = {"noise": "noise_const", "filter": "resample_filter", "conv.weight": "weight", "filter.bias": "bias"}
RESTS |= {f"{conv}style.{name}": f"affine.{name}" for conv in ("", "conv.") for name in ("weight", "bias")}
RESTS |= {f"filter.{name}": name for name in FILTERS}


def recognises_stylegan2(checkpoint: Checkpoint) -> bool:
    """Recognise the constant, and a filter that is a tensor: in genforce's older code it is a module."""
    return CONST in checkpoint.stored and "synthesis.layer1.filter" in checkpoint.stored


def recognises_stylegan3(checkpoint: Checkpoint) -> bool:
    """Recognise the sinusoids, and the first layer's convolution."""
    keys = ("synthesis.early_layer.frequency", "synthesis.layer0.conv.weight")
    return all(key in checkpoint.stored for key in keys)


def load_stylegan2(checkpoint: Checkpoint, options: LoadOptions) -> StyleGAN2:
    """Build the generator."""
    assumptions = facts(checkpoint, options, STYLEGAN2_FACTS, GAIN)
    renamed = _renamed(checkpoint.tensors, _stylegan2_layer)
    upsample = renamed.pop(UPSAMPLE, None)
    if upsample is not None:
        rgbs = [key for key in renamed if key.endswith(".torgb.weight")]
        renamed |= {key.replace("torgb.weight", "resample_filter"): upsample for key in rgbs}
    for key, tensor in renamed.items():
        if tensor.ndim == 4 and key.endswith(("b4.const", ".noise_const")):  # [1, C, h, w], [1, 1, h, w]
            renamed[key] = tensor.flatten(0, 1 if key.endswith(".const") else 2)
    try:
        return nvidia_stylegan2_state_dict.read(renamed, assumptions, options)
    except CheckpointError as error:
        raise _in_other_names(error) from error.__cause__


def load_stylegan3(checkpoint: Checkpoint, options: LoadOptions) -> StyleGAN3:
    """Build the generator."""
    assumptions = facts(checkpoint, options, STYLEGAN3_FACTS, GAIN)
    tensors = checkpoint.tensors
    names = _stylegan3_layers(tensors)
    renamed = _renamed(
        {key: tensor for key, tensor in tensors.items() if key != GRID}, lambda kind, index: names.get((kind, index))
    )
    try:
        return nvidia_stylegan3_state_dict.read(renamed, assumptions)
    except CheckpointError as error:
        raise _in_other_names(error) from error.__cause__


def _renamed(tensors: Mapping[str, Tensor], layer_name: Callable[[str, int], str | None]) -> dict[str, Tensor]:
    """Return tensors under NVlabs' names, where there are such."""
    renamed: dict[str, Tensor] = {}
    for key, tensor in tensors.items():
        layer = LAYER.fullmatch(key)
        name = layer_name(layer[1], int(layer[2])) if layer else None
        if layer and name:
            renamed[f"synthesis.{name}.{RESTS.get(layer[3], layer[3])}"] = tensor
        else:
            match = next((pattern for pattern in NAMES if re.fullmatch(pattern, key)), None)
            renamed[re.sub(match, NAMES[match], key) if match else key] = tensor
    if len(renamed) < len(tensors):
        raise CheckpointError("the same weight is there twice, by Hammer's and by NVlabs' name")
    return renamed


def _stylegan2_layer(kind: str, index: int) -> str:
    block, name = (index, "torgb" if kind == "output" else "skip")
    if kind == "layer":
        block, name = (index + 1) // 2, "conv0" if index % 2 else "conv1"
    return f"b{4 << block}.{name}"


def _stylegan3_layers(tensors: Mapping[str, Tensor]) -> dict[tuple[str, int], str]:
    """Return the layers' names, which end in the size and the channels of their images.

    Raises:
        CheckpointError: If the grid is missing or is none.
    """
    grid = tensors.get(GRID)
    if grid is None or grid.ndim != 4 or not float(grid.max()) > 0:
        raise CheckpointError(f"{GRID} is missing or no grid of positions, so the sizes of images are unknown")
    size = grid.shape[2]
    # Pixels are 1/rate apart, and their middle is 0.
    rate = first = round((size - 1) / (2 * float(grid.max())))
    sizes: list[int] = []
    channels: list[int] = []
    while (weight := tensors.get(f"synthesis.layer{len(sizes)}.conv.weight")) is not None:
        taps = [tensors.get(f"synthesis.layer{len(sizes)}.filter.{name}") for name in FILTERS]
        up, down = (1 if one is None or not one.ndim else len(one) for one in taps)
        rate = rate * up // down
        if not 0 < rate < MAX_RATE:
            raise CheckpointError(f"filters of {up} and {down} taps fit no sizes at synthesis.layer{len(sizes)}")
        sizes.append(rate + size - first)
        channels.append(len(weight) if weight.ndim else 1)
    sizes[-2:] = [rate] * len(sizes[-2:])  # The last two images have no margin.
    return {("layer", k): f"L{k}_{one}_{count}" for k, (one, count) in enumerate(zip(sizes, channels, strict=True))}


def _in_other_names(error: CheckpointError) -> CheckpointError:
    return CheckpointError(f"in the names that NVlabs' code has for the same layers, {error}")


STYLEGAN2 = Format("Hammer StyleGAN2", recognises_stylegan2, load_stylegan2)
STYLEGAN3 = Format("Hammer StyleGAN3", recognises_stylegan3, load_stylegan3)
