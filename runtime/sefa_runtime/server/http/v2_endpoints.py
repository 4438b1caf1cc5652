"""The Open Inference Protocol v2 over HTTP, with Triton's config, statistics and binary tensors."""

import asyncio
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from sefa_runtime.errors import InputError
from sefa_runtime.server import model_documents
from sefa_runtime.server.http.receiving import while_connected
from sefa_runtime.server.http.responses import Endpoint, JsonResponse
from sefa_runtime.server.http.v2_body import decode_request, encode_response
from sefa_runtime.server.inference import generate, prepare
from sefa_runtime.server.models import VERSION, HostedModel, Models, State
from sefa_runtime.server.pipeline import Exchange

HEADER_LENGTH = "inference-header-content-length"
# Images of more numbers are encoded as JSON in another thread. More raw bytes than this are sent separately, uncopied.
LARGE = 1 << 18
# A model, and a version of it.
MODEL = ("/v2/models/{model}", "/v2/models/{model}/versions/{version}")


async def infer(request: Request) -> Response:
    """POST /v2/models/M/infer"""
    exchange: Exchange = request.scope["exchange"]
    model = exchange.find_model(**request.path_params, for_images=True)
    wanted = decode_request(exchange.body, _header_length(exchange))
    image = await while_connected(request.scope, request.receive, generate(exchange, model, prepare(model, wanted)))
    head = {"model_name": model.name, "model_version": VERSION, "id": wanted.id or exchange.request_id}
    arguments = (head, model.info.signature.output, image, wanted.binary)
    if wanted.binary or image.size <= LARGE:
        text, raw = encode_response(*arguments)
    else:
        text, raw = await asyncio.to_thread(encode_response, *arguments)
    return Response(text, media_type="application/json") if raw is None else TensorResponse(text, raw)


class TensorResponse(Response):
    """JSON followed by the raw bytes of a tensor, which are not copied if they are large."""

    def __init__(self, text: bytes, raw: memoryview) -> None:
        super().__init__()
        self._parts = (text, raw)
        self.raw_headers = [
            (b"content-type", b"application/octet-stream"),
            (HEADER_LENGTH.encode(), str(len(text)).encode()),
            (b"content-length", str(len(text) + raw.nbytes).encode()),
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response."""
        text, raw = self._parts
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        if raw.nbytes <= LARGE:
            await send({"type": "http.response.body", "body": b"".join(self._parts)})
            return
        await send({"type": "http.response.body", "body": text, "more_body": True})
        await send({"type": "http.response.body", "body": raw})


async def server_metadata(request: Request) -> Response:
    """GET /v2"""
    return JsonResponse(model_documents.SERVER_METADATA)


async def live(request: Request) -> Response:
    """GET /v2/health/live"""
    return JsonResponse({"live": True})


async def ready(request: Request) -> Response:
    """GET /v2/health/ready"""
    models = _models(request)
    document: dict[str, Any] = {"ready": models.ready}
    if not models.ready:
        document["error"] = "the server is about to stop" if models.draining else _not_ready(list(models))
    return JsonResponse(document, 200 if models.ready else 503)


async def model_ready(request: Request) -> Response:
    """GET /v2/models/M/ready"""
    model = _model(request)
    document: dict[str, Any] = {"name": model.name, "ready": model.ready}
    if not model.ready:
        document["error"] = _not_ready([model])
    return JsonResponse(document, 200 if model.ready else 503)


async def model_metadata(request: Request) -> Response:
    """GET /v2/models/M"""
    return JsonResponse(model_documents.model_metadata(_model(request)))


async def model_config(request: Request) -> Response:
    """GET /v2/models/M/config"""
    return JsonResponse(model_documents.model_config(_model(request)))


async def model_statistics(request: Request) -> Response:
    """GET /v2/models/M/stats"""
    return JsonResponse({"model_stats": [model_documents.model_statistics(_model(request))]})


async def all_statistics(request: Request) -> Response:
    """GET /v2/models/stats"""
    return JsonResponse({"model_stats": [model_documents.model_statistics(model) for model in _models(request)]})


def inference_routes() -> list[Endpoint]:
    """Return the endpoints of inference."""
    return [Endpoint(f"{prefix}/infer", infer, "POST") for prefix in MODEL]


def routes() -> list[Endpoint]:
    """Return the other endpoints."""
    found = [
        Endpoint("/v2/models/stats", all_statistics),
        Endpoint("/v2", server_metadata),
        Endpoint("/v2/health/live", live),
        Endpoint("/v2/health/ready", ready),
    ]
    for prefix in MODEL:
        found += [
            Endpoint(prefix, model_metadata),
            Endpoint(f"{prefix}/ready", model_ready),
            Endpoint(f"{prefix}/config", model_config),
            Endpoint(f"{prefix}/stats", model_statistics),
        ]
    return found


def _models(request: Request) -> Models:
    models: Models = request.app.models
    return models


def _model(request: Request) -> HostedModel:
    exchange: Exchange = request.scope["exchange"]
    return exchange.find_model(**request.path_params)


def _header_length(exchange: Exchange) -> int | None:
    text = exchange.headers.get(HEADER_LENGTH.encode())
    if text is None:
        return None
    if not (text.isdigit() and len(text) <= 12):
        given = text[:32].decode("latin-1")
        raise InputError(f"Inference-Header-Content-Length must be a number of bytes, got {given!r}")
    return int(text)


def _not_ready(models: list[HostedModel]) -> str:
    found = []
    for model in models:
        if model.state is State.FAILED:
            found.append(f"model {model.name} failed to load: {model.reason}")
        elif model.state is State.HANGING:
            found.append(f"model {model.name} does not answer: {model.reason}")
        elif model.state is not State.READY:
            found.append(f"model {model.name} is {model.state}")
    return "; ".join(found)
