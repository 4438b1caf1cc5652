"""What all endpoints share: their routes, answers in JSON, errors, and whether a client's cache is up to date."""

import json
import re
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from sefa_runtime.server.errors import BodyTimeoutError, BodyTooLargeError, MediaTypeError, MethodError, TokenError
from sefa_runtime.server.pipeline import Refusal

# In If-None-Match, which compares weak and strong tags alike.
ENTITY_TAG = re.compile(r'"[^"]*"')


class Endpoint(Route):
    """A route whose exceptions all reach the pipeline, without Starlette's own handling of exceptions."""

    def __init__(self, path: str, endpoint: Callable[[Request], Awaitable[Response]], method: str = "GET") -> None:
        super().__init__(path, endpoint, methods=[method])
        self.app = self._answer

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        response = await self.endpoint(Request(scope, receive))
        await response(scope, receive, send)


class JsonResponse(Response):
    """JSON with exactly the media type that kserve's client compares against."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """Return the document as bytes."""
        return json.dumps(content, separators=(",", ":")).encode()


def refusal_response(refusal: Refusal) -> JsonResponse:
    """Return `{"error": ...}`, as the protocol requires."""
    error = refusal.error
    response = JsonResponse({"error": refusal.message}, refusal.http)
    retry_after_s = getattr(error, "retry_after_s", None)
    if retry_after_s is not None:
        response.headers["retry-after"] = str(retry_after_s)
    if isinstance(error, TokenError):
        response.headers["www-authenticate"] = "Bearer"
    if isinstance(error, MethodError):
        response.headers["allow"] = error.allowed
    if isinstance(error, BodyTimeoutError | BodyTooLargeError | MediaTypeError):
        response.headers["connection"] = "close"  # The rest of the body stays unread.
    return response


def is_known(request: Request, tag: str) -> bool:
    """Return whether the client already has the content with this ETag, by its If-None-Match."""
    given = ",".join(request.headers.getlist("if-none-match"))
    return given.strip() == "*" or tag.removeprefix("W/") in ENTITY_TAG.findall(given)
