"""Endpoints for people and web pages: the list of models, and images as PNG, WebP, JPEG or GIF."""

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from starlette.requests import Request
from starlette.responses import Response

from sefa_runtime.editor import as_images
from sefa_runtime.errors import InputError
from sefa_runtime.images import Images, eased, side_by_side
from sefa_runtime.inputs.batches import Feeds
from sefa_runtime.inputs.call import Call
from sefa_runtime.inputs.call import Sweep as Steps
from sefa_runtime.inputs.labels import count_labels, label_indices, parse_labels
from sefa_runtime.server.http.image_encoding import (
    Format,
    check_pixels,
    encode_animation,
    encode_sheet,
    encoder_version,
)
from sefa_runtime.server.http.image_requests import (
    MAX_IMAGES,
    DirectionSummary,
    EditRequest,
    ModelDescription,
    ModelList,
    ModelSummary,
    check,
    read_query,
)
from sefa_runtime.server.http.receiving import decode_json, while_connected
from sefa_runtime.server.http.responses import Endpoint, JsonResponse, is_known
from sefa_runtime.server.inference import check_numbers, generate
from sefa_runtime.server.models import HostedModel
from sefa_runtime.server.pipeline import Exchange


async def list_models(request: Request) -> Response:
    """List the models, and whether each is ready."""
    return JsonResponse(ModelList(models=[_summary(model) for model in request.app.models]).model_dump())


async def describe_model(request: Request) -> Response:
    """Describe what a model takes and generates: size, latents, directions with their suggested ranges."""
    model = _exchange(request).find_model(**request.path_params)
    info = model.info
    description = ModelDescription(
        **_summary(model).model_dump(),
        family=info.family,
        resolution=info.resolution,
        channels=info.channels,
        latent=info.latent,  # type: ignore[arg-type]  # pydantic checks it
        latent_input=info.latent_name,  # type: ignore[arg-type]
        latent_shape=list(info.latent_shape),
        takes_label=info.takes_label,
        num_classes=info.num_classes,
        class_names=list(info.class_names),
        truncation=info.truncation,
        sealed=info.seal.in_words if info.seal else "",
        license=info.license,
        note=info.note,
        directions=[
            DirectionSummary(index=index, name=direction.name, alpha_range=direction.alpha_range)
            for index, direction in enumerate(info.directions)
        ],
        provider=model.editor.provider,
        max_batch=model.settings.max_batch,
        max_edits=model.max_edits,
        max_pictures=MAX_IMAGES,
    )
    return JsonResponse(description.model_dump())


async def image(request: Request) -> Response:
    """Generate one image from a seed, moved along directions: an address to put into `<img src>`.

    `/models/faces/image?seed=7&edit=turn:2.5&edit=4:1&format=png`

    With `labels`, it is one image of several classes of the seed, side by side.
    """
    model = _exchange(request).find_model(**request.path_params, for_images=True)
    wanted = read_query(request)
    kind = Format(wanted.format)
    label, classes = _classes(model, wanted.label, wanted.labels)
    if wanted.labels is None and isinstance(label, list):
        raise InputError(f"label is one class, got {wanted.label!r:.80}; several, side by side, are labels")
    _check_count(model, classes, wanted.scale)
    edits = _by_direction([_parse_edit(text) for text in wanted.edit or ()], model)
    inputs = {"label": label, "truncation": wanted.truncation}
    feeds = model.editor.prepare(Call(inputs, wanted.seed, edits))
    tag = _entity_tag(model, feeds, wanted.scale, kind)
    # Another model may take this name, so caches must revalidate an image each time.
    kept = {"etag": tag, "cache-control": "no-cache" if model.settings.token is None else "private, no-cache"}
    if is_known(request, tag):
        return Response(status_code=304, headers=kept)
    images = await _generate(request, model, feeds)
    encoded = await _encode(request, encode_sheet, images[None], wanted.scale, kind)
    return Response(encoded, media_type=kind.media_type, headers=kept)


async def edit_images(request: Request) -> Response:
    """Generate images from several seeds or from latents, with several edits, or sweep along a direction.

    Images are laid out side by side. In a sweep, each seed is a row and each step a column, or the steps are the
    frames of an animation that runs back and forth. With `labels`, each seed is a row of its classes.
    """
    exchange = _exchange(request)
    model = exchange.find_model(**request.path_params, for_images=True)
    wanted = check(EditRequest, decode_json(exchange.body))
    feeds, rows, classes = _prepare(model, wanted)
    images = await _generate(request, model, feeds)
    images = side_by_side(images.reshape(rows, -1, *images.shape[1:]), classes)
    of_words = wanted.labels is not None
    if wanted.sweep and wanted.moves:
        in_a_row = 1 if of_words else None
        encoded = await _encode(
            request, encode_animation, images, wanted.scale, wanted.format, wanted.frames_per_second, in_a_row
        )
    else:
        gap = images.shape[2] // 4 if of_words else 0  # Else words would run into each other.
        encoded = await _encode(request, encode_sheet, images, wanted.scale, wanted.format, gap)
    return Response(encoded, media_type=wanted.format.media_type)


def routes() -> list[Endpoint]:
    """Return the endpoints."""
    return [
        Endpoint("/models/{model}/image", image),
        Endpoint("/models/{model}/edit", edit_images, "POST"),
        Endpoint("/models", list_models),
        Endpoint("/models/{model}", describe_model),
    ]


def _prepare(model: HostedModel, wanted: EditRequest) -> tuple[Feeds, int, int]:
    """Return the checked inputs of a request, and how its images are laid out.

    Returns:
        The inputs, the number of rows, and how many of these stand side by side as one: a latent's classes.
    """
    if wanted.format is Format.GIF and not wanted.sweep:
        raise InputError("gif is an animation: give a sweep, or another format")
    if wanted.animate and (not wanted.sweep or wanted.format not in (Format.WEBP, Format.GIF)):
        raise InputError("an animation needs a sweep, and the format webp or gif")
    ways: dict[str, Any] = {
        name: getattr(wanted, name) for name in ("z", "w", "codes") if getattr(wanted, name) is not None
    }
    for name, value in ways.items():
        check_numbers(value, name)
    seed = 0 if wanted.seeds is None and not ways else wanted.seeds
    given = next((value for value in (seed, *ways.values()) if isinstance(value, list)), [0])
    # One flat latent is one image; `prepare` checks its numbers later.
    several = seed is not None or bool(given and isinstance(given[0], list))
    count = len(given) if several else 1
    label, classes = _classes(model, wanted.label, wanted.labels)
    if wanted.labels is None:
        count = max(count, count_labels(label))
    else:
        count *= classes
        _check_count(model, count, wanted.scale)
        label = label * (count // classes)
        seed = seed if seed is None else _repeat(seed, classes)
        ways = {name: _repeat(value if several else [value], classes) for name, value in ways.items()}
    editor = model.editor
    edits = _by_direction(list(wanted.edits.items()), model)
    call = Call(ways | {"label": label, "truncation": wanted.truncation}, seed, edits)
    if wanted.sweep is None:
        _check_count(model, count, wanted.scale)
        return editor.prepare(call), 1 if wanted.labels is None else count, classes
    index = editor.direction_index(_direction(wanted.sweep.direction, model))
    alphas = wanted.sweep.alphas
    if alphas is None:
        low, high = editor.info.directions[index].alpha_range
        spaced = eased if wanted.moves else np.linspace
        alphas = [float(alpha) for alpha in spaced(low, high, wanted.sweep.steps)]
    _check_count(model, count * len(alphas), wanted.scale)
    feeds = editor.prepare(replace(call, sweep=Steps(index, alphas)))
    return feeds, len(feeds["direction"]) // len(alphas), classes


def _classes(
    model: HostedModel, label: int | str | list[int | str] | None, labels: str | list[int | str] | None
) -> tuple[Any, int]:
    """Return a request's labels, by index, and how many of them are one latent's, side by side."""
    if labels is None:
        found = parse_labels(model.info, label) if isinstance(label, str) else label_indices(model.info, label)
        return found[0] if isinstance(found, list) and len(found) == 1 else found, 1
    if label is not None:
        raise InputError("give label or labels, not both")
    found = parse_labels(model.info, labels) if isinstance(labels, str) else label_indices(model.info, labels)
    return found, len(found)


def _repeat(latents: Any, times: int) -> list[Any]:
    """Return each of some seeds or latents so many times, one after the other."""
    return [one for one in (latents if isinstance(latents, list) else [latents]) for _ in range(times)]


def _check_count(model: HostedModel, count: int, scale: int) -> None:
    if count > MAX_IMAGES:
        raise InputError(f"at most {MAX_IMAGES} images in a request, got {count}")
    check_pixels(count, *model.info.resolution, scale)


async def _generate(request: Request, model: HostedModel, feeds: Feeds) -> Images:
    """Return images [N, H, W, C]."""
    return as_images(await while_connected(request.scope, request.receive, generate(_exchange(request), model, feeds)))


def _exchange(request: Request) -> Exchange:
    exchange: Exchange = request.scope["exchange"]
    return exchange


async def _encode(request: Request, encode: Callable[..., bytes], *arguments: Any) -> bytes:
    """Encode in another thread, at most as many at once as there are cores: each may take hundreds of megabytes."""
    async with request.app.encoders:
        return await asyncio.to_thread(encode, *arguments)


def _entity_tag(model: HostedModel, feeds: Feeds, scale: int, kind: Format) -> str:
    """Return the ETag of an image: a hash of the graph, its inputs, and everything that affects how it is encoded."""
    digest = hashlib.sha256(repr((model.fingerprint, encoder_version(), scale, kind)).encode())
    for name, array in sorted(feeds.items()):
        digest.update(repr((name, array.dtype.str, array.shape)).encode())
        digest.update(np.ascontiguousarray(array).data)
    # Providers other than the CPU's may round differently at other run sizes: the same image, but not the same bytes.
    weak = "" if model.editor.provider == "cpu" else "W/"
    return f'{weak}"{digest.hexdigest()}"'


def _summary(model: HostedModel) -> ModelSummary:
    return ModelSummary(name=model.name, state=model.state.value, ready=model.ready, reason=model.reason)


def _parse_edit(text: str) -> tuple[str, float]:
    """Read an edit such as `pose:2.5`."""
    direction, colon, alpha = text.rpartition(":")
    try:
        number = float(alpha)
    except ValueError:
        number = float("nan")
    if not colon or not abs(number) <= 1e6:
        raise InputError(f"an edit looks like pose:2.5 or 3:-1, got {text[:80]!r}")
    return direction, number


def _by_direction(
    edits: Sequence[tuple[str, float | list[float]]], model: HostedModel
) -> dict[str | int, float | list[float]]:
    """Return the alphas by direction, its name or index."""
    found: dict[str | int, float | list[float]] = {}
    for text, alpha in edits[: model.max_edits + 1]:
        key = _direction(text, model)
        if key in found:
            raise InputError(f"direction {key} is given twice")
        found[key] = alpha
    if len(edits) > model.max_edits:
        raise InputError(f"at most {model.max_edits} edits of an image, got {len(edits)}")
    return found


def _direction(text: str | int, model: HostedModel) -> str | int:
    """Return a direction's name as it is, and the digits of an index as a number; else the text, cut short."""
    if isinstance(text, int) or text in model.info.names:
        return text
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 9 else text[:128]
