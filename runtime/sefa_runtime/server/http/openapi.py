"""/openapi.json: describes the endpoints, their requests and answers, with working examples."""

import re
from collections.abc import Iterable, Mapping
from copy import deepcopy
from inspect import getdoc
from typing import Any

import numpy as np
from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema
from starlette.requests import Request
from starlette.responses import Response

from sefa_runtime.inputs.examples import random_inputs
from sefa_runtime.model.signature import make_signature
from sefa_runtime.server.http import image_endpoints
from sefa_runtime.server.http.image_encoding import Format
from sefa_runtime.server.http.image_requests import EditRequest, ImageQuery, ModelDescription, ModelList
from sefa_runtime.server.http.responses import Endpoint, JsonResponse
from sefa_runtime.server.models import HostedModel, Models
from sefa_runtime.server.settings import Settings
from sefa_runtime.version import VERSION

DESCRIPTION = """Images from GANs that were exported with `sefa export`, moved along directions of their latent space.

- **Images**: for people and web pages; answers are WebP, PNG, JPEG or GIF.
- **Open Inference Protocol v2**: for inference clients (Triton's, KServe's); tensors as JSON or as raw bytes after it
  (the binary tensor extension). All of `/v2/models/{model}/...` is also at `/v2/models/{model}/versions/1/...`.

Errors are `{"error": "what was wanted and what came"}`. Each answer has an `X-Request-ID`: the request's own, or a new
one."""
V2 = "Open Inference Protocol v2"
SERVER = "Server"
# For examples, if there is no loaded model to take them from.
SOME_MODEL = "faces"
SOME_SIGNATURE = make_signature(
    "z",
    (100,),
    directions=2,
    num_classes=None,
    truncation=False,
    optional=(),
    output_type="uint8",
    image_shape=(64, 64, 3),
    batch=None,
    num_edits=None,
)

Schema = dict[str, Any]

ERROR: Schema = {"type": "object", "required": ["error"], "properties": {"error": {"type": "string"}}}
READY: Schema = {
    "type": "object",
    "required": ["ready"],
    "properties": {"ready": {"type": "boolean"}, "name": {"type": "string"}, "error": {"type": "string"}},
}
OBJECT: Schema = {"type": "object"}
TENSOR: Schema = {
    "type": "object",
    "required": ["name", "shape", "datatype"],
    "properties": {
        "name": {"type": "string"},
        "shape": {"type": "array", "items": {"type": "integer"}},
        "datatype": {"enum": ["FP32", "INT64", "UINT8"]},
        "parameters": OBJECT,
        "data": {"type": "array", "items": {}, "description": "Row by row, flat or nested."},
    },
}
INFER_REQUEST: Schema = {
    "type": "object",
    "required": ["inputs"],
    "properties": {
        "id": {"type": "string", "description": "Comes back in the answer."},
        "inputs": {
            "type": "array",
            "items": {"$ref": "#/components/schemas/Tensor"},
            "description": "Tensors, by the names of the graph's inputs.",
        },
        "outputs": {
            "type": "array",
            "description": "Only `image`; all outputs if left out.",
            "items": {
                "type": "object",
                "required": ["name"],
                "properties": {"name": {"const": "image"}, "parameters": OBJECT},
            },
        },
        "parameters": {**OBJECT, "description": "`binary_data_output`: true gives the image as raw bytes."},
    },
}
INFER_RESPONSE: Schema = {
    "type": "object",
    "required": ["model_name", "model_version", "id", "outputs"],
    "properties": {
        "model_name": {"type": "string"},
        "model_version": {"type": "string"},
        "id": {"type": "string"},
        "outputs": {"type": "array", "items": {"$ref": "#/components/schemas/Tensor"}},
    },
}
REFUSALS = {
    "400": "The request cannot be taken; the message says what was wanted and what came.",
    "401": "The token is missing or wrong.",
    "404": "No such model.",
    "408": "The body did not arrive in time.",
    "413": "The body is too large.",
    "415": "The body is of another type.",
    "421": "The request is addressed to a host that the server does not answer for.",
    "500": "There is NaN or infinity in the image; or a fault of the server.",
    "503": "The model is not ready, or the queue is full: try again after `Retry-After` seconds.",
    "504": "No answer in time.",
}


def route(models: Models, settings: Settings) -> Endpoint:
    """Return the route of /openapi.json."""

    async def openapi(request: Request) -> Response:
        return JsonResponse(describe(models, settings, request.scope["root_path"]))

    return Endpoint("/openapi.json", openapi)


def describe(models: Iterable[HostedModel], settings: Settings, prefix: str = "") -> Schema:
    """Return the description of a server's endpoints, as OpenAPI 3.1 wants it.

    Args:
        models: The server's models; their names and examples of their inputs stand in it, unless a token is needed.
        settings: The server's settings.
        prefix: The prefix of all paths; empty if there is none, or none is known.
    """
    # If a token is needed, the models' names are not public.
    loaded = [model for model in models if model.loaded and settings.token is None]
    described: list[tuple[type[BaseModel], JsonSchemaMode]] = [
        (ModelList, "serialization"),
        (ModelDescription, "serialization"),
        (EditRequest, "validation"),
    ]
    _, definitions = models_json_schema(described, ref_template="#/components/schemas/{model}")
    schemas = {"Error": ERROR, "Tensor": TENSOR, "InferRequest": INFER_REQUEST, "InferResponse": INFER_RESPONSE}
    paths = _image_paths() | _v2_paths()
    for path, operations in paths.items():
        for method, operation in operations.items():
            _add_refusals(path, method, operation, settings)
            for parameter in operation.get("parameters", ()):
                if parameter["name"] == "model":
                    parameter["schema"] = {"type": "string"}
                    if loaded:
                        parameter["schema"]["enum"] = [model.name for model in loaded]
                    parameter["example"] = loaded[0].name if loaded else SOME_MODEL
    _add_examples(paths, loaded[0] if loaded else None)
    document: Schema = {
        "openapi": "3.1.0",
        "info": {
            "title": "sefa",
            "summary": "Edit what a GAN generates.",
            "description": DESCRIPTION,
            "version": VERSION,
        },
        # The prefix, if known; and an address relative to this document, which is right under any prefix.
        "servers": [*([{"url": prefix}] if prefix else []), {"url": "."}],
        "paths": paths,
        "components": {"schemas": definitions["$defs"] | schemas},
    }
    if settings.token is not None:
        document["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        document["security"] = [{"token": []}]
    return document


def _image_paths() -> dict[str, Schema]:
    name = {"name": "model", "in": "path", "required": True, "description": "A model's name, as `/models` lists them."}
    query = [
        {"name": field, "in": "query", "required": False, "schema": schema, "description": schema["description"]}
        for field, schema in ImageQuery.model_json_schema()["properties"].items()
    ]
    kinds = {kind.media_type: {"schema": {"type": "string", "format": "binary"}} for kind in Format}
    encoded = {"200": {"description": "The image.", "content": kinds}}
    still = {kind: schema for kind, schema in kinds.items() if kind != Format.GIF.media_type}
    one_image = {"200": {"description": "The image.", "content": still}}
    known = {"304": {"description": "The image is the one that `If-None-Match` names; nothing was run."}}
    body = {"required": True, "content": {"application/json": {"schema": _reference("EditRequest")}}}

    paths: dict[str, Schema] = {}
    for path, method, endpoint, responses, more in (
        ("/models", "get", image_endpoints.list_models, _found("ModelList"), {}),
        ("/models/{model}", "get", image_endpoints.describe_model, _found("ModelDescription"), {"parameters": [name]}),
        ("/models/{model}/image", "get", image_endpoints.image, one_image | known, {"parameters": [name, *query]}),
        (
            "/models/{model}/edit",
            "post",
            image_endpoints.edit_images,
            encoded,
            {"parameters": [name], "requestBody": body},
        ),
    ):
        called, described = endpoint.__name__, getdoc(endpoint) or ""
        paths[path] = {
            method: {
                "tags": ["Images"],
                "summary": described.partition("\n")[0],
                "description": described,
                "operationId": re.sub(r"\W", "_", called + path) + "_" + method,
                "responses": responses,
                **more,
            }
        }
    return deepcopy(paths)  # Shared parts are completed separately for each.


def _found(schema: str) -> Schema:
    return {"200": _json_answer("The answer.", _reference(schema))}


def _reference(schema: str) -> Schema:
    return {"$ref": f"#/components/schemas/{schema}"}


def _v2_paths() -> dict[str, Schema]:
    model = {"name": "model", "in": "path", "required": True, "schema": {"type": "string"}}

    def get(tag: str, summary: str, schema: Schema, of_model: bool = True, description: str = "") -> Schema:
        return {
            "get": {
                "tags": [tag],
                "summary": summary,
                "description": description,
                "parameters": [dict(model)] if of_model else [],
                "responses": {"200": _json_answer("The answer.", schema)},
            }
        }

    infer = {
        "post": {
            "tags": [V2],
            "summary": "Run the graph.",
            "description": "The latent is needed; `direction` and `alpha` [batch, edits] (or [batch]: one edit of each "
            "image), several edits add up; `label` [batch] and `truncation` [batch] of models that have them. The "
            "output is `image`.\n\nWith raw bytes: the header `Inference-Header-Content-Length` is the length of "
            "the JSON, an input's parameter `binary_data_size` that of its bytes, which follow the JSON in the order "
            "of the inputs.",
            "parameters": [dict(model)],
            "requestBody": {
                "required": True,
                "content": {"application/json": {"schema": _reference("InferRequest")}},
            },
            "responses": {
                "200": {
                    "description": "The image.",
                    "content": {
                        "application/json": {"schema": _reference("InferResponse")},
                        "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
                    },
                }
            },
        }
    }
    live = get(SERVER, "Whether the process is alive.", {**OBJECT, "required": ["live"]}, of_model=False)
    ready = get(
        SERVER,
        "Whether it should get requests.",
        READY,
        of_model=False,
        description="503 while models are loaded, if none could be, and once it is asked to stop.",
    )
    prometheus = get(SERVER, "Metrics for Prometheus.", OBJECT, of_model=False)
    prometheus["get"]["responses"]["200"] = {
        "description": "Prometheus's text format.",
        "content": {"text/plain": {"schema": {"type": "string"}}},
    }
    return {
        "/v2": get(V2, "Name, version and extensions of the server.", OBJECT, of_model=False),
        "/v2/models/{model}": get(V2, "Names, types and shapes of a model's inputs and output.", OBJECT),
        "/v2/models/{model}/infer": infer,
        "/v2/models/{model}/ready": get(V2, "Whether a model answers.", READY),
        "/v2/models/{model}/config": get(V2, "Its configuration in Triton's words.", OBJECT),
        "/v2/models/{model}/stats": get(V2, "Counts and times in Triton's words.", OBJECT),
        "/v2/models/stats": get(V2, "The same of all models.", OBJECT, of_model=False),
        "/v2/health/live": live,
        "/v2/health/ready": ready,
        "/metrics": prometheus,
    }


def _add_refusals(path: str, method: str, operation: Schema, settings: Settings) -> None:
    operation["responses"].pop("422", None)
    statuses = ["421"]
    if settings.token is not None and not path.startswith("/v2/health/"):
        statuses.append("401")
    if path.startswith("/v2/health/"):
        operation["security"] = []
    if "{model}" in path:
        statuses += ["404", "503"]
    if path.endswith(("/infer", "/edit", "/image")):
        statuses += ["400", "500", "504"]
    if method == "post":
        statuses += ["408", "413", "415"]
    for status in sorted(statuses):
        operation["responses"][status] = _json_answer(REFUSALS[status], _reference("Error"))
    if path.endswith("/ready"):
        operation["responses"]["503"] = _json_answer("It is not; `error` says why.", READY)


def _add_examples(paths: Mapping[str, Schema], model: HostedModel | None) -> None:
    """Add example bodies that can be sent to the first model as they are."""
    names = model.info.names if model else ("direction-0", "direction-1")
    signature = model.info.signature if model else SOME_SIGNATURE
    feeds = {
        name: array.astype(np.float64).round(3) if array.dtype == np.float32 else array
        for name, array in random_inputs(signature, np.random.default_rng(7), 1, 1).items()
    }
    inputs = [
        {
            "name": spec.name,
            "datatype": spec.datatype,
            "shape": feeds[spec.name].shape,
            "data": feeds[spec.name].ravel().tolist(),
        }
        for spec in signature.inputs
    ]
    latent = signature.latent.name
    which: Schema = {"seeds": [7, 8]} if latent == "z" else {latent: feeds[latent].tolist()}
    which |= {spec.name: feeds[spec.name].tolist()[0] for spec in signature.conditions if spec.required}
    _set_examples(paths["/v2/models/{model}/infer"], {"One edited image": {"id": "a", "inputs": inputs}})
    _set_examples(
        paths["/models/{model}/edit"],
        {
            "Images side by side": {**which, "edits": {names[-1]: 2.5}, "format": "png"},
            "A sweep": {**which, "sweep": {"direction": names[0], "steps": 7}, "format": "png"},
            "An animation": {**which, "sweep": {"direction": names[0], "steps": 24}, "format": "gif", "scale": 2},
        },
    )


def _set_examples(path: Schema, bodies: Mapping[str, Schema]) -> None:
    content = path["post"]["requestBody"]["content"]["application/json"]
    content["examples"] = {name: {"value": body} for name, body in bodies.items()}


def _json_answer(description: str, schema: Schema) -> Schema:
    return {"description": description, "content": {"application/json": {"schema": schema}}}
