"""Receiving from a client: its request's body, read whole and within the limits, and whether it disconnects."""

import asyncio
import json
from collections.abc import Awaitable, Mapping
from typing import Any, TypeVar

from starlette.types import Receive, Scope

from sefa_runtime.errors import InputError
from sefa_runtime.server.errors import BodyTimeoutError, BodyTooLargeError, ClientGoneError, MediaTypeError
from sefa_runtime.server.network import CONNECTION
from sefa_runtime.server.settings import Settings

Result = TypeVar("Result")

JSON_TYPE = b"application/json"
BINARY_TYPE = b"application/octet-stream"


async def read_body(
    scope: Scope, path: str, headers: Mapping[bytes, bytes], receive: Receive, settings: Settings
) -> bytes:
    """Read a request's body.

    Args:
        scope: The request's.
        path: Its path, without a prefix.
        headers: Its headers.
        receive: Returns its ASGI messages.
        settings: The limits.

    Raises:
        MediaTypeError, BodyTooLargeError, BodyTimeoutError, ClientGoneError: If it cannot be read.
    """
    if b"content-length" not in headers and b"transfer-encoding" not in headers:
        return b""
    if scope["method"] == "POST" and path.endswith(("/infer", "/edit")):  # No other endpoint uses a body.
        _check_type(path, headers)
    length = headers.get(b"content-length", b"0")
    if len(length) > 18 or int(length) > settings.max_body_bytes:
        raise _too_large(settings)
    connection = _connection(scope)
    if connection is not None and connection.has_whole_body:
        return await _read(receive, settings)
    try:
        async with asyncio.timeout(settings.timeout_s):
            return await _read(receive, settings)
    except TimeoutError:
        raise BodyTimeoutError(f"the body did not arrive within {settings.timeout_s:g} s") from None


def decode_json(body: bytes) -> dict[str, Any]:
    """Read one JSON object.

    Raises:
        InputError: If it is not one, is nested too deep, or has NaN or infinity in it, which JSON does not allow.
    """
    try:
        document = json.loads(body, parse_constant=_refuse_constant)
    except RecursionError:
        raise InputError("the JSON is nested too deep") from None
    except ValueError as error:  # Also invalid UTF-8, and integers of thousands of digits.
        raise InputError(f"not JSON: {str(error)[:200]}") from None
    if not isinstance(document, dict):
        raise InputError("the JSON must be an object")
    return document


async def while_connected(scope: Scope, receive: Receive, answer: Awaitable[Result]) -> Result:
    """Wait for an answer, and cancel it if the client disconnects first. Call it after reading the body.

    Raises:
        ClientGoneError: If the client disconnected.
    """
    waiting = asyncio.current_task()
    assert waiting is not None
    went = False

    def stop(lost: "asyncio.Future[None]") -> None:
        nonlocal went
        went = True
        waiting.cancel()

    connection = _connection(scope)
    # Other servers offer no more than their messages, which takes a task to wait for.
    watching = None if connection else asyncio.create_task(_disconnected(receive))
    lost = watching or connection.watch()
    lost.add_done_callback(stop)
    try:
        return await answer
    except asyncio.CancelledError:
        if went and waiting.uncancel() == 0:
            raise ClientGoneError("the client closed the connection") from None
        raise
    finally:
        lost.remove_done_callback(stop)
        if watching is not None:
            watching.cancel()


def _connection(scope: Scope) -> Any:
    """Return our own server's side of the connection; None if another server runs the application."""
    return scope.get("extensions", {}).get(CONNECTION)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _read(receive: Receive, settings: Settings) -> bytes:
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGoneError("the client closed the connection")
        part = message.get("body", b"")
        size += len(part)
        if size > settings.max_body_bytes:
            raise _too_large(settings)
        parts.append(part)
        if not message.get("more_body", False):
            return parts[0] if len(parts) == 1 else b"".join(parts)


def _too_large(settings: Settings) -> BodyTooLargeError:
    return BodyTooLargeError(f"at most {settings.max_body_mb:g} MB in a request")


def _check_type(path: str, headers: Mapping[bytes, bytes]) -> None:
    if headers.get(b"content-length") == b"0" and b"content-type" not in headers:
        return
    encoding = headers.get(b"content-encoding", b"identity").lower()
    if encoding != b"identity":
        raise MediaTypeError(f"Content-Encoding {encoding.decode('latin-1')[:64]!r} is not read here")
    given = headers.get(b"content-type", b"").split(b";")[0].strip().lower()
    # Triton's client sends tensors without a Content-Type.
    taken = (JSON_TYPE, BINARY_TYPE, b"") if path.endswith("/infer") else (JSON_TYPE,)
    if given not in taken:
        wanted = " or ".join(kind.decode() for kind in taken if kind)
        raise MediaTypeError(f"Content-Type must be {wanted}, got {given.decode('latin-1')[:64]!r}")


def _refuse_constant(text: str) -> None:
    raise ValueError(f"{text} is not a number in JSON")
