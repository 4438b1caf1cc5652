"""Answers that all endpoints share: JSON, errors, and whether a client's cache is up to date."""

import json
import re
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from sefa_runtime.server.errors import BodyTimeoutError, BodyTooLargeError, MediaTypeError, MethodError, TokenError
from sefa_runtime.server.pipeline import Refusal

# In If-None-Match, which compares weak and strong tags alike.
ENTITY_TAG = re.compile(r'"[^"]*"')


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
