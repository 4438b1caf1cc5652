"""The ASGI application: turns each HTTP request into an exchange, and routes it inside the pipeline."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from functools import partial

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Router
from starlette.types import Message, Receive, Scope, Send

from sefa_runtime.errors import InputError
from sefa_runtime.machine.cores import usable_cores
from sefa_runtime.server.errors import MethodError, NoSuchAddressError
from sefa_runtime.server.http.receiving import read_body
from sefa_runtime.server.http.responses import Endpoint, refusal_response
from sefa_runtime.server.metrics import Metrics
from sefa_runtime.server.models import Models
from sefa_runtime.server.network.hosts import Hosts
from sefa_runtime.server.network.proxy import Proxies
from sefa_runtime.server.pipeline import Exchange, Pipeline, Refusal
from sefa_runtime.server.settings import Settings

# Besides the page, these need no token: they reveal nothing about the models.
OPEN_PREFIXES = ("/v2/health/", "/docs/")
OPEN_PATHS = ("/openapi.json", "/docs")
# How many addresses are remembered with their endpoints.
MOST_FOUND = 256


class Application:
    """The server over HTTP.

    Attributes:
        models: The models that it serves.
        metrics: Its counters, shared with the gRPC port.
        pipeline: What every request goes through, shared with the gRPC port.
        routes: The endpoints.
        encoders: How many images may be encoded at once.
    """

    def __init__(
        self,
        models: Models,
        settings: Settings,
        metrics: Metrics,
        routes: Sequence[BaseRoute],
        *,
        open_paths: Collection[str],
        headers: Collection[str],
        is_local: bool,
    ) -> None:
        """Create the application.

        Args:
            models: The server's models.
            settings: The limits, the token, which proxies are trusted, and which web pages may call.
            metrics: Counts the requests.
            routes: The endpoints, tried in order.
            open_paths: Paths that need no token.
            headers: Headers that pages of other origins may send and read, besides the usual ones.
            is_local: Whether it is reached from this machine only.
        """
        self.models = models
        self.metrics = metrics
        self.pipeline = Pipeline(settings.token, metrics)
        self.routes = routes
        self.encoders = asyncio.Semaphore(usable_cores())
        self._settings = settings
        self._router = Router(routes, redirect_slashes=False)
        self._endpoints = frozenset(route.endpoint for route in routes if isinstance(route, Endpoint))
        # Endpoint and the parts of its path by method and path, so that the router looks for each only once.
        self._found: dict[tuple[str, str], tuple[Callable[[Request], Awaitable[Response]], dict[str, str]]] = {}
        self._open_paths = frozenset(("", *OPEN_PATHS, *open_paths))
        self._proxies = Proxies(settings)
        self._hosts = Hosts(settings, is_local=is_local)
        self._cors = None
        if settings.cors:
            self._cors = CORSMiddleware(
                self._router,
                allow_origins=settings.cors,
                allow_methods=("GET", "HEAD", "POST"),
                allow_headers=("authorization", "content-type", "if-none-match", "x-request-id", *headers),
                expose_headers=("etag", "x-request-id", "retry-after", *headers),
            )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        scope["app"] = self  # For the endpoints; and so that Starlette raises 404 and 405 instead of answering.
        if scope["type"] != "http":
            await self._router(scope, receive, send)
            return
        path = await self._proxies.apply(scope)
        headers = dict(scope["headers"])
        given = [value.decode("latin-1") for name, value in scope["headers"] if name == b"authorization"]
        client = scope.get("client")
        exchange = Exchange(
            self.models,
            scope["method"],
            scope["path"],
            client[0] if client else "",
            headers.get(b"x-request-id", b"").decode("latin-1"),
            given,
            is_open=path in self._open_paths or path.startswith(OPEN_PREFIXES),
            headers=headers,
        )
        scope["exchange"] = exchange
        added = [(b"x-request-id", exchange.request_id.encode())]

        async def send_counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                exchange.status = message["status"]
                message["headers"] = [*message.get("headers", ()), *added]
            else:
                exchange.sent += len(message.get("body", b""))
            await send(message)

        respond: Send = send_counted
        preflight: Response | None = None
        if self._cors is not None:
            asked = Headers(scope=scope)
            if "origin" in asked:
                respond = partial(self._cors.send, send=send_counted, request_headers=asked)
            else:
                added.append((b"vary", b"Origin"))  # Some versions of Starlette leave it out.
            if exchange.method == "OPTIONS" and "origin" in asked and "access-control-request-method" in asked:
                preflight = self._cors.preflight_response(asked)
                exchange.is_open = True  # Browsers send no token with a preflight.

        async def work() -> None:
            host = headers.get(b"host")
            self._hosts.check(None if host is None else host.decode("latin-1"))
            if preflight is not None:
                if preflight.status_code >= 400:
                    raise InputError(bytes(preflight.body).decode())
                await preflight(scope, receive, send_counted)
                return
            if not path:  # Our own prefix without a slash: the page is below it, and its links are relative.
                await RedirectResponse(f"./{scope['path'].rpartition('/')[2]}/")(scope, receive, respond)
                return
            exchange.body = await read_body(scope, path, headers, receive, self._settings)
            key = exchange.method, path
            try:
                if key in self._found:
                    scope["endpoint"], scope["path_params"] = endpoint, _ = self._found[key]
                    response: Response = await endpoint(Request(scope, receive))
                    await response(scope, receive, respond)
                    return
                await self._router(scope, receive, respond)
                if scope["endpoint"] in self._endpoints and len(self._found) < MOST_FOUND:
                    self._found[key] = scope["endpoint"], scope["path_params"]
            except HTTPException as error:
                if error.status_code == 404:
                    raise NoSuchAddressError("there is nothing at this address") from None
                allowed = (error.headers or {})["Allow"]
                raise MethodError(", ".join(sorted(allowed.split(", ")))) from None
            finally:
                exchange.route = getattr(scope.get("endpoint"), "__name__", "none")

        async def refuse(refusal: Refusal) -> None:
            response = refusal_response(refusal)
            if preflight is not None:
                response.headers.update({**preflight.headers, **response.headers})
            await response(scope, receive, send_counted if preflight else respond)

        await self.pipeline.answer(exchange, work, refuse)
