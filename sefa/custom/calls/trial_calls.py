"""Find out, by calling it, how a user's module wants to be called and where the image is in its output."""

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sefa.choices import ImageLayout, LabelFormat
from sefa.custom.calls.call_text import Call
from sefa.custom.calls.forms import PLAIN, WITH_LABEL, WITH_NONE, Axes, CallForm, ImageForm, entry_of
from sefa.custom.probing import trial_codes
from sefa.custom.user_code import first_line, kind
from sefa.errors import ArgumentError, listed

USUAL_CHANNELS = (1, 3, 4)  # grey, RGB, RGBA
MAX_DEPTH = 3  # of nested outputs
BY_PLACE = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
# Usual names of an optional class argument.
LABEL_NAMES = ("c", "y", "label", "labels", "class_label", "class_labels", "classes", "cls")
LATENTS = 3  # in each trial call


def find_form(
    module: nn.Module,
    latent_dim: int,
    num_classes: int,
    label_format: LabelFormat,
    output_key: str | int | None,
    layout: ImageLayout | None,
    call: Call | None = None,
) -> tuple[CallForm, ImageForm, torch.dtype]:
    """Try ways of calling until one gives images; return it, where the image is, and the image's dtype.

    Raises:
        ArgumentError: If none does, or it is unclear which output is the image or which axis holds the channels.
    """
    codes = trial_codes(LATENTS, latent_dim, num_classes)
    if call is None:
        call = WITH_LABEL if num_classes else WITH_NONE if len(_required(module)) == 2 else PLAIN
    elif call.takes_label != bool(num_classes):
        raise ArgumentError(
            "--call names a label: say how many classes there are with --num-classes N"
            if call.takes_label
            else "--call names no label: leave out --num-classes, or write label where the class goes"
        )
    label_axes = (Axes.FLAT, Axes.IMAGE) if num_classes and label_format is LabelFormat.ONEHOT else (Axes.FLAT,)
    forms = [CallForm(call, z_axes, label_format, axes) for axes in label_axes for z_axes in Axes]
    refused, results = [], []
    for form in forms:
        positional, keywords = form.arguments_for(codes, latent_dim)
        try:
            result = module(*positional, **keywords)
        except Exception as error:  # The user's class may raise anything.
            refused.append((_describe(form, latent_dim, num_classes), error))
            continue
        image_form = _find_image(result, output_key, layout, kind(module))
        if image_form is not None:
            image = entry_of(result, image_form.path)
            assert isinstance(image, Tensor)
            return form, image_form, image.dtype
        results.append(_describe_result(result))
    if results:
        raise ArgumentError(f"{kind(module)} gives {results[0]}")
    if any(all(_runs(module, code, latent_dim, form) for code in codes[:, None]) for form in forms):
        raise ArgumentError(
            f"{kind(module)} renders one image at a time: let its forward take a batch; of {LATENTS} latents it makes "
            f"{first_line(refused[0][1])}"
        )
    raise ArgumentError(_refusal(module, num_classes, call, refused))


def assumptions(
    module: nn.Module,
    num_classes: int,
    form: CallForm,
    image_form: ImageForm,
    output_key: object,
    layout: ImageLayout | None,
    call: str | None,
) -> Iterator[str]:
    """Yield what was found out by calling the module and not stated by the user."""
    names = list(_arguments(module) or ())
    if call is None and form.call is WITH_NONE:
        yield "None as its second argument" + (f", {names[1]}" if len(names) > 1 else "")
    elif call is None and not num_classes and len(names) > 1 and names[1] in LABEL_NAMES:
        yield f"no {names[1]}, which its forward may be given"
    if image_form.path and output_key is None:
        yield f"the image is its output {'.'.join(image_form.path)}"
    if image_form.channels_last and layout is None:
        yield "images [N, H, W, C]"


def _find_image(result: object, output_key: str | int | None, layout: ImageLayout | None, who: str) -> ImageForm | None:
    """Find where the image is in an output; return None if there is none.

    Raises:
        ArgumentError: If that is unclear, or `output_key` names no image.
    """
    if output_key is not None:
        path = tuple(str(output_key).removeprefix(".").split("."))
        try:
            found = entry_of(result, path)
        except LookupError:
            raise ArgumentError(f"{who} gives no output {output_key!r}, but {_outputs_in_words(result)}") from None
        if not isinstance(found, Tensor) or not _is_image(found):
            raise ArgumentError(
                f"{who}'s output {output_key!r} is {_describe_tensor(found)}, no images; it gives "
                f"{_outputs_in_words(result)}"
            )
    else:
        candidates = [path for path, tensor in _outputs(result) if _is_image(tensor)]
        if not candidates:
            return None
        if len(candidates) > 1:
            raise ArgumentError(
                f"{who} gives several outputs that may be the image: {_outputs_in_words(result)}; say which it is: "
                f"--output-key {'.'.join(candidates[0])}"
            )
        path = candidates[0]
    image = entry_of(result, path)
    assert isinstance(image, Tensor)
    channels_last = _is_channels_last(image.shape[1:]) if layout is None else layout is ImageLayout.NHWC
    if channels_last is None:
        raise ArgumentError(
            f"{who} gives images {list(image.shape)} for {LATENTS} latents: whether channels come first or last does "
            "not show; say it: --image-layout nchw or nhwc"
        )
    return ImageForm(path, channels_last)


def _is_channels_last(shape: torch.Size) -> bool | None:
    """Return whether an image shape is [H, W, C] rather than [C, H, W]; None if it may be either."""
    first, second, third = shape
    is_first = (first in USUAL_CHANNELS) + (second == third)
    is_last = (third in USUAL_CHANNELS) + (first == second)  # For [3, 4, 4], one sign is for it and two are against it.
    return None if is_first == is_last else is_last > is_first


def _is_image(value: object) -> bool:
    return (
        isinstance(value, Tensor)
        and (value.is_floating_point() or value.dtype == torch.uint8)
        and value.ndim == 4
        and len(value) == LATENTS
        and value.numel() > 0
    )


def _outputs(result: object, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Tensor]]:
    """Yield all tensors in a module's output, including those in tuples, dicts, dataclasses and other objects."""
    if isinstance(result, Tensor):
        yield path, result
        return
    if len(path) == MAX_DEPTH:
        return
    for name, value in _entries(result):
        yield from _outputs(value, (*path, name))


def _entries(result: object) -> Iterator[tuple[str, object]]:
    if isinstance(result, Mapping):
        yield from ((key, value) for key, value in result.items() if isinstance(key, str))
    elif isinstance(result, tuple | list):
        yield from ((str(index), value) for index, value in enumerate(result))
    elif is_dataclass(result):
        yield from ((field.name, getattr(result, field.name)) for field in fields(result))
    elif not isinstance(result, nn.Module):
        yield from getattr(result, "__dict__", {}).items()


def _outputs_in_words(result: object) -> str:
    found = [f"{'.'.join(path)} {_describe_tensor(tensor)}" for path, tensor in _outputs(result)]
    return listed(found).strip() or f"a {type(result).__name__} without tensors"


def _describe_result(result: object) -> str:
    found = list(_outputs(result))
    tensor = found[0][1] if found else None
    expected = "images [N, C, H, W] were expected"
    if tensor is None:
        return f"{_outputs_in_words(result)}; {expected}"
    described = f"{_outputs_in_words(result)} for {LATENTS} latents; {expected}"
    if tensor.is_complex():
        return f"{described}: end its forward with their real part"
    if tensor.ndim == 4 and len(tensor) != LATENTS:
        return f"{described}, one for each latent"
    if tensor.ndim == 4:
        return f"{described}, of floating point or uint8: end its forward with .float()"
    return f"{described}: end its forward with a reshape, as x.reshape(len(z), 3, 64, 64)"


def _describe_tensor(value: object) -> str:
    if not isinstance(value, Tensor):
        return f"a {type(value).__name__}"
    return f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)}"


def _runs(module: nn.Module, code: Tensor, latent_dim: int, form: CallForm) -> bool:
    positional, keywords = form.arguments_for(code, latent_dim)
    try:
        module(*positional, **keywords)
    except Exception:  # The user's class may raise anything.
        return False
    return True


def _describe(form: CallForm, latent_dim: int, num_classes: int) -> str:
    z = f"z [{LATENTS}, {form.z_axes.in_words(latent_dim)}]"
    if form.call not in (PLAIN, WITH_LABEL):
        return f"({form.call.text}) with {z}"
    if not num_classes:
        return z
    if form.label_format is LabelFormat.ONEHOT:
        return f"{z} and one-hot label [{LATENTS}, {form.label_axes.in_words(num_classes)}]"
    return f"{z} and int64 label [{LATENTS}]"


def _refusal(module: nn.Module, num_classes: int, call: Call, refused: list[tuple[str, Exception]]) -> str:
    """Say why a module cannot be called, and what to do about it."""
    required = _required(module)
    reasons: dict[str, list[str]] = {}
    for form, error in refused:
        reasons.setdefault(first_line(error), []).append(form)
    text = f"{kind(module)} cannot be called " + "; ".join(
        f"for {' or '.join(forms)}: {reason}" for reason, forms in reasons.items()
    )
    errors = " ".join(str(error) for _, error in refused)
    wanted = 2 if num_classes else 1
    if call not in (PLAIN, WITH_LABEL, WITH_NONE):
        return f"{text}; its forward is given what --call says" + (
            f", and wants {', '.join(required)}" if required else ""
        )
    if len(required) > wanted and (num_classes or len(required) > 2):
        return (
            f"{kind(module)}.forward({', '.join(required)}) wants {len(required)} arguments, where it is called with "
            f"{'z and a label' if num_classes else 'z alone'}: say what the others are, as in "
            f"--call {'z,label' if num_classes else 'z'},{required[-1]}=1"
        )
    if len(required) > wanted:
        return (
            f"{text}; its forward({', '.join(required)}) wants {required[1]} besides the latent: with --num-classes N "
            f"it is given class indices (one-hot rows with --label-input onehot), with --call another value"
        )
    if any(word in errors for word in ("CUDA", "cuda", "NVIDIA")):
        return f"{text}; it is run on the CPU: let its forward take the device of z instead of naming one"
    if any(word in errors for word in ("Double", "double", "Half", "BFloat16")):
        return f"{text}; it is run in float32: let its forward keep the dtype of z"
    if num_classes:
        return (
            f"{text}; it is called as forward(z, label), with classes of 0 to {num_classes - 1}; with --call otherwise"
        )
    if _arguments(module) == {}:
        return f"{text}; --call says which arguments it wants, as in --call x=z"
    return (
        f"{text}; a class-conditional one needs the number of classes (--num-classes N), and other arguments are given "
        "with --call"
    )


def _arguments(module: nn.Module) -> dict[str, bool] | None:
    """Return forward's positional arguments, and whether each is required; None if that is unknown."""
    if isinstance(module, torch.jit.ScriptModule):
        forward: Any = module.forward
        return {argument.name: not argument.has_default_value() for argument in forward.schema.arguments[1:]}
    try:
        parameters = inspect.signature(module.forward).parameters.values()
    except (TypeError, ValueError):
        return None
    return {one.name: one.default is inspect.Parameter.empty for one in parameters if one.kind in BY_PLACE}


def _required(module: nn.Module) -> list[str]:
    """Return the names of forward's required arguments, as far as they are known."""
    return [name for name, must in (_arguments(module) or {}).items() if must]
