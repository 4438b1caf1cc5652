"""The gRPC port, in the same event loop as HTTP: tokens, errors as status codes, the log of requests."""

import asyncio
import hmac
import logging
import time
import uuid
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias
from urllib.parse import unquote

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from sefa_runtime.errors import InputError, NotFiniteError, RunError, SefaRuntimeError
from sefa_runtime.server.errors import (
    DeadlineError,
    QueueFullError,
    RefusedError,
    TokenError,
    UnavailableError,
    UnknownModelError,
)
from sefa_runtime.server.grpc.service import Facts, Method, Service
from sefa_runtime.server.http.answers import status_of
from sefa_runtime.server.http.middleware import REQUEST_ID
from sefa_runtime.server.metrics import Metrics
from sefa_runtime.server.models import Models
from sefa_runtime.server.network.access_log import write_line
from sefa_runtime.server.network.addresses import at_port, resolve
from sefa_runtime.server.network.proxy import client_behind
from sefa_runtime.server.settings import Settings

# The first that fits.
CODES: dict[type[Exception], grpc.StatusCode] = {
    InputError: grpc.StatusCode.INVALID_ARGUMENT,
    TokenError: grpc.StatusCode.UNAUTHENTICATED,
    UnknownModelError: grpc.StatusCode.NOT_FOUND,
    QueueFullError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    UnavailableError: grpc.StatusCode.UNAVAILABLE,
    NotFiniteError: grpc.StatusCode.INTERNAL,
    RunError: grpc.StatusCode.UNAVAILABLE,  # Out of memory, or a lost device.
    DeadlineError: grpc.StatusCode.DEADLINE_EXCEEDED,
}
# What a client with a retry policy looks for: when to try again, below 0 if it should not.
PUSHBACK = "grpc-retry-pushback-ms"

faults = logging.getLogger("sefa.error")

Context: TypeAlias = grpc.aio.ServicerContext
Handler: TypeAlias = Callable[[bytes, Context], Awaitable[bytes]]


class GrpcServer:
    """Answers `inference.GRPCInferenceService` and `grpc.health.v1.Health`."""

    def __init__(self, models: Models, settings: Settings, metrics: Metrics) -> None:
        """Offer the models at the settings' `host` and `grpc_port`."""
        self.settings = settings
        self.metrics = metrics
        self.port = settings.grpc_port or 0  # Once started, the one that was taken.
        self._service = Service(models)
        self._server: grpc.aio.Server | None = None

    @property
    def address(self) -> str:
        """Where it listens, as clients want it."""
        return at_port(self.settings.host, self.port)

    async def start(self) -> None:
        """Answer from now on, in the running loop.

        Raises:
            InputError: If the address cannot be had.
        """
        options = (
            ("grpc.max_receive_message_length", self.settings.max_body_bytes),
            ("grpc.max_send_message_length", -1),
            ("grpc.so_reuseport", 0),  # Two servers at one port would each get some of the requests.
            ("grpc.compression_enabled_algorithms_bitset", 1),  # None: what is unpacked has no limit.
            # Clients that ping, to learn whether we are still there, may: by itself gRPC cuts them off at the third.
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.max_ping_strikes", 0),
        )
        server = grpc.aio.server(options=options)
        handlers: dict[str, dict[str, grpc.RpcMethodHandler]] = {}
        for method in self._service.methods():
            handler = grpc.unary_unary_rpc_method_handler(self._handler(method))
            handlers.setdefault(method.service, {})[method.name] = handler
        for service, calls in handlers.items():
            server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, calls),))
        try:
            for address in resolve(self.settings.host):
                self.port = server.add_insecure_port(at_port(address, self.port))
        except RuntimeError as error:
            raise InputError(f"cannot listen at {self.address} for gRPC: the address is taken or not ours") from error
        await server.start()
        self._server = server

    async def stop(self, grace_s: float | None) -> None:
        """Take no more calls; those under way have so long to end, or none at all."""
        if self._server is not None:
            await self._server.stop(grace_s)

    def _handler(self, method: Method) -> Handler:
        path = f"/{method.service}/{method.name}"

        async def handle(data: bytes, context: Context) -> bytes:
            started = time.perf_counter_ns()
            metadata = context.invocation_metadata() or ()
            facts: Facts = {"request_id": _request_id(metadata)}
            context.set_trailing_metadata((("x-request-id", facts["request_id"]),))
            client = await client_behind(self.settings, _peer(context), _values(metadata, "x-forwarded-for"))
            status, sent = 500, 0
            try:
                if not method.is_open:
                    self._check_token(metadata)
                answer = (await method.answer(_parse(method.request, data), facts)).SerializeToString()
                status, sent = 200, len(answer)
                return answer  # type: ignore[no-any-return]
            except asyncio.CancelledError:  # The client went away, or its deadline passed.
                status = 499
                raise
            except (InputError, RunError, RefusedError) as error:
                status = status_of(error)
                await _refuse(context, error, facts)
                raise
            except Exception:
                faults.exception("request %s: %s", facts["request_id"], path)
                await context.abort(
                    grpc.StatusCode.INTERNAL, f"a fault of the server; its log has it as {facts['request_id']}"
                )
                raise
            finally:
                seconds = (time.perf_counter_ns() - started) / 1e9
                self.metrics.count_request(facts.get("model", ""), method.name, status, seconds)
                write_line(client[:64], "gRPC", path, status, seconds, sent, facts)

        return handle

    def _check_token(self, metadata: Any) -> None:
        if self.settings.token is None:
            return
        given = _values(metadata, "authorization")
        scheme, _, token = given[0].partition(" ") if len(given) == 1 else ("", "", "")
        if not hmac.compare_digest(token.strip().encode(), self.settings.token.encode()) or scheme.lower() != "bearer":
            raise TokenError("the metadata `authorization: Bearer TOKEN` is missing or wrong")


def _parse(message: Any, data: bytes) -> Any:
    try:
        return message.FromString(data)
    except DecodeError as error:
        raise InputError("the request is no message of the protocol") from error


async def _refuse(context: Context, error: SefaRuntimeError, facts: Facts) -> None:
    metadata: tuple[tuple[str, str], ...] = (("x-request-id", facts["request_id"]),)
    if isinstance(error, UnavailableError):
        again = -1 if error.retry_after_s is None else error.retry_after_s * 1000
        metadata = (*metadata, (PUSHBACK, str(again)))
    code = next(code for kind, code in CODES.items() if isinstance(error, kind))
    await context.abort(code, str(error), metadata)


def _request_id(metadata: Any) -> str:
    for name, value in metadata:
        if name == "x-request-id" and REQUEST_ID.fullmatch(value.encode()):
            return str(value)
    return uuid.uuid4().hex


def _values(metadata: Any, wanted: str) -> list[str]:
    return [value for name, value in metadata if name == wanted]


def _peer(context: Context) -> str:
    """The address in `ipv4:127.0.0.1:4242` or `ipv6:%5B::1%5D:4242`."""
    host = context.peer().partition(":")[2].rpartition(":")[0]
    return unquote(host).strip("[]")
