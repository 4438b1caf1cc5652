"""What all routes share: errors as answers, reading a body, waiting while the client is there."""

import asyncio
import json
import re
from collections.abc import Awaitable
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope

from sefa_runtime.errors import InputError, NotFiniteError, RunError
from sefa_runtime.server.errors import (
    BodyTimeoutError,
    BodyTooLargeError,
    ClientGoneError,
    DeadlineError,
    MediaTypeError,
    TokenError,
    UnavailableError,
    UnknownModelError,
)
from sefa_runtime.server.models import Models

Result = TypeVar("Result")

# In If-None-Match, where it does not matter whether it is a weak one.
ENTITY_TAG = re.compile(r'"[^"]*"')

STATUS: dict[type[Exception], int] = {
    InputError: 400,
    TokenError: 401,
    UnknownModelError: 404,
    BodyTimeoutError: 408,
    BodyTooLargeError: 413,
    MediaTypeError: 415,
    ClientGoneError: 499,  # Seen by the log alone.
    NotFiniteError: 500,
    RunError: 503,  # Out of memory, or a lost device.
    UnavailableError: 503,  # Also a full queue.
    DeadlineError: 504,
}


class JsonResponse(Response):
    """JSON with the media type that kserve's client compares letter by letter."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """Write the document."""
        return json.dumps(content, separators=(",", ":")).encode()


def status_of(error: Exception) -> int:
    """The HTTP status of one of our errors."""
    return next((status for kind, status in STATUS.items() if isinstance(error, kind)), 500)


def error_response(status: int, message: str, retry_after_s: int | None = None) -> JsonResponse:
    """`{"error": ...}`, as the protocol has it."""
    response = JsonResponse({"error": message}, status)
    if retry_after_s is not None:
        response.headers["retry-after"] = str(retry_after_s)
    if status == 401:
        response.headers["www-authenticate"] = "Bearer"
    return response


async def refuse(request: Request, error: Exception) -> Response:
    """Answer with one of our errors."""
    return error_response(status_of(error), str(error), getattr(error, "retry_after_s", None))


async def while_connected(receive: Receive, answer: Awaitable[Result]) -> Result:
    """Wait for an answer, and cancel it if the client goes away first; the body has been read.

    Raises:
        ClientGoneError: If it did.
    """
    waiting = asyncio.current_task()
    assert waiting is not None
    went = False

    async def watch() -> None:
        nonlocal went
        while (await receive())["type"] != "http.disconnect":
            pass
        went = True
        waiting.cancel()

    watching = asyncio.ensure_future(watch())
    try:
        return await answer
    except asyncio.CancelledError:
        if went and waiting.uncancel() == 0:
            raise ClientGoneError("the client closed the connection") from None
        raise
    finally:
        watching.cancel()


def route_path(scope: Scope) -> str:
    """Return a request's path without the prefix under which the application is served; empty if it is the prefix."""
    path: str = scope["path"]
    prefix: str = scope.get("root_path", "").rstrip("/")
    return path[len(prefix) :] if path == prefix or path.startswith(prefix + "/") else path


def is_known(request: Request, tag: str) -> bool:
    """Whether the client says that it has what the ETag stands for already."""
    given = ",".join(request.headers.getlist("if-none-match"))
    return given.strip() == "*" or tag.removeprefix("W/") in ENTITY_TAG.findall(given)


def models_of(request: Request) -> Models:
    """The models of the server."""
    models: Models = request.app.state.models
    return models


def note(request: Request, **facts: Any) -> None:
    """Add facts about a request to its line in the log."""
    request.scope.setdefault("sefa", {}).update(facts)
