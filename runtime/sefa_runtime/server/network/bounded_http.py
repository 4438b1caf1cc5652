"""HTTP with limits on the head of a request, which uvicorn's fast parser lacks, and answers in one piece."""

import asyncio
import json
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from sefa_runtime.server.network import CONNECTION

MAX_HEAD_BYTES = 65_536
HEAD_TOO_LONG = f"the address and headers must be at most {MAX_HEAD_BYTES} bytes"
# From the start of a connection, or the first byte of a later request on it, to the end of the head.
MAX_HEAD_S = 30.0
# How long the rest of a request that was refused is read and thrown away. Closing a connection with unread bytes resets
# it, and the client would lose the answer that says why.
LINGER_S = 5.0


class BoundedHttp(HttpToolsProtocol):
    """Closes connections whose request line and headers are too long or too slow."""

    _head_bytes: int | None = 0  # received so far of a head; None: in a body
    _timer: asyncio.TimerHandle | None = None
    _lingers = False
    url = b""  # of the current request

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start waiting for a head."""
        self._connection = _Transport(transport, self)
        self._lost: asyncio.Future[None] = self.loop.create_future()
        super().connection_made(self._connection)  # type: ignore[arg-type]
        self._timer = self.loop.call_later(MAX_HEAD_S, self._give_up)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting, and tell who watches."""
        self._stop_timer()
        self._lost.set_result(None)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Count the bytes that arrive before a head is complete."""
        if self._lingers:
            return
        if self._head_bytes is not None:
            self._head_bytes += len(data)
        super().data_received(data)
        if not self._head_bytes:  # Most heads arrive at once.
            return
        if self._head_bytes > MAX_HEAD_BYTES:
            self._refuse(431, HEAD_TOO_LONG)
        elif self._timer is None:
            self._timer = self.loop.call_later(MAX_HEAD_S, self._give_up)

    def on_headers_complete(self) -> None:
        """Stop waiting: the head is complete."""
        self._head_bytes = None
        self._stop_timer()
        self.scope["extensions"] = {CONNECTION: self}  # type: ignore[dict-item]
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Get ready for the next request."""
        self._head_bytes = 0
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Send the head of an answer that has no body, and go on to the next request."""
        self._connection.flush()
        super().on_response_complete()

    @property
    def has_whole_body(self) -> bool:
        """Whether the last request has arrived whole, and so have those before it."""
        return self.cycle is not None and not self.cycle.more_body

    def watch(self) -> "asyncio.Future[None]":
        """Keep reading, so that the loss of the connection is noticed; return what is then done."""
        self.flow.resume_reading()
        return self._lost

    def linger(self, transport: asyncio.Transport) -> bool:
        """Say that nothing more comes, and read what the client still sends; False if it is not in the middle of it."""
        if self._head_bytes == 0:
            return False
        if not self._lingers:
            self._lingers = True
            self._stop_timer()
            transport.write_eof()
            transport.resume_reading()
            self._timer = self.loop.call_later(LINGER_S, transport.close)
        return True

    def _give_up(self) -> None:
        self._timer = None
        if self._head_bytes:
            self._refuse(408, f"the headers did not arrive within {MAX_HEAD_S:g} s")
        elif not self.transport.is_closing():  # No request was begun.
            self.transport.close()

    def send_400_response(self, msg: str) -> None:
        """Answer an invalid request, in place of uvicorn's own answer."""
        if len(self.url) >= MAX_HEAD_BYTES:  # Too long for the parser, which reports it before the head is counted.
            self._refuse(431, HEAD_TOO_LONG)
        else:
            self._refuse(400, "this is not a request of HTTP/1.1 as it should be")

    def _unsupported_upgrade_warning(self) -> None:
        """Do not warn: a request to upgrade to WebSockets is answered like any other, and no package is missing."""

    def _refuse(self, status: int, message: str) -> None:
        if self.transport.is_closing():
            return
        body = json.dumps({"error": message}).encode()
        head = f"content-type: application/json\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
        self.transport.write(STATUS_LINE[status] + head.encode() + body)
        self.transport.close()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class _Transport:
    """A connection that sends the head of an answer with its body, and lets the client read it before it is closed.

    The latter matters if a request was refused before its end.
    """

    def __init__(self, transport: asyncio.Transport, protocol: BoundedHttp) -> None:
        self._transport = transport
        self._protocol = protocol
        self._answered: RequestResponseCycle | None = None  # the request whose answer's head was written last
        self._head: bytes | None = None  # written, but not sent yet

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Send data; the head of an answer is kept until its body follows, so that one packet holds both."""
        cycle = self._protocol.cycle
        if self._head is not None:
            head, self._head = self._head, None
            self._transport.writelines((head, data))
        elif cycle is not None and cycle.response_started and cycle is not self._answered:
            self._head, self._answered = data, cycle
        else:
            self._transport.write(data)

    def flush(self) -> None:
        """Send what was kept."""
        if self._head is not None:
            self.write(b"")

    def is_closing(self) -> bool:
        """Return whether nothing more may be sent."""
        return self._protocol._lingers or self._transport.is_closing()

    def close(self) -> None:
        """Close the connection, now or soon."""
        self.flush()
        if self._transport.is_closing() or not self._protocol.linger(self._transport):
            self._transport.close()
