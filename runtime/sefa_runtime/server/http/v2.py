"""The Open Inference Protocol v2 over REST, with Triton's config, statistics and binary tensors."""

import asyncio
import re
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from sefa_runtime.errors import InputError, RunError
from sefa_runtime.server import inference
from sefa_runtime.server.errors import ClientGoneError, RefusedError
from sefa_runtime.server.http.answers import JsonResponse, models_of, note, refuse, route_path, while_connected
from sefa_runtime.server.http.v2_tensors import decode_request, encode_response
from sefa_runtime.server.models import VERSION, HostedModel, State

INFER = re.compile(r"/v2/models/(?P<model>[^/]+)(?:/versions/(?P<version>[^/]+))?/infer")
HEADER_LENGTH = "inference-header-content-length"
# An image of more numbers is written as JSON by another thread, and as raw bytes without copying it behind the JSON.
LARGE = 1 << 18


class TensorResponse(Response):
    """JSON and the raw bytes of a tensor after it, which are not copied if they are large."""

    def __init__(self, text: bytes, raw: memoryview) -> None:
        super().__init__()
        self._parts = (text, raw)
        self.raw_headers = [
            (b"content-type", b"application/octet-stream"),
            (HEADER_LENGTH.encode(), str(len(text)).encode()),
            (b"content-length", str(len(text) + raw.nbytes).encode()),
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        text, raw = self._parts
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        if raw.nbytes <= LARGE:
            await send({"type": "http.response.body", "body": b"".join(self._parts)})
            return
        await send({"type": "http.response.body", "body": text, "more_body": True})
        await send({"type": "http.response.body", "body": raw})


async def infer(request: Request) -> Response:
    """POST /v2/models/M/infer"""
    model = _model(request)
    note(request, model=model.name)
    wanted = decode_request(await request.body(), _header_length(request), inference.datatypes(model.info))
    answer = await while_connected(request.receive, inference.infer(model, wanted.inputs, wanted.outputs))
    note(
        request,
        images=len(answer.image),
        run_images=answer.run_images,
        queue_ms=round(answer.queue_ns / 1e6, 3),
        run_ms=round(answer.run_ns / 1e6, 3),
    )
    head = {
        "model_name": model.name,
        "model_version": VERSION,
        "id": wanted.id or request.scope["sefa"]["request_id"],
    }
    spec = inference.output_spec(model.info)
    arguments = (head, spec.name, spec.datatype, answer.image, wanted.binary)
    if wanted.binary or answer.image.size <= LARGE:
        text, raw = encode_response(*arguments)
    else:
        text, raw = await asyncio.to_thread(encode_response, *arguments)
    return Response(text, media_type="application/json") if raw is None else TensorResponse(text, raw)


class InferenceLane:
    """Requests for `infer`, taken out before they reach the layers of the framework."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or pass the request on."""
        is_post = scope["type"] == "http" and scope["method"] == "POST"
        match = INFER.fullmatch(route_path(scope)) if is_post else None
        if match is None:
            await self.app(scope, receive, send)
            return
        scope["endpoint"] = infer
        scope["path_params"] = match.groupdict(VERSION)
        request = Request(scope, receive)
        try:
            response = await infer(request)
        except ClientGoneError:
            raise
        except (InputError, RunError, RefusedError) as error:
            response = await refuse(request, error)
        await response(scope, receive, send)


async def server_metadata(request: Request) -> Response:
    """GET /v2"""
    return JsonResponse(inference.SERVER_METADATA)


async def live(request: Request) -> Response:
    """GET /v2/health/live"""
    return JsonResponse({"live": True})


async def ready(request: Request) -> Response:
    """GET /v2/health/ready"""
    models = models_of(request)
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
    return JsonResponse(inference.model_metadata(_model(request)))


async def model_config(request: Request) -> Response:
    """GET /v2/models/M/config"""
    return JsonResponse(inference.model_config(_model(request)))


async def model_statistics(request: Request) -> Response:
    """GET /v2/models/M/stats"""
    return JsonResponse({"model_stats": [inference.model_statistics(_model(request))]})


async def all_statistics(request: Request) -> Response:
    """GET /v2/models/stats"""
    return JsonResponse({"model_stats": [inference.model_statistics(model) for model in models_of(request)]})


def routes() -> list[Route]:
    """All of them."""
    model = "/v2/models/{model}"
    found = [Route(f"{prefix}/infer", infer, methods=["POST"]) for prefix in (model, model + "/versions/{version}")]
    found += [
        Route("/v2/models/stats", all_statistics),
        Route("/v2", server_metadata),
        Route("/v2/health/live", live),
        Route("/v2/health/ready", ready),
    ]
    for prefix in (model, model + "/versions/{version}"):
        found += [
            Route(prefix, model_metadata),
            Route(f"{prefix}/ready", model_ready),
            Route(f"{prefix}/config", model_config),
            Route(f"{prefix}/stats", model_statistics),
        ]
    return found


def _model(request: Request) -> HostedModel:
    return models_of(request).get(request.path_params["model"], request.path_params.get("version", VERSION))


def _header_length(request: Request) -> int | None:
    text = request.headers.get(HEADER_LENGTH)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 12):
        raise InputError(f"Inference-Header-Content-Length must be a number of bytes, got {text[:32]!r}")
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
