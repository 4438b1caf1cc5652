"""Make a Generator from a user's module, finding out how to call it by calling it."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from sefa.choices import ImageLayout, LabelFormat, choice_of
from sefa.custom.calls.call_text import parse_call
from sefa.custom.calls.frozen_noise import FrozenNoise, make_noise
from sefa.custom.calls.trial_calls import assumptions, find_form
from sefa.custom.custom_generator import CustomGenerator, call_module
from sefa.custom.inference_copy import copy_for_inference, fold_own_norms
from sefa.custom.probing import trial_codes
from sefa.custom.purity import State, check_pure
from sefa.custom.user_code import blamed, kind
from sefa.errors import ArgumentError
from sefa.generators.common.labels import one_hot

USUAL_RANGE, BYTE_RANGE = (-1.0, 1.0), (0.0, 255.0)
# If more than this share of the values lies beyond black and white, the range must be another one.
MAX_BEYOND = 0.5
OTHER_SEED = 1
MAX_LATENT = 2**17  # most entries of z, and most classes


def wrap(
    module: nn.Module,
    *,
    latent_dim: int,
    layers: Sequence[str],
    num_classes: int = 0,
    label_format: str = "index",
    image_range: tuple[float, float] | None = None,
    image_layout: str | None = None,
    output_key: str | int | None = None,
    call: str | None = None,
    freeze_noise: int | None = None,
) -> CustomGenerator:
    """Make a Generator from any module that turns latents into images.

    Args:
        module: Called as module(z), or module(z, label) if there are classes, or as `call` says, with z as
            [N, latent_dim], [N, latent_dim, 1, 1] or [N, 1, latent_dim], whichever it takes; returns images
            [N, C, H, W] or [N, H, W, C]. It is copied, not changed. Its images must depend on latent and class alone.
        latent_dim: Length of z.
        layers: Names, from `module.named_modules()`, of the layers that read the latent first; the weights of several
            layers are stacked. May be empty if the directions come from a bank.
        num_classes: Number of classes of a conditional generator, or 0.
        label_format: How the module takes the label: `index`, int64 [N], or `onehot`, float32 [N, num_classes].
        image_range: The module's values for black and for white: (0, 1) after a sigmoid. None: (-1, 1), or (0, 255) for
            uint8 images.
        image_layout: `nchw` or `nhwc`; None: inferred from the shape of the images.
        output_key: Which of the module's outputs is the image: a key, an attribute, an index, or several of these
            joined by dots. None: the only output that can be an image.
        call: The arguments of the module's forward, with `z` and `label` in their places: `z,None,truncation_psi=1`.
            None: z, then a label if there are classes.
        freeze_noise: A seed: the random numbers that forward draws with torch become constants of this seed, the same
            in every image. None: a module that draws random numbers is refused.

    Returns:
        The generator, in float32, in inference mode, on the CPU; its `assumptions` list what was found out rather than
        given.

    Raises:
        ArgumentError: If an argument does not fit the module, or the module does not make one image from each latent.

    Examples:
        >>> layers = torch.nn.Linear(8, 3 * 16), torch.nn.Unflatten(1, (3, 4, 4)), torch.nn.Tanh()
        >>> generator = sefa.wrap(torch.nn.Sequential(*layers), latent_dim=8, layers=["0"])
        >>> sefa.factorize(generator, top=2).vectors.shape
        torch.Size([2, 8])
    """
    label_format = choice_of(LabelFormat, label_format, "label_format")
    layout = None if image_layout is None else choice_of(ImageLayout, image_layout, "image_layout")
    _check_arguments(module, latent_dim, layers, num_classes, image_range)
    module = copy_for_inference(module)
    with torch.no_grad():
        codes = trial_codes(3, latent_dim, num_classes)
        state = State(module)
        form, image_form, dtype = find_form(
            module,
            latent_dim,
            num_classes,
            label_format,
            output_key,
            layout,
            None if call is None else parse_call(call),
        )
        changed = state.changed(module)
        if changed:
            state.restore(module)
            call_module(module, codes, latent_dim, form)
            module = fold_own_norms(module, changed)

        def run(codes: Tensor) -> object:
            return call_module(module, codes, latent_dim, form)

        frozen = FrozenNoise() if freeze_noise is None else make_noise(module, run, codes, freeze_noise)

        def render(codes: Tensor) -> Tensor:
            with frozen.in_place(module), blamed(f"{kind(module)} cannot render {_count(codes)}: "):
                return image_form.image_of(run(codes)).clone()

        if num_classes:
            _check_last_class(render, codes[:1, :latent_dim], num_classes)
        image = check_pure(module, render, codes, trial_codes(3, latent_dim, num_classes, OTHER_SEED))
        usual = BYTE_RANGE if dtype == torch.uint8 else USUAL_RANGE
        low, high = usual if image_range is None else image_range
        _check_range(kind(module), image, low, high)
        generator = CustomGenerator(
            module,
            layers,
            latent_dim=latent_dim,
            num_classes=num_classes,
            form=form,
            image_form=image_form,
            image_range=(float(low), float(high)),
            resolution=(image.shape[2], image.shape[3]),
            channels=image.shape[1],
            frozen=frozen,
        )
        generator.eval().requires_grad_(False)
    found = list(assumptions(module, num_classes, form, image_form, output_key, layout, call))
    if frozen.draws:
        generator.noise = f"constants of seed {freeze_noise}"
        found.append(f"random numbers are constants: {frozen.in_words}")
    if image_range is None:
        found.append(f"images of {low:g} to {high:g}")
    generator.assumptions = tuple(found)
    if layers:
        generator.affines()
    return generator


def _check_arguments(
    module: object,
    latent_dim: int,
    layers: Sequence[str],
    num_classes: int,
    image_range: tuple[float, float] | None,
) -> None:
    if not isinstance(module, nn.Module):
        what = f"the class {module.__name__}" if isinstance(module, type) else type(module).__name__
        raise ArgumentError(f"a torch.nn.Module was expected, got {what}")
    shapeless = [name for name, tensor in (*module.named_parameters(), *module.named_buffers()) if is_lazy(tensor)]
    if shapeless:
        raise ArgumentError(
            f"{kind(module)}'s {shapeless[0]} has no shape before the first call: give its weights, or call it once"
        )
    if type(latent_dim) is not int or latent_dim < 1:
        raise ArgumentError(f"latent_dim must be a positive integer, got {latent_dim!r}")
    if latent_dim > MAX_LATENT or (type(num_classes) is int and num_classes > MAX_LATENT):
        raise ArgumentError(f"latent_dim and num_classes must be at most {MAX_LATENT}, got {latent_dim}, {num_classes}")
    if isinstance(layers, str) or not all(isinstance(name, str) for name in layers):
        raise ArgumentError(f"layers must be a list of layers' names, got {layers!r}")
    if type(num_classes) is not int or num_classes < 0:
        raise ArgumentError(f"num_classes must be 0 or a positive integer, got {num_classes!r}")
    if image_range is not None and (
        len(image_range) != 2 or not all(map(math.isfinite, image_range)) or image_range[0] >= image_range[1]
    ):
        raise ArgumentError(f"image_range must be two numbers from low to high, got {image_range!r}")


def _count(codes: Tensor) -> str:
    return "one image alone" if len(codes) == 1 else f"{len(codes)} images at once"


def _check_last_class(render: Callable[[Tensor], Tensor], z: Tensor, num_classes: int) -> None:
    try:
        render(torch.cat([z, one_hot(torch.tensor([num_classes - 1]), num_classes)], dim=1))
    except ArgumentError as error:
        raise ArgumentError(
            f"{error}; that was class {num_classes - 1}, the last: has it {num_classes} classes?"
        ) from error.__cause__


def _check_range(who: str, image: Tensor, low: float, high: float) -> None:
    margin = (high - low) / 100
    if ((image < low - margin) | (image > high + margin)).float().mean() > MAX_BEYOND:
        raise ArgumentError(
            f"most of {who}'s values lie beyond {low:g} to {high:g}: they reach from {float(image.min()):.3g} to "
            f"{float(image.max()):.3g}; say what black and white are with --image-range LOW,HIGH"
        )
