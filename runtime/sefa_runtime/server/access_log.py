"""The request log: one line of JSON per request, on the logger `sefa.access`."""

import json
import logging
import time
from functools import lru_cache
from typing import Any, TextIO

from sefa_runtime.printable import printable

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
    text = _encode(line)
    handlers = access.handlers
    if len(handlers) == 1 and isinstance(handlers[0], LineHandler) and not access.propagate:
        handlers[0].write(text)
    else:
        access.info("%s", text)


def flush() -> None:
    """Write the lines that are held back."""
    for handler in access.handlers:
        if isinstance(handler, LineHandler):
            handler.flush()


class LineHandler(logging.StreamHandler[TextIO]):
    """Writes messages as they are, and all of them at once when it is flushed.

    Where it is the logger's only handler, `write_line` makes no records for it, which would cost as much as the rest of
    the line.
    """

    def write(self, text: str) -> None:
        """Write a line, without characters that a terminal acts on."""
        try:
            self.stream.write(f"{printable(text)}\n")
        except Exception:  # As logging's own handlers do: no log must keep a request from its answer.
            self.handleError(logging.makeLogRecord({"msg": text}))

    def flush(self) -> None:
        """Hand the lines to the system."""
        try:
            super().flush()
        except Exception:
            self.handleError(logging.makeLogRecord({"msg": "lines of requests"}))

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record's message."""
        self.write(record.getMessage())


@lru_cache(maxsize=1)
def _second(since_1970: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(since_1970))
