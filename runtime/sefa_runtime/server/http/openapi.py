"""/openapi.json: what FastAPI finds out about the image endpoints, the protocol's own, and examples that work."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from fastapi import FastAPI

from sefa_runtime.inputs.latents import latents_from_seeds
from sefa_runtime.server.models import HostedModel, Models
from sefa_runtime.server.settings import Settings

DESCRIPTION = """Images from GANs that were exported with `sefa export`, moved along directions of their latent space.

- **Images**: for people and web pages; answers are WebP, PNG, JPEG or GIF.
- **Open Inference Protocol v2**: for inference clients (Triton's, KServe's); tensors as JSON or as raw bytes after it
  (the binary tensor extension). All of `/v2/models/{model}/...` is also at `/v2/models/{model}/versions/1/...`.

Errors are `{"error": "what was wanted and what came"}`. Each answer has an `X-Request-ID`: the request's own, or a new
one."""
V2 = "Open Inference Protocol v2"
SERVER = "Server"
# Names of directions and models in examples, where there is no model to take them from.
SOME_MODEL = "faces"
SOME_LATENT = {"name": "z", "datatype": "FP32", "shape": [1, 100], "data": [0.0] * 100}

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
        "inputs": {"type": "array", "items": {"$ref": "#/components/schemas/Tensor"}},
        "outputs": {
            "type": "array",
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
    "500": "There is NaN or infinity in the image; or a fault of the server.",
    "503": "The model is not ready, or the queue is full: try again after `Retry-After` seconds.",
    "504": "No answer in time.",
}


def describe(app: FastAPI, models: Models, settings: Settings) -> None:
    """Let an application's /openapi.json tell all of it."""
    generate = app.openapi

    def openapi() -> Schema:
        if app.openapi_schema is None or models.loading:
            app.openapi_schema = None
            app.openapi_schema = _complete(generate(), models, settings)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _complete(document: Schema, models: Models, settings: Settings) -> Schema:
    # Behind a token the names of the models are nobody's business.
    loaded = [model for model in models if model.loaded and settings.token is None]
    schemas = document["components"]["schemas"]
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    schemas |= {"Error": ERROR, "Tensor": TENSOR, "InferRequest": INFER_REQUEST, "InferResponse": INFER_RESPONSE}
    document["paths"] |= _v2_paths()
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            _add_refusals(path, method, operation, settings)
            for parameter in operation.get("parameters", ()):
                if parameter["name"] == "model":
                    parameter["schema"] = {"type": "string"}
                    if loaded:
                        parameter["schema"]["enum"] = [model.name for model in loaded]
                    parameter["example"] = loaded[0].name if loaded else SOME_MODEL
    _add_examples(document["paths"], loaded[0] if loaded else None)
    if settings.token is not None:
        document["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        document["security"] = [{"token": []}]
    return document


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
                "content": {"application/json": {"schema": {"$ref": "#/components/schemas/InferRequest"}}},
            },
            "responses": {
                "200": {
                    "description": "The image.",
                    "content": {
                        "application/json": {"schema": {"$ref": "#/components/schemas/InferResponse"}},
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
    statuses = []
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
        operation["responses"][status] = _json_answer(REFUSALS[status], {"$ref": "#/components/schemas/Error"})
    if path.endswith("/ready"):
        operation["responses"]["503"] = _json_answer("It is not; `error` says why.", READY)


def _add_examples(paths: Mapping[str, Schema], model: HostedModel | None) -> None:
    """Bodies that can be sent as they are to the first model."""
    names = model.info.names if model else ("direction-0", "direction-1")
    latent: Schema = SOME_LATENT
    extra: list[Schema] = []
    which: Schema = {"seeds": [7, 8]}
    if model:
        info = model.info
        numbers = np.zeros(info.latent_shape, np.float32)
        if info.latent == "z":
            numbers = latents_from_seeds([7], info.z_dim)[0].round(3)
        else:
            which = {info.latent_name: [numbers.tolist()]}
        data = [round(float(number), 3) for number in numbers.reshape(-1)]
        latent = {"name": info.latent_name, "datatype": "FP32", "shape": [1, *info.latent_shape], "data": data}
        if info.takes_label:
            extra = [{"name": "label", "datatype": "INT64", "shape": [1], "data": [0]}]
            which["label"] = 0
    edit = {
        "direction": {"name": "direction", "datatype": "INT64", "shape": [1, 1], "data": [len(names) - 1]},
        "alpha": {"name": "alpha", "datatype": "FP32", "shape": [1, 1], "data": [2.5]},
    }
    _set_examples(
        paths["/v2/models/{model}/infer"],
        {"One edited image": {"id": "a", "inputs": [latent, *edit.values(), *extra]}},
    )
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
