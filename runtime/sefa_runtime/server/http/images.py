"""Endpoints for people and web pages: what models there are, and images as PNG, WebP, JPEG or GIF."""

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter, Path, Query
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response

from sefa_runtime.editor import as_images
from sefa_runtime.errors import InputError
from sefa_runtime.images import Images, eased
from sefa_runtime.inputs.batches import Feeds
from sefa_runtime.inputs.call import Call
from sefa_runtime.inputs.call import Sweep as Steps
from sefa_runtime.inputs.latents import MAX_SEED
from sefa_runtime.server.http.answers import is_known, models_of, note, while_connected
from sefa_runtime.server.http.encoding import Format, check_pixels, encode_animation, encode_sheet, encoder_version
from sefa_runtime.server.http.v2_tensors import check_numbers
from sefa_runtime.server.models import HostedModel

# Images of one request, drawn in as many runs as they need.
MAX_IMAGES = 256
MAX_SCALE = 32
QUERY = {"seed", "edit", "label", "truncation", "scale", "format"}
# Beyond any `max_edits` of use: bounds the work of checking them.
MAX_NAMED_EDITS = 1024

Seed = Annotated[int, Field(ge=0, le=MAX_SEED)]
Alpha = Annotated[float, Field(ge=-1e6, le=1e6)]
ModelName = Annotated[str, Path(description="A model's name, as `/models` lists them.", examples=["faces"])]


def _not_too_many(edits: Any) -> Any:
    """Look at the length first: pydantic would go through all of them."""
    if isinstance(edits, dict) and len(edits) > MAX_NAMED_EDITS:
        raise ValueError(f"at most {MAX_NAMED_EDITS} edits, got {len(edits)}")
    return edits


class Strict(BaseModel):
    """JSON as it is meant: no numbers in strings, no fields that do not exist."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class ModelSummary(Strict):
    """One model of the server."""

    name: str
    state: Literal["loading", "ready", "hanging", "failed", "draining"]
    ready: bool = Field(description="Whether it answers.")
    reason: str = Field(description="Why it failed to load, or hangs; else empty.")


class ModelList(Strict):
    """The models of the server."""

    models: list[ModelSummary]


class DirectionSummary(Strict):
    """One direction to move along."""

    index: int
    name: str
    alpha_range: tuple[float, float] = Field(description="Suggested; further is allowed.")


class ModelDescription(ModelSummary):
    """What a model takes and draws."""

    family: str = Field(description="The generator's architecture.")
    resolution: tuple[int, int] = Field(description="Height, width.")
    channels: int
    latent: Literal["z", "w", "w+"] = Field(description="What it draws from; seeds are for z alone.")
    latent_input: Literal["z", "w", "codes"] = Field(description="Name of that input.")
    latent_shape: list[int] = Field(description="Of one image.")
    takes_label: bool = Field(description="Whether a class must be given, 0 to num_classes - 1.")
    num_classes: int
    truncation: float | None = Field(description="Psi fixed at export; null: an input, 1 if not given.")
    directions: list[DirectionSummary]
    provider: str = Field(description="The onnxruntime execution provider that really runs.")
    max_batch: int = Field(description="Images of one v2 request.")
    max_edits: int = Field(description="Edits of one image.")
    max_pictures: int = Field(description="Images of one request to `edit`.")


class Sweep(Strict):
    """Steps along one direction."""

    direction: str | int = Field(description="Name or index.", examples=["direction-1"])
    alphas: Annotated[list[Alpha], Field(min_length=1, max_length=MAX_IMAGES)] | None = Field(
        None, description="The distances; left out, `steps` over the direction's suggested range."
    )
    steps: Annotated[int, Field(ge=1, le=MAX_IMAGES)] = Field(7, description="How many, if `alphas` is left out.")


class EditRequest(Strict):
    """Images to draw. Exactly one of `seeds`, `z`, `w` and `codes` says which; seed 0 if all are left out."""

    seeds: Seed | Annotated[list[Seed], Field(min_length=1, max_length=MAX_IMAGES)] | None = Field(
        None, description="One or several; each is the same image on every machine.", examples=[[7, 8]]
    )
    z: list[Any] | None = Field(None, description="Latents, [N, z_dim] or [z_dim], of a model of z.")
    w: list[Any] | None = Field(None, description="Style codes, [N, D] or [D], of a model of w.")
    codes: list[Any] | None = Field(None, description="Codes of every layer, [N, L, D] or [L, D], of a model of w+.")
    edits: Annotated[
        dict[str, Alpha | Annotated[list[Alpha], Field(max_length=MAX_IMAGES)]], BeforeValidator(_not_too_many)
    ] = Field(
        default_factory=dict,
        max_length=MAX_NAMED_EDITS,
        description="Alpha by a direction's name or index: a number for all images, or one for each.",
        examples=[{"direction-1": 2.5, "4": -1.0}],
    )
    label: int | list[int] | None = Field(None, description="Class, of a model that takes one: for all, or for each.")
    truncation: float | list[float] | None = Field(None, description="Psi, of a model that takes it.")
    sweep: Sweep | None = Field(None, description="Steps along one direction instead of single images.")
    format: Format = Field(
        Format.WEBP,
        strict=False,
        description="webp (lossless), png, jpeg; gif is an animation of the sweep. jpeg and gif show RGBA on white.",
    )
    animate: bool = Field(False, description="Send a webp of the sweep's steps in motion, not side by side.")
    frames_per_second: Annotated[float, Field(ge=0.1, le=50)] = 12.0
    scale: Annotated[int, Field(ge=1, le=MAX_SCALE)] = Field(1, description="Enlarge this many times.")

    @property
    def moves(self) -> bool:
        """Whether the answer is an animation."""
        return self.animate or self.format is Format.GIF


router = APIRouter(tags=["Images"])

ENCODED: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The image.",
        "content": {f"image/{kind}": {"schema": {"type": "string", "format": "binary"}} for kind in Format},
    }
}

IMAGE = ENCODED | {304: {"description": "The image is the one that `If-None-Match` names; nothing was run."}}


@router.head("/models", include_in_schema=False)
@router.get("/models")
async def list_models(request: Request) -> ModelList:
    """Which models there are, and whether they answer."""
    return ModelList(models=[_summary(model) for model in models_of(request)])


@router.head("/models/{model}", include_in_schema=False)
@router.get("/models/{model}")
async def describe_model(request: Request, model: ModelName) -> ModelDescription:
    """What a model takes and draws: size, latents, directions with their suggested ranges."""
    hosted = models_of(request).get(model)
    info = hosted.info
    return ModelDescription(
        **_summary(hosted).model_dump(),
        family=info.family,
        resolution=info.resolution,
        channels=info.channels,
        latent=info.latent,  # type: ignore[arg-type]  # pydantic checks it
        latent_input=info.latent_name,  # type: ignore[arg-type]
        latent_shape=list(info.latent_shape),
        takes_label=info.takes_label,
        num_classes=info.num_classes,
        truncation=info.truncation,
        directions=[
            DirectionSummary(index=index, name=direction.name, alpha_range=direction.alpha_range)
            for index, direction in enumerate(info.directions)
        ],
        provider=hosted.editor.provider,
        max_batch=hosted.settings.max_batch,
        max_edits=hosted.max_edits,
        max_pictures=MAX_IMAGES,
    )


@router.head("/models/{model}/image", include_in_schema=False)
@router.get("/models/{model}/image", response_class=Response, responses=IMAGE)
async def image(
    request: Request,
    model: ModelName,
    seed: Annotated[Seed, Query(description="Which image.")] = 0,
    edit: Annotated[
        list[str] | None,
        Query(
            description="DIRECTION:ALPHA, by name or index; may be repeated, edits add up.",
            examples=[["direction-1:2.5", "4:-1"]],
        ),
    ] = None,
    label: Annotated[int | None, Query(description="Class, of a model that takes one.")] = None,
    truncation: Annotated[float | None, Query(description="Psi, of a model that takes it.")] = None,
    scale: Annotated[int, Query(ge=1, le=MAX_SCALE, description="Enlarge this many times.")] = 1,
    format: Annotated[Literal["webp", "png", "jpeg"], Query(description="webp and png are lossless.")] = "webp",  # noqa: A002
) -> Response:
    """Draw one image of a seed, moved along directions: an address to put into `<img src>`.

    `/models/faces/image?seed=7&edit=turn:2.5&edit=4:1&format=png`
    """
    hosted = models_of(request).get(model)
    note(request, model=hosted.name)
    with hosted.counted():
        unknown = sorted(set(request.query_params) - QUERY)
        if unknown:
            raise InputError(f"no such parameter: {unknown[0][:80]!r}; there are {', '.join(sorted(QUERY))}")
        check_pixels(1, *hosted.info.resolution, scale)
        edits = _by_direction([_parse_edit(text) for text in edit or ()], hosted)
        feeds = hosted.editor.prepare(Call({"label": label, "truncation": truncation}, seed, edits))
        kind = Format(format)
        tag = _entity_tag(hosted, feeds, scale, kind)
        # Another model may get the name: whoever keeps an image asks each time whether it still holds.
        kept = {"etag": tag, "cache-control": "no-cache" if hosted.settings.token is None else "private, no-cache"}
        if is_known(request, tag):
            return Response(status_code=304, headers=kept)
        images = await while_connected(request.receive, _draw(hosted, feeds))
        encoded = await _encode(request, encode_sheet, images[None], scale, kind)
    return Response(encoded, media_type=kind.media_type, headers=kept)


@router.post("/models/{model}/edit", response_class=Response, responses=ENCODED)
async def edit_images(request: Request, model: ModelName, wanted: EditRequest) -> Response:
    """Draw images of several seeds or of latents, with several edits, or sweep along a direction.

    Images are laid out side by side; of a sweep, each seed is a row and each step a column, or the steps are the
    frames of an animation that runs forth and back.
    """
    hosted = models_of(request).get(model)
    note(request, model=hosted.name)
    with hosted.counted():
        feeds, rows = _read(hosted, wanted)
        note(request, images=len(feeds["direction"]))
        images = await while_connected(request.receive, _draw(hosted, feeds))
        images = images.reshape(rows, -1, *images.shape[1:])
        if wanted.sweep and wanted.moves:
            encoded = await _encode(
                request, encode_animation, images, wanted.scale, wanted.format, wanted.frames_per_second
            )
        else:
            encoded = await _encode(request, encode_sheet, images, wanted.scale, wanted.format)
    return Response(encoded, media_type=wanted.format.media_type)


def _read(model: HostedModel, wanted: EditRequest) -> tuple[Feeds, int]:
    """The checked inputs of a request, and in how many rows its images are laid out."""
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
    # Those of one latent are counted by its numbers, which are checked soon enough.
    count = len(given) if seed is not None or (given and isinstance(given[0], list)) else 1
    editor = model.editor
    edits = _by_direction(list(wanted.edits.items()), model)
    call = Call(ways | {"label": wanted.label, "truncation": wanted.truncation}, seed, edits)
    if wanted.sweep is None:
        _check_count(model, count, wanted.scale)
        return editor.prepare(call), 1
    index = editor.direction_index(_direction(wanted.sweep.direction, model))
    alphas = wanted.sweep.alphas
    if alphas is None:
        low, high = editor.info.directions[index].alpha_range
        spaced = eased if wanted.moves else np.linspace
        alphas = [float(alpha) for alpha in spaced(low, high, wanted.sweep.steps)]
    _check_count(model, count * len(alphas), wanted.scale)
    feeds = editor.prepare(replace(call, sweep=Steps(index, alphas)))
    return feeds, len(feeds["direction"]) // len(alphas)


def _check_count(model: HostedModel, count: int, scale: int) -> None:
    if count > MAX_IMAGES:
        raise InputError(f"at most {MAX_IMAGES} images in a request, got {count}")
    check_pixels(count, *model.info.resolution, scale)


async def _draw(model: HostedModel, feeds: Feeds) -> Images:
    """Images [N, H, W, C]."""
    return as_images((await model.infer(feeds)).image)


async def _encode(request: Request, encode: Callable[..., bytes], *arguments: Any) -> bytes:
    """Encode in another thread; no more at once than there are cores, since each may take hundreds of megabytes."""
    async with request.app.state.encoders:
        return await asyncio.to_thread(encode, *arguments)


def _entity_tag(model: HostedModel, feeds: Feeds, scale: int, kind: Format) -> str:
    """The ETag of an image: of the graph, its inputs, and all that has a hand in its bytes on the way out."""
    digest = hashlib.sha256(repr((model.fingerprint, encoder_version(), scale, kind)).encode())
    for name, array in sorted(feeds.items()):
        digest.update(repr((name, array.dtype.str, array.shape)).encode())
        digest.update(np.ascontiguousarray(array).data)
    # Other providers than the CPU's may round differently in runs of other sizes: the same image, not the same bytes.
    weak = "" if model.editor.provider == "cpu" else "W/"
    return f'{weak}"{digest.hexdigest()}"'


def _summary(model: HostedModel) -> ModelSummary:
    return ModelSummary(name=model.name, state=model.state.value, ready=model.ready, reason=model.reason)


def _parse_edit(text: str) -> tuple[str, float]:
    """Read `pose:2.5`."""
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
    """Alphas by name or index."""
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
    """A name if there is one such, else the index that it looks like."""
    if isinstance(text, int) or text in model.info.names:
        return text
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 9 else text[:128]
