"""What every request passes before its route: its id and line in the log, the token, its body. Plain ASGI."""

import asyncio
import hmac
import logging
import re
import secrets
import time
from collections.abc import Sequence
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sefa_runtime.server.errors import (
    BodyTimeoutError,
    BodyTooLargeError,
    ClientGoneError,
    MediaTypeError,
    RefusedError,
    TokenError,
)
from sefa_runtime.server.http.answers import error_response, route_path, status_of
from sefa_runtime.server.metrics import Metrics
from sefa_runtime.server.network.access_log import write_line
from sefa_runtime.server.settings import Settings

REQUEST_ID = re.compile(rb"[A-Za-z0-9._:/+=@-]{1,128}")
JSON_TYPE = b"application/json"
BINARY_TYPE = b"application/octet-stream"
# What may be asked without the token: whether the server lives, and pages that hold nothing of the models.
OPEN_PREFIXES = ("/v2/health/", "/docs/")
OPEN_PATHS = ("/openapi.json", "/docs")

faults = logging.getLogger("sefa.error")


class RequestLog:
    """Give each request an id, count it, and write a line of JSON when it is over; a fault of ours becomes a 500."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app = app
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = time.perf_counter_ns()
        request_id = _request_id(scope)
        facts: dict[str, Any] = {"request_id": request_id}
        scope["sefa"] = facts
        status, sent = 0, 0

        async def send_with_id(message: Message) -> None:
            nonlocal status, sent
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", request_id.encode())]
            else:
                sent += len(message.get("body", b""))
            await send(message)

        try:
            await self.app(scope, receive, send_with_id)
        except ClientGoneError:
            status = 499
        except Exception:
            faults.exception("request %s: %s %s", request_id, scope["method"], scope["path"][:256])
            if not status:
                await error_response(500, f"a fault of the server; its log has it as {request_id}")(
                    scope, receive, send_with_id
                )
            status = 500
        seconds = (time.perf_counter_ns() - started) / 1e9
        self.metrics.count_request(facts.get("model", ""), _route_name(scope), status, seconds)
        client = scope.get("client")
        write_line(client[0][:64] if client else "", scope["method"], scope["path"], status, seconds, sent, facts)


class Token:
    """Refuse requests without the bearer token, but for those that show nothing of the models."""

    def __init__(self, app: ASGIApp, token: str, open_paths: Sequence[str] = ()) -> None:
        self.app = app
        self.wanted = token.encode()
        self.open_paths = frozenset((*OPEN_PATHS, *open_paths))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer 401."""
        if scope["type"] == "http" and not self._is_open(route_path(scope)):
            given = [value for name, value in scope["headers"] if name == b"authorization"]
            scheme, _, token = given[0].partition(b" ") if len(given) == 1 else (b"", b"", b"")
            if not hmac.compare_digest(token.strip(), self.wanted) or scheme.lower() != b"bearer":
                error = TokenError("the header `Authorization: Bearer TOKEN` is missing or wrong")
                await error_response(status_of(error), str(error))(scope, receive, send)
                return
        await self.app(scope, receive, send)

    def _is_open(self, path: str) -> bool:
        return path in self.open_paths or path.startswith(OPEN_PREFIXES)


class Body:
    """Read a request's body, within its limits and of the types we take, before the route sees it."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app = app
        self.settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on with its body in one piece, or answer 408, 413 or 415."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        if b"content-length" not in headers and b"transfer-encoding" not in headers:
            await self.app(scope, receive, send)
            return
        try:
            _check_type(scope, headers)
            body = await self._read(headers, receive)
        except ClientGoneError:
            raise
        except RefusedError as error:
            response = error_response(status_of(error), str(error))
            response.headers["connection"] = "close"  # The rest of the body is not read.
            await response(scope, receive, send)
            return
        messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive_whole() -> Message:
            return messages.pop() if messages else await receive()

        await self.app(scope, receive_whole, send)

    async def _read(self, headers: dict[bytes, bytes], receive: Receive) -> bytes:
        limit = self.settings.max_body_bytes
        too_large = f"at most {self.settings.max_body_mb:g} MB in a request"
        length = headers.get(b"content-length", b"0")
        if len(length) > 18 or int(length) > limit:
            raise BodyTooLargeError(too_large)
        parts: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(self.settings.timeout_s):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise ClientGoneError("the client closed the connection")
                    part = message.get("body", b"")
                    size += len(part)
                    if size > limit:
                        raise BodyTooLargeError(too_large)
                    parts.append(part)
                    if not message.get("more_body", False):
                        return parts[0] if len(parts) == 1 else b"".join(parts)
        except TimeoutError:
            raise BodyTimeoutError(f"the body did not arrive within {self.settings.timeout_s:g} s") from None


def _check_type(scope: Scope, headers: dict[bytes, bytes]) -> None:
    path = route_path(scope)
    if scope["method"] != "POST" or not path.endswith(("/infer", "/edit")):
        return  # Nothing there reads a body. Whether there is anything, and for which method, is for the router to say.
    if headers.get(b"content-length") == b"0" and b"content-type" not in headers:
        return
    encoding = headers.get(b"content-encoding", b"identity").lower()
    if encoding != b"identity":
        raise MediaTypeError(f"Content-Encoding {encoding.decode('latin-1')[:64]!r} is not read here")
    given = headers.get(b"content-type", b"").split(b";")[0].strip().lower()
    # Triton's client sends tensors without a type.
    taken = (JSON_TYPE, BINARY_TYPE, b"") if path.endswith("/infer") else (JSON_TYPE,)
    if given not in taken:
        wanted = " or ".join(kind.decode() for kind in taken if kind)
        raise MediaTypeError(f"Content-Type must be {wanted}, got {given.decode('latin-1')[:64]!r}")


def _request_id(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"x-request-id" and REQUEST_ID.fullmatch(value):
            return str(value.decode())
    return secrets.token_hex(16)


def _route_name(scope: Scope) -> str:
    return getattr(scope.get("endpoint"), "__name__", "none")
