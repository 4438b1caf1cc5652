"""The application: routes, documents and what every request passes."""

import asyncio
from functools import partial

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from sefa_runtime.errors import InputError, RunError
from sefa_runtime.machine.cores import usable_cores
from sefa_runtime.server.errors import ClientGoneError, RefusedError
from sefa_runtime.server.http import documents, images, openapi, v2
from sefa_runtime.server.http.answers import error_response, refuse, route_path
from sefa_runtime.server.http.middleware import Body, RequestLog, Token
from sefa_runtime.server.metrics import Metrics
from sefa_runtime.server.models import Models
from sefa_runtime.server.network.proxy import Proxied
from sefa_runtime.server.settings import Settings
from sefa_runtime.version import VERSION


class Application(FastAPI):
    """FastAPI behind what every request passes, and behind `infer`.

    The layers that a FastAPI has around its routes take longer than all that a request for a small image needs
    otherwise.

    Attributes:
        front: What a request meets first.
    """

    front: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        scope["app"] = self
        await self.front(scope, receive, send)


def create_app(models: Models, settings: Settings) -> FastAPI:
    """Join the routes over some models. Whoever runs it loads and drains the models: `run.serve`.

    Args:
        models: Of the server; also those that are not loaded yet.
        settings: The limits, the token, who may call from a web page.
    """
    app = Application(
        title="sefa",
        version=VERSION,
        summary="Edit what a GAN generates.",
        description=openapi.DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        servers=[{"url": "."}],  # Beside this description, whatever the prefix.
    )
    app.state.models = models
    app.state.encoders = asyncio.Semaphore(usable_cores())
    app.state.metrics = metrics = Metrics(models)
    # The routes of v2 stand first: they are tried in order.
    app.router.routes[:0] = v2.routes()
    app.include_router(images.router)
    page = documents.page_routes()
    app.router.routes += [*documents.docs_routes(), *page]
    app.router.routes.append(documents.metrics_route(metrics))
    openapi.describe(app, models, settings)

    app.add_exception_handler(InputError, refuse)
    app.add_exception_handler(RunError, refuse)
    app.add_exception_handler(RefusedError, refuse)
    app.add_exception_handler(ClientGoneError, _let_go)
    app.add_exception_handler(HTTPException, _refuse_http)
    app.add_exception_handler(RequestValidationError, _refuse_fields)

    front: ASGIApp = Body(v2.InferenceLane(_slash_added(partial(FastAPI.__call__, app))), settings)
    if settings.token is not None:
        front = Token(front, settings.token, ["", *(route.path for route in page)])
    if settings.cors:
        front = Cors(
            front,
            allow_origins=settings.cors,
            allow_methods=("GET", "HEAD", "POST"),
            allow_headers=("authorization", "content-type", "if-none-match", "x-request-id", v2.HEADER_LENGTH),
            expose_headers=("etag", "x-request-id", "retry-after", v2.HEADER_LENGTH),
        )
    app.front = Proxied(RequestLog(front, metrics), settings)
    return app


class Cors(CORSMiddleware):
    """Starlette's, but what it refuses is refused as everywhere here."""

    def preflight_response(self, request_headers: Headers) -> Response:
        """Answer what a browser asks before it asks."""
        answer = super().preflight_response(request_headers)
        if answer.status_code < 400:
            return answer
        refused = error_response(answer.status_code, bytes(answer.body).decode())
        refused.headers.update({name: text for name, text in answer.headers.items() if name not in refused.headers})
        return refused


def _slash_added(app: ASGIApp) -> ASGIApp:
    """Send who asks for the prefix itself to the page below it, whose links are relative."""

    async def pass_on(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not route_path(scope):
            await RedirectResponse(f"./{scope['path'].rpartition('/')[2]}/")(scope, receive, send)
            return
        await app(scope, receive, send)

    return pass_on


async def _let_go(request: Request, error: Exception) -> Response:
    raise error


async def _refuse_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    message = {404: "there is nothing at this address", 405: "another method is needed here"}
    response = error_response(error.status_code, message.get(error.status_code, str(error.detail)))
    response.headers.update(error.headers or {})
    if response.headers.get("allow") == "GET":  # FastAPI forgets the HEAD that it answers, too.
        response.headers["allow"] = "GET, HEAD"
    return response


async def _refuse_fields(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    faults = error.errors()
    if faults[0]["type"] == "json_invalid":
        what, where = faults[0]["ctx"]["error"], faults[0]["loc"][1]
        return error_response(400, f"the body is no JSON: {what}, at character {where}")
    found = [f"{'.'.join(map(str, fault['loc'][1:]))}: {fault['msg']}"[:200] for fault in faults[:4]]
    return error_response(400, "; ".join(found))
