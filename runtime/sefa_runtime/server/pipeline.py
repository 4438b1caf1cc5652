"""What every HTTP or gRPC request goes through: request id, token, errors mapped to statuses, counters, log.

A transport turns a request into an `Exchange`, and hands it to `Pipeline.answer` with two functions: one that answers,
and one that sends an error. Nothing else in the server checks a token, maps an error, counts a request or writes to
the request log.
"""

import asyncio
import hmac
import logging
import random
import re
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sefa_runtime.errors import InputError, RunError
from sefa_runtime.server.access_log import flush, write_line
from sefa_runtime.server.errors import ClientGoneError, RefusedError, TokenError, status_of
from sefa_runtime.server.metrics import Metrics
from sefa_runtime.server.models import VERSION, HostedModel, Models

REQUEST_ID = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}")

faults = logging.getLogger("sefa.error")


@dataclass(eq=False)
class Exchange:
    """One request over HTTP or gRPC, and its outcome."""

    models: Models
    method: str  # the HTTP method, or "gRPC"
    path: str
    client: str  # the client's address; empty if unknown
    request_id: str  # the client's; a new one if it gave none, or one unfit for a log
    authorization: Sequence[str]  # the values of that header
    is_open: bool = False  # whether it needs no token
    route: str = "none"  # the endpoint's name
    headers: Mapping[bytes, bytes] = field(default_factory=dict)  # HTTP only; the last one of each name
    body: bytes = b""  # likewise
    status: int = 0  # the HTTP status, for gRPC too; 0: nothing sent yet
    sent: int = 0  # bytes of the answer
    model: HostedModel | None = None  # the model asked for images
    facts: dict[str, Any] = field(default_factory=dict)  # further fields for the log

    def __post_init__(self) -> None:
        if not REQUEST_ID.fullmatch(self.request_id):
            self.request_id = f"{random.getrandbits(128):032x}"  # Not from the system, which would give up the GIL.
        self.facts["request_id"] = self.request_id

    def find_model(self, model: str, version: str = VERSION, *, for_images: bool = False) -> HostedModel:
        """Return the model that the request is about.

        Args:
            model: Its name.
            version: Its version.
            for_images: Whether the request is for images, and so counts in the model's statistics.

        Raises:
            UnknownModelError: If there is no such model.
        """
        found = self.models.get(model, version)
        self.facts["model"] = found.name
        if for_images:
            self.model = found
        return found


@dataclass(frozen=True)
class Refusal:
    """What is sent instead of an answer."""

    error: Exception
    message: str
    http: int  # status
    grpc: str  # name of the status code


class Pipeline:
    """The single path of every request through the server."""

    def __init__(self, token: str | None, metrics: Metrics) -> None:
        """Create the pipeline.

        Args:
            token: What clients must send; None: no token.
            metrics: Counts the requests.
        """
        self.token = None if token is None else token.encode()
        self.metrics = metrics
        self._finished: list[tuple[Exchange, int]] = []  # not yet counted and logged, with their nanoseconds

    async def answer(
        self, exchange: Exchange, work: Callable[[], Awaitable[None]], refuse: Callable[[Refusal], Awaitable[None]]
    ) -> None:
        """Answer a request, or refuse it; then count and log it.

        Args:
            exchange: The request.
            work: Sends the answer and sets the exchange's status.
            refuse: Sends an error.
        """
        started = time.perf_counter_ns()
        try:
            self._check_token(exchange)
            await work()
        except (asyncio.CancelledError, ClientGoneError) as error:
            exchange.status = 499
            if isinstance(error, asyncio.CancelledError):
                raise
        except Exception as error:
            message = str(error)
            if not isinstance(error, InputError | RunError | RefusedError):
                faults.exception("request %s: %s %s", exchange.request_id, exchange.method, exchange.path[:256])
                message = f"a fault of the server; its log has it as {exchange.request_id}"
            refusal = Refusal(error, message, *status_of(error))
            too_late = exchange.status != 0  # The answer has already begun.
            exchange.status = refusal.http
            if not too_late:
                await refuse(refusal)
        finally:
            elapsed_ns = time.perf_counter_ns() - started
            if exchange.model is not None:
                exchange.model.count(exchange.status < 400, elapsed_ns)
            if not self._finished:
                asyncio.get_running_loop().call_soon(self._record)
            self._finished.append((exchange, elapsed_ns))

    def _record(self) -> None:
        """Count and log the requests that a turn of the event loop has finished, in a row.

        Between runs of a model nothing of Python is left in the processor's caches, and the second request of a row
        costs a fraction of the first.
        """
        finished, self._finished = self._finished, []
        for exchange, elapsed_ns in finished:
            seconds = elapsed_ns / 1e9
            self.metrics.count_request(exchange.facts.get("model", ""), exchange.route, exchange.status, seconds)
        for exchange, elapsed_ns in finished:
            write_line(
                exchange.client[:64],
                exchange.method,
                exchange.path,
                exchange.status,
                elapsed_ns / 1e9,
                exchange.sent,
                exchange.facts,
            )
        flush()

    def _check_token(self, exchange: Exchange) -> None:
        if self.token is None or exchange.is_open:
            return
        given = exchange.authorization
        scheme, _, token = given[0].partition(" ") if len(given) == 1 else ("", "", "")
        if not hmac.compare_digest(token.strip().encode(), self.token) or scheme.lower() != "bearer":
            raise TokenError("the header `Authorization: Bearer TOKEN` is missing or wrong")
