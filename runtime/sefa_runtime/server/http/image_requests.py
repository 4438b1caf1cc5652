"""The requests and answers of the image endpoints, checked and described by pydantic."""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails
from starlette.requests import Request

from sefa_runtime.errors import InputError
from sefa_runtime.inputs.latents import MAX_SEED
from sefa_runtime.server.http.image_encoding import Format

# Images in one request, generated in as many runs as needed.
MAX_IMAGES = 256
MAX_SCALE = 32
# More than any useful `max_edits`: bounds the work of checking them.
MAX_NAMED_EDITS = 1024

Seed = Annotated[int, Field(ge=0, le=MAX_SEED)]
Alpha = Annotated[float, Field(ge=-1e6, le=1e6)]
Scale = Annotated[int, Field(ge=1, le=MAX_SCALE)]
# What pydantic adds to the place of a value of several types.
TYPE = re.compile(r"(constrained-)?(int|float|str)|list\[.+\]")
Fields = TypeVar("Fields", bound=BaseModel)


def _not_too_many(edits: Any) -> Any:
    """Check the number of edits first: pydantic would go through all of them."""
    if isinstance(edits, dict) and len(edits) > MAX_NAMED_EDITS:
        raise ValueError(f"at most {MAX_NAMED_EDITS} edits, got {len(edits)}")
    return edits


class Strict(BaseModel):
    """Strict JSON: no numbers in strings, no unknown fields."""

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
    """What a model takes and generates."""

    family: str = Field(description="The generator's architecture.")
    resolution: tuple[int, int] = Field(description="Height, width.")
    channels: int
    latent: Literal["z", "w", "w+"] = Field(description="What it generates from; seeds are for z alone.")
    latent_input: Literal["z", "w", "codes"] = Field(description="Name of that input.")
    latent_shape: list[int] = Field(description="Of one image.")
    takes_label: bool = Field(description="Whether a class must be given, 0 to num_classes - 1.")
    num_classes: int
    class_names: list[str] = Field(
        description="The classes' names, in the order of their indices; empty: they have none."
    )
    truncation: float | None = Field(description="Psi fixed at export; null: an input, 1 if not given.")
    sealed: str = Field(description="How far a tool's changes moved the images; empty: it is as it was exported.")
    license: str = Field(description="Of the generator, as given at export; empty: unknown.")
    note: str = Field(description="What else was said of the generator at export.")
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
    """Images to generate, given by exactly one of `seeds`, `z`, `w` and `codes`; seed 0 if all are left out."""

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
    label: int | str | list[int | str] | None = Field(
        None, description="Class, of a model that takes one, by index or name: for all images, or for each."
    )
    labels: str | Annotated[list[int | str], Field(min_length=1, max_length=MAX_IMAGES)] | None = Field(
        None, description="Several classes of each image, side by side: `SeFa`, `S,e,F,a` or `[3, 17]`."
    )
    truncation: float | list[float] | None = Field(None, description="Psi, of a model that takes it.")
    sweep: Sweep | None = Field(None, description="Steps along one direction instead of single images.")
    format: Format = Field(
        Format.WEBP,
        strict=False,
        description="webp (lossless), png, jpeg; gif is an animation of the sweep. jpeg and gif show RGBA on white.",
    )
    animate: bool = Field(False, description="Send a webp of the sweep's steps in motion, not side by side.")
    frames_per_second: Annotated[float, Field(ge=0.1, le=50)] = 12.0
    scale: Scale = Field(1, description="Enlarge this many times.")

    @property
    def moves(self) -> bool:
        """Whether the answer is an animation."""
        return self.animate or self.format is Format.GIF


class ImageQuery(BaseModel):
    """The query parameters of one image."""

    seed: Seed = Field(0, description="Which image.")
    edit: list[str] | None = Field(
        None,
        description="DIRECTION:ALPHA, by name or index; may be repeated, edits add up.",
        examples=[["direction-1:2.5", "4:-1"]],
    )
    label: str | None = Field(None, description="Class, of a model that takes one, by name or index.")
    labels: str | None = Field(
        None, description="Several classes, side by side: `SeFa` or `S,e,F,a`, if these are names of classes, or `0-5`."
    )
    truncation: float | None = Field(None, description="Psi, of a model that takes it.")
    scale: Scale = Field(1, description="Enlarge this many times.")
    format: Literal["webp", "png", "jpeg"] = Field("webp", description="webp and png are lossless.")


def read_query(request: Request) -> ImageQuery:
    """Read the parameters of a request for one image.

    Raises:
        InputError: If a parameter is unknown, or its value is not accepted.
    """
    given = request.query_params
    known = ImageQuery.model_fields
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise InputError(f"no such parameter: {unknown[0][:80]!r}; there are {', '.join(sorted(known))}")
    return check(ImageQuery, {name: given.getlist(name) if name == "edit" else given[name] for name in given})


def check(fields: type[Fields], document: Mapping[str, Any]) -> Fields:
    """Validate a document against a model of its fields.

    Raises:
        InputError: Naming the first four problems, each with its field.
    """
    try:
        return fields.model_validate(document)
    except ValidationError as error:
        problems = error.errors(include_url=False)[:4]
    raise InputError("; ".join(_describe(fields, problems)))


def _describe(fields: type[BaseModel], problems: Iterable[ErrorDetails]) -> Iterator[str]:
    """Yield a few words on each field with a problem; pydantic has one problem for every type that a field may have."""
    of_fields: dict[str, list[str]] = {}
    for problem in problems:
        place = ".".join(part for part in map(str, problem["loc"]) if not TYPE.fullmatch(part))
        of_fields.setdefault(place, []).append("" if problem["type"] == "extra_forbidden" else problem["msg"])
    for place, messages in of_fields.items():
        if not messages[0]:
            there = "" if "." in place else f"; there are {', '.join(sorted(fields.model_fields))}"
            yield f"no such field: {place[:80]!r}{there}"
        else:
            first, *others = dict.fromkeys(messages)
            yield " or ".join([f"{place}: {first}", *(other.removeprefix("Input should be ") for other in others)])[
                :200
            ]
