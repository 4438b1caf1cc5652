"""A user's module as a Generator: how it wants to be called is found out by calling it."""

import copy
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize, remove_spectral_norm, remove_weight_norm
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from sefa.errors import ArgumentError
from sefa.generators.custom import CallForm, CustomGenerator, call, image_of, random_codes

LABELS = ("index", "onehot")
# How far float32 sums in another order may move a value, as a share of the image's largest; convolution algorithms
# differ between batch sizes.
SAME = 1e-3


def wrap(
    module: nn.Module,
    *,
    latent_dim: int,
    layers: Sequence[str],
    num_classes: int = 0,
    label: str = "index",
    image_range: tuple[float, float] = (-1.0, 1.0),
) -> CustomGenerator:
    """Make a Generator of any module that draws images of latents.

    Args:
        module: Called as module(z), or module(z, label) if there are classes, with z as [N, latent_dim] or
            [N, latent_dim, 1, 1], whichever it takes; gives images [N, C, H, W]. It is copied, not changed.
        latent_dim: Length of z.
        layers: Names of the layers that read the latent first, as `module.named_modules()` has them; the weights of
            several are stacked. May be empty if directions come from a bank.
        num_classes: Classes of a conditional generator.
        label: How it takes the label: `index`, int64 [N], or `onehot`, float32 [N, num_classes].
        image_range: What the module gives for black and for white: (0, 1) behind a sigmoid.

    Returns:
        The generator, in float32, in inference mode, on the CPU.

    Raises:
        ArgumentError: If an argument does not fit the module, or the module does not draw one image for each latent.
    """
    _check_arguments(module, latent_dim, layers, num_classes, label, image_range)
    module = _settled(module)
    with torch.no_grad():
        form, image = _find_form(module, latent_dim, num_classes, label)
        generator = CustomGenerator(
            module,
            layers,
            latent_dim=latent_dim,
            num_classes=num_classes,
            form=form,
            image_range=(float(image_range[0]), float(image_range[1])),
            resolution=(image.shape[2], image.shape[3]),
            channels=image.shape[1],
        )
        generator.eval().requires_grad_(False)
        _check_images(generator, image)
    if layers:
        generator.affines()
    return generator


def _check_arguments(
    module: object,
    latent_dim: int,
    layers: Sequence[str],
    num_classes: int,
    label: str,
    image_range: tuple[float, float],
) -> None:
    if not isinstance(module, nn.Module):
        what = f"the class {module.__name__}" if isinstance(module, type) else f"a {type(module).__name__}"
        raise ArgumentError(f"a torch.nn.Module was expected, got {what}")
    if type(latent_dim) is not int or latent_dim < 1:
        raise ArgumentError(f"latent_dim must be a positive integer, got {latent_dim!r}")
    if isinstance(layers, str) or not all(isinstance(name, str) for name in layers):
        raise ArgumentError(f"layers must be a list of layers' names, got {layers!r}")
    if type(num_classes) is not int or num_classes < 0:
        raise ArgumentError(f"num_classes must be 0 or a positive integer, got {num_classes!r}")
    if label not in LABELS:
        raise ArgumentError(f"label must be index or onehot, got {label!r}")
    if len(image_range) != 2 or not all(map(math.isfinite, image_range)) or image_range[0] >= image_range[1]:
        raise ArgumentError(f"image_range must be two numbers from low to high, got {image_range!r}")


def _settled(module: nn.Module) -> nn.Module:
    """A copy in inference mode, float32, on the CPU, in which every weight is a plain parameter."""
    if isinstance(module, nn.DataParallel):
        module = module.module
    module = getattr(module, "_orig_mod", module)  # What torch.compile wrapped.
    with torch.no_grad():
        for layer in module.modules():  # A weight that training left attached to its graph cannot be copied.
            for hook in _norms(layer):
                if isinstance(hook, WeightNorm):
                    setattr(layer, hook.name, hook.compute_weight(layer))
                else:
                    setattr(layer, hook.name, hook.compute_weight(layer, do_power_iteration=False))
        try:
            module = copy.deepcopy(module).cpu().float().eval()
        except Exception as error:  # Whatever a class of the user's raises.
            raise ArgumentError(f"{_kind(module)} cannot be copied: {_first_line(error)}") from error
        for layer in list(module.modules()):
            for hook in _norms(layer):
                (remove_weight_norm if isinstance(hook, WeightNorm) else remove_spectral_norm)(layer, hook.name)
            if parametrize.is_parametrized(layer) and not isinstance(layer, torch.jit.ScriptModule):
                _leave_parametrized(layer)
    return module


def _leave_parametrized(layer: nn.Module) -> None:
    """Make parametrized weights plain ones.

    torch's `remove_parametrizations` would do it to the module that was copied, too: they share a class.
    """
    names = list(layer.parametrizations)  # type: ignore[arg-type]
    weights = {name: getattr(layer, name).detach().clone() for name in names}
    layer.__class__ = type(layer).__bases__[0]
    del layer.parametrizations
    for name, weight in weights.items():
        layer.register_parameter(name, nn.Parameter(weight))


def _norms(layer: nn.Module) -> list[SpectralNorm | WeightNorm]:
    """The hooks by which torch.nn.utils.spectral_norm and weight_norm compute a weight at each call."""
    hooks = () if isinstance(layer, torch.jit.ScriptModule) else layer._forward_pre_hooks.values()
    return [hook for hook in hooks if isinstance(hook, SpectralNorm | WeightNorm)]


def _find_form(module: nn.Module, latent_dim: int, num_classes: int, label: str) -> tuple[CallForm, Tensor]:
    """Try the ways of calling until one gives images; the images of three random codes."""
    code = random_codes(3, latent_dim, num_classes)
    one_hot = bool(num_classes) and label == "onehot"
    forms = [
        CallForm(z_as_image, one_hot, label_as_image)
        for label_as_image in ((False, True) if one_hot else (False,))
        for z_as_image in (False, True)
    ]
    refused, results = [], []
    for form in forms:
        try:
            result = call(module, code, latent_dim, form)
        except Exception as error:  # Whatever a class of the user's raises.
            refused.append(f"for {_describe(form, latent_dim, num_classes)}: {_first_line(error)}")
            continue
        if _is_image(result):
            return form, image_of(result)
        results.append(_describe_result(result))
    if results:
        raise ArgumentError(f"{_kind(module)} gives {results[0]}; images [N, C, H, W] were expected")
    hint = "" if num_classes else "; a class-conditional one needs the number of classes"
    raise ArgumentError(f"{_kind(module)} cannot be called {'; '.join(refused)}{hint}")


def _is_image(result: object) -> bool:
    try:
        image = image_of(result)
    except AssertionError:
        return False
    return image.is_floating_point() and image.ndim == 4 and len(image) == 3 and image.numel() > 0


def _check_images(generator: CustomGenerator, image: Tensor) -> None:
    """Refuse images that are not finite, or not a function of latent and class alone."""
    kind = _kind(generator.module)
    codes = random_codes(3, generator.z_dim, generator.num_classes)
    if not image.isfinite().all():
        raise ArgumentError(f"{kind} gives images with NaN or infinite values")
    limit = SAME * float(image.abs().max())
    again = image_of(generator.call(codes))
    if (again - image).abs().max() > limit:
        raise ArgumentError(
            f"{kind} draws another image at every call: make the random numbers in its forward constant"
        )
    alone = image_of(generator.call(codes[:1]))
    if alone.shape != image[:1].shape or (alone - image[:1]).abs().max() > limit:
        raise ArgumentError(
            f"{kind}'s images depend on what else is in the batch, as behind a BatchNorm without running statistics"
        )


def _describe(form: CallForm, latent_dim: int, num_classes: int) -> str:
    z = f"z [3, {latent_dim}{', 1, 1' if form.z_as_image else ''}]"
    if not num_classes:
        return z
    one_hot = f"one-hot label [3, {num_classes}{', 1, 1' if form.label_as_image else ''}]"
    return f"{z} and {one_hot if form.one_hot else 'int64 label [3]'}"


def _describe_result(result: object) -> str:
    if isinstance(result, tuple | list) and result:
        result = result[0]
    if not isinstance(result, Tensor):
        return f"a {type(result).__name__}"
    return f"{str(result.dtype).removeprefix('torch.')} {list(result.shape)} for 3 latents"


def _kind(module: nn.Module) -> str:
    return str(getattr(module, "original_name", type(module).__name__))


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    # TorchScript's interpreter puts the reason last.
    text = lines[-1] if isinstance(error, torch.jit.Error) else lines[0] if lines else ""
    return f"{type(error).__name__}: {text[:200]}"
