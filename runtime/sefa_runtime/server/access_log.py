"""The request log: one line of JSON per request, on the logger `sefa.access`."""

import json
import logging
import time
from functools import lru_cache
from typing import Any

access = logging.getLogger("sefa.access")

_encode = json.JSONEncoder(separators=(",", ":")).encode


def write_line(
    client: str, method: str, path: str, status: int, seconds: float, sent: int, facts: dict[str, Any]
) -> None:
    """Log a finished request.

    Args:
        client: The client's address; empty if unknown.
        method: The HTTP method, or "gRPC".
        path: The path requested.
        status: The HTTP status, or for gRPC its equivalent.
        seconds: From the request's headers to the end of its answer.
        sent: Size of the answer in bytes.
        facts: Further fields: request id, model, images, times.
    """
    if not access.isEnabledFor(logging.INFO):
        return
    now_ms = time.time_ns() // 1_000_000
    line = {
        "time": f"{_second(now_ms // 1000)}.{now_ms % 1000:03d}Z",
        "client": client,
        "method": method,
        "path": path[:256],
        "status": status,
        "ms": round(seconds * 1e3, 3),
        "bytes": sent,
        **facts,
    }
    access.info("%s", _encode(line))


@lru_cache(maxsize=1)
def _second(since_1970: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(since_1970))
