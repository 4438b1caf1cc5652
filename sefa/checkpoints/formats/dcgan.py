"""State dicts of DCGANs: one nn.Sequential, nested or not, as PyTorch's example and its many descendants write them.

Shapes give kernels, channels and normalisation, and gaps in the numbering show where layers without weights stand. No
tensor shows what those layers are, or the strides and paddings: if a guess is likely to be right, it is assumed and
reported; otherwise the file is refused until its owner says.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import NoReturn, TypeVar

from torch import Tensor, nn

from sefa.checkpoints.assumptions import Assumptions, one_of, positive
from sefa.checkpoints.checkpoint import Checkpoint, Format, LoadOptions
from sefa.checkpoints.parts.activations import ACTIVATIONS, OUTPUTS, activation
from sefa.checkpoints.parts.sequential_layers import (
    OWN_CODE,
    Between,
    SequentialLayer,
    begins_with_convolution,
    layers_between,
    layers_of,
    norm_after,
    order_of,
)
from sefa.errors import ArgumentError, CheckpointError
from sefa.generators import DCGAN

T = TypeVar("T")

IMAGE_CHANNELS = 4  # at most, in the images that a discriminator reads
MAX_SIDE = 2**14  # pixels
EPSILON = 1e-5
# Kernel sizes that are hardly ever used with a stride other than 2 in a transposed convolution.
DOUBLING_KERNELS = (2, 4)

UPSAMPLINGS = ("nearest", "bilinear", "none")
KINDS = ("transposed", "plain")


def recognises(checkpoint: Checkpoint) -> bool:
    """Recognise one nn.Sequential that begins with a convolution."""
    return begins_with_convolution(checkpoint.stored)


def load(checkpoint: Checkpoint, options: LoadOptions) -> DCGAN:
    """Build the generator, class-conditional if the options say so."""
    for key, tensor in checkpoint.tensors.items():
        if not tensor.is_floating_point() and not key.endswith("num_batches_tracked"):
            raise CheckpointError(f"{key} is {tensor.dtype}, floating point weights were expected")
    return build(checkpoint.tensors, options.num_classes, options.assumptions)


def is_discriminator(checkpoint: Checkpoint) -> bool:
    """Return whether the convolutions form a plain chain whose first reads an image rather than a latent."""
    if not begins_with_convolution(checkpoint.stored):
        return False
    weights = [value for key, value in sorted(checkpoint.stored.items(), key=lambda item: order_of(item[0]))]
    shapes = [weight.shape for weight in weights if isinstance(weight, Tensor) and weight.ndim == 4]
    # A Conv2d's weight is [out, in, kh, kw], a ConvTranspose2d's [in, out, kh, kw].
    channels = shapes[0][1]
    opens = all(channels in shape[:2] for shape in shapes[1:2])
    return not opens and channels <= IMAGE_CHANNELS and all(one[0] == next_[1] for one, next_ in pairwise(shapes))


def build(
    tensors: Mapping[str, Tensor], num_classes: int | None = None, assumptions: Assumptions | None = None
) -> DCGAN:
    """Build a generator from shapes and numbering, and from assumptions about the rest.

    Args:
        tensors: The generator's state dict.
        num_classes: Number of classes, if a one-hot label follows z: no shape shows it.
        assumptions: Facts from the owner; everything that is assumed is noted there.

    Raises:
        CheckpointError: If the keys are not a DCGAN's, the shapes do not fit together, or too much is left open.
        ArgumentError: If the owner's facts do not fit the file.
    """
    assumptions = assumptions or Assumptions()
    layers = layers_of(tensors)
    convs = [layer for layer in layers if layer.is_conv]
    kinds = _kinds(convs, assumptions)
    steps = _steps(convs, kinds, assumptions)
    betweens = [
        layers_between(layers, convs[index], convs[index + 1], kinds[index + 1]) for index in range(len(convs) - 1)
    ]
    activations = _activations(len(convs), any(between.has_activation for between in betweens), assumptions)
    upsampling = _upsampling(convs, kinds, betweens, assumptions)
    epsilon = assumptions.take("bn_eps", EPSILON, positive)
    if len(convs) < len(layers):
        assumptions.note(f"batch norms' eps {epsilon:g}", "bn_eps")
    assumptions.note("z as a 1x1 image" + (", reshaped before the first layer" if any(convs[0].path) else ""))
    modules: list[nn.Module] = []
    size = (1, 1)
    for index, (conv, kind, step) in enumerate(zip(convs, kinds, steps, strict=True)):
        if index and betweens[index - 1].has_upsampling and upsampling is not None:
            modules.append(nn.Upsample(scale_factor=2, mode=upsampling))
            size = (2 * size[0], 2 * size[1])
        modules.append(_conv(conv, kind, step))
        size = _size(conv, kind, step, size)
        outputs = _channels(conv, kind)[1]
        last = index == len(convs) - 1
        norm = norm_after(layers, conv) if last else betweens[index].norm
        pair: list[nn.Module] = [_batch_norm(norm, outputs, epsilon)] if norm else []
        if not last and betweens[index].has_activation:
            pair.insert(0 if betweens[index].is_before_norm else len(pair), activations[index]())
        modules += pair
    opened = _size(convs[0], kinds[0], steps[0], (1, 1))
    if len(convs) > 1 and size == opened and not any(map(assumptions.is_told, ("stride", "upsample"))):
        raise CheckpointError(
            f"nothing in the numbering of its layers enlarges {size[1]}x{size[0]} pixels: if that is so, say "
            f"--assume upsample=none, or {OWN_CODE}"
        )
    output = assumptions.take("output", "tanh", partial(one_of, names=OUTPUTS))
    assumptions.note({"none": "nothing after the last layer"}.get(output, f"{output} at the end"), "output")
    modules.append(ACTIVATIONS[output]())
    inputs = convs[0].weight.shape[0]
    if not 0 <= (num_classes or 0) < inputs:
        raise ArgumentError(f"num_classes must be in 0..{inputs - 1}, its input's size less 1, got {num_classes}")
    assumptions.note(
        "no label after z" if not num_classes else f"a one-hot label of {num_classes} classes after z (as told)"
    )
    generator = DCGAN(modules, size, outputs, num_classes or 0, OUTPUTS[output])
    return generator.eval().requires_grad_(False)


@dataclass(frozen=True)
class _Step:
    """A convolution's stride and paddings for each axis, named as in torch."""

    stride: tuple[int, int]
    padding: tuple[int, int]
    output_padding: tuple[int, int]


def _kinds(convs: Sequence[SequentialLayer], assumptions: Assumptions) -> list[str]:
    """Return each convolution's kind, `transposed` or `plain`."""
    settled: list[str | None] = ["transposed"]
    channels = convs[0].weight.shape[1]
    for conv in convs[1:]:
        transposed, plain = conv.weight.shape[0] == channels, conv.weight.shape[1] == channels
        if not transposed and not plain:
            _refuse_chain(convs)
        settled.append(None if transposed and plain else "transposed" if transposed else "plain")
        channels = conv.weight.shape[0] if plain else conv.weight.shape[1]
    told = assumptions.take("convs", None, lambda text: _list(text, len(convs), partial(one_of, names=KINDS)))
    if not told and len(set(convs[0].weight.shape[:2])) == 1 and all(side % 2 for side in convs[0].kernel):
        _kind_of_square(convs[0], set())  # Refuses it: it may be plain, and read an enlarged z.
    if told and told[0] != "transposed":
        raise ArgumentError(f"convs={','.join(told)}: the first must be transposed, of z as a 1x1 image")
    if told:
        wrong = [convs[i].name for i, kind in enumerate(settled) if kind not in (None, told[i])]
        if wrong:
            raise ArgumentError(f"convs={','.join(told)}: layer {wrong[0]}'s shape is that of the other kind")
        assumptions.note(f"convolutions {', '.join(told)}", "convs")
        return told
    kinds = []
    guessed = []
    for conv, kind in zip(convs, settled, strict=True):
        if kind is None:
            alike = {other for one, other in zip(convs[1:], settled[1:], strict=True) if one.kernel == conv.kernel}
            kind = _kind_of_square(conv, alike - {None})
            guessed.append(f"layer {conv.name} {kind}")
        kinds.append(kind)
    if guessed:
        assumptions.note(f"of convolutions with as many inputs as outputs, {', '.join(guessed)}")
    return kinds


def _kind_of_square(conv: SequentialLayer, alike: set[str | None]) -> str:
    """Return the kind of a convolution with as many inputs as outputs, given the kinds with the same kernel size."""
    if len(alike) == 1:
        return str(alike.pop())
    if not alike and all(side % 2 == 0 for side in conv.kernel):
        return "transposed"
    raise CheckpointError(
        f"layer {conv.name}, {conv.kernel_text} with as many inputs as outputs, may be a Conv2d or a ConvTranspose2d, "
        f"and no tensor tells: say so, for each convolution, with --assume convs=transposed,plain,... or {OWN_CODE}"
    )


def _refuse_chain(convs: Sequence[SequentialLayer]) -> NoReturn:
    shapes = [list(conv.weight.shape) for conv in convs]
    if all(one[0] == next_[1] for one, next_ in pairwise(shapes)):
        raise CheckpointError(
            f"its convolutions are plain from the first on, of {shapes[0][1]} channels: how a latent becomes an image "
            f"in front of them no tensor tells; {OWN_CODE}"
        )
    raise CheckpointError(f"its convolutions do not fit together: weights of shapes {shapes}; {OWN_CODE}")


def _steps(convs: Sequence[SequentialLayer], kinds: Sequence[str], assumptions: Assumptions) -> list[_Step]:
    """Return every convolution's stride and paddings: as the owner gave them, or the usual ones for its kernel."""
    count = len(convs)
    integers = partial(_list, count=count, parse=_integer)
    strides = assumptions.take("stride", None, partial(_list, count=count, parse=partial(_integer, least=1)))
    paddings, more = (assumptions.take(name, None, integers) for name in ("padding", "output_padding"))
    steps = []
    for index, (conv, kind) in enumerate(zip(convs, kinds, strict=True)):
        stride = strides[index] if strides else _usual_stride(convs, kinds, index)
        axes = [_axis(conv, kind, index, stride, axis, paddings, more) for axis in (0, 1)]
        steps.append(_Step((stride, stride), (axes[0][0], axes[1][0]), (axes[0][1], axes[1][1])))
    names = ("stride", "padding", "output_padding")
    is_usual = set(kinds) == {"transposed"} and all(step.stride == (2, 2) for step in steps[1:])
    if is_usual and not any(map(assumptions.is_told, names)):
        if count > 1:
            assumptions.note("stride 2 everywhere")
        return steps
    described = [_numbers([getattr(step, name) for step in steps]) for name in names]
    assumptions.note(f"stride {described[0]}, padding {described[1]}, output padding {described[2]}", *names)
    return steps


def _usual_stride(convs: Sequence[SequentialLayer], kinds: Sequence[str], index: int) -> int:
    kernel = convs[index].kernel
    if index == 0 or max(kernel) == 1:
        return 1
    if kinds[index] == "plain" and all(side % 2 for side in kernel):
        return 1
    if kinds[index] == "transposed" and all(side in DOUBLING_KERNELS for side in kernel):
        return 2
    last = len(convs) - 1
    example = ["1" if place in (0, last) and max(conv.kernel) != 4 else "2" for place, conv in enumerate(convs)]
    example[0] = "1"
    raise CheckpointError(
        f"layer {convs[index].name}'s kernel, {convs[index].kernel_text}, is used with several strides and paddings, "
        f"and no tensor tells with which: say so, for each convolution, with --assume stride={','.join(example)} (and "
        f"padding=, output_padding=), or {OWN_CODE}"
    )


def _axis(
    conv: SequentialLayer,
    kind: str,
    index: int,
    stride: int,
    axis: int,
    paddings: Sequence[int] | None,
    more: Sequence[int] | None,
) -> tuple[int, int]:
    """Return padding and output padding along an axis: the owner's, or those that multiply the size by the stride."""
    kernel = conv.kernel[axis]
    usual = 0 if index == 0 else -(-(kernel - stride) // 2) if kind == "transposed" else (kernel - 1) // 2
    padding = max(usual, 0) if paddings is None else paddings[index]
    if kind == "plain" or index == 0:
        output_padding = 0
    elif more is not None:
        output_padding = more[index]
    else:
        output_padding = 2 * padding + stride - kernel if paddings is None else 0
    if not 0 <= output_padding < max(stride, 1) and output_padding:
        raise CheckpointError(
            f"layer {conv.name}'s kernel, {conv.kernel_text}, cannot multiply the size by its stride {stride}: say "
            f"--assume padding=..., or {OWN_CODE}"
        )
    return padding, output_padding


def _activations(count: int, has_any: bool, assumptions: Assumptions) -> list[Callable[[], nn.Module]]:
    """Return a function for each convolution but the last that makes the activation after it."""

    def parse(text: str) -> list[str]:
        names = _list(text, max(count - 1, 1), str)
        for name in names:
            activation(name)
        return names

    names = assumptions.take("activation", ["relu"] * max(count - 1, 1), parse)
    if has_any:
        named = dict.fromkeys(names)
        words = {"relu": "ReLU"}
        assumptions.note(f"{', '.join(words.get(name, name) for name in named)} between", "activation")
    return [partial(activation, name) for name in names]


def _upsampling(
    convs: Sequence[SequentialLayer], kinds: Sequence[str], betweens: Sequence[Between], assumptions: Assumptions
) -> str | None:
    """Return the mode by which images are enlarged before plain convolutions; None if they are not."""
    mode = assumptions.take("upsample", "nearest", partial(one_of, names=UPSAMPLINGS))
    before = [conv.name for conv, between in zip(convs[1:], betweens, strict=True) if between.has_upsampling]
    if before:
        words = "no upsampling" if mode == "none" else f"{mode} upsampling x2"
        assumptions.note(f"{words} before layers {', '.join(before)}", "upsample")
    unenlarged = [
        conv.name
        for conv, kind, between in zip(convs[1:], kinds[1:], betweens, strict=True)
        if kind == "plain" and between.has_activation and not between.has_upsampling
    ]
    if unenlarged:
        assumptions.note(f"no upsampling before layers {', '.join(unenlarged)}")
    idle = [
        conv.name
        for conv, between in zip(convs[1:], betweens, strict=True)
        if between.has_dropout and not between.has_upsampling
    ]
    if idle:
        assumptions.note(f"dropout, which has no effect, before layers {', '.join(idle)}")
    return None if mode == "none" else mode


def _channels(conv: SequentialLayer, kind: str) -> tuple[int, int]:
    """Return a convolution's numbers of input and output channels."""
    one, other = conv.weight.shape[:2]
    return (one, other) if kind == "transposed" else (other, one)


def _conv(conv: SequentialLayer, kind: str, step: _Step) -> nn.Module:
    inputs, outputs = _channels(conv, kind)
    bias = conv.entry.get("bias")
    if bias is not None and bias.shape != (outputs,):
        raise CheckpointError(f"a convolution of {outputs} channels has a bias of shape {list(bias.shape)}")
    module: nn.Conv2d | nn.ConvTranspose2d
    if kind == "plain":
        module = nn.Conv2d(inputs, outputs, conv.kernel, step.stride, step.padding, bias=bias is not None)
    else:
        module = nn.ConvTranspose2d(
            inputs, outputs, conv.kernel, step.stride, step.padding, step.output_padding, bias=bias is not None
        )
    module.load_state_dict(dict(conv.entry))
    return module


def _size(conv: SequentialLayer, kind: str, step: _Step, size: tuple[int, int]) -> tuple[int, int]:
    """Return the height and width of a convolution's output for an image of this size."""
    sides = []
    for side, kernel, stride, padding, more in zip(
        size, conv.kernel, step.stride, step.padding, step.output_padding, strict=True
    ):
        if kind == "plain":
            sides.append((side + 2 * padding - kernel) // stride + 1)
        else:
            sides.append((side - 1) * stride - 2 * padding + kernel + more)
    if not 1 <= min(sides) <= max(sides) <= MAX_SIDE:
        raise CheckpointError(f"layer {conv.name} would give images of {sides[1]}x{sides[0]} pixels")
    return sides[0], sides[1]


def _batch_norm(layer: SequentialLayer, channels: int, epsilon: float) -> nn.BatchNorm2d:
    if any(tensor.shape != (channels,) for tensor in layer.entry.values()) or ("weight" in layer.entry) != (
        "bias" in layer.entry
    ):
        raise CheckpointError(
            f"layer {layer.name} has {layer.shapes}; a BatchNorm2d of {channels} channels was expected"
        )
    if layer.entry["running_var"].min() < 0:
        raise CheckpointError(f"layer {layer.name} has a negative running_var, which no training gives")
    norm = nn.BatchNorm2d(channels, eps=epsilon, affine="weight" in layer.entry)
    norm.load_state_dict(dict(layer.entry), strict=False)  # num_batches_tracked plays no part in inference.
    return norm


def _list(text: str, count: int, parse: Callable[[str], T]) -> list[T]:
    """Read comma-separated values: one for all, or one for each."""
    values = [parse(part.strip()) for part in text.split(",")]
    if len(values) not in (1, count):
        raise ValueError(f"one value for all, or {count} were expected")
    return values * count if len(values) == 1 else values


def _integer(text: str, least: int = 0) -> int:
    if not re.fullmatch(r"\d{1,3}", text) or int(text) < least:
        raise ValueError(f"small integers were expected{', above 0' if least else ''}")
    return int(text)


def _numbers(pairs: Sequence[tuple[int, int]]) -> str:
    return ",".join(str(a) if a == b else f"{a}x{b}" for a, b in pairs)


def _refuse_discriminator(checkpoint: Checkpoint, options: LoadOptions) -> NoReturn:
    raise CheckpointError("the generator's checkpoint is needed")


FORMAT = Format("DCGAN", recognises, load)
DISCRIMINATOR = Format("a discriminator", is_discriminator, _refuse_discriminator, is_supported=False)
