"""The gRPC port, in the same event loop as HTTP: turns each call into an exchange for the pipeline."""

from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias
from urllib.parse import unquote

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from sefa_runtime.errors import InputError
from sefa_runtime.server.errors import UnavailableError
from sefa_runtime.server.grpc.service import Method, Service
from sefa_runtime.server.models import Models
from sefa_runtime.server.network.addresses import at_port, resolve
from sefa_runtime.server.network.proxy import Proxies
from sefa_runtime.server.pipeline import Exchange, Pipeline, Refusal
from sefa_runtime.server.settings import Settings

# Tells a client with a retry policy when to try again; negative if it should not.
PUSHBACK = "grpc-retry-pushback-ms"

Context: TypeAlias = grpc.aio.ServicerContext
Handler: TypeAlias = Callable[[bytes, Context], Awaitable[bytes]]


class GrpcServer:
    """Answers `inference.GRPCInferenceService` and `grpc.health.v1.Health`."""

    def __init__(self, models: Models, settings: Settings, pipeline: Pipeline) -> None:
        """Offer the models at the settings' `host` and `grpc_port`."""
        self.settings = settings
        self.pipeline = pipeline
        self.port = settings.grpc_port or 0  # Once started, the actual port.
        self._proxies = Proxies(settings)
        self._service = Service(models)
        self._server: grpc.aio.Server | None = None

    @property
    def address(self) -> str:
        """Where it listens, as clients write it."""
        return at_port(self.settings.host, self.port)

    async def start(self) -> None:
        """Start answering, in the running event loop.

        Raises:
            InputError: If the address is not available.
        """
        options = (
            ("grpc.max_receive_message_length", self.settings.max_body_bytes),
            ("grpc.max_send_message_length", -1),
            ("grpc.so_reuseport", 0),  # Two servers at one port would each get some of the requests.
            ("grpc.compression_enabled_algorithms_bitset", 1),  # No compression: unpacked data would have no limit.
            # Clients may ping to see whether we are still here; by default gRPC cuts them off at the third ping.
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
        """Take no more calls; those under way have `grace_s` seconds to end, or none at all if it is None."""
        if self._server is not None:
            await self._server.stop(grace_s)

    def _handler(self, method: Method) -> Handler:
        path = f"/{method.service}/{method.name}"

        async def handle(data: bytes, context: Context) -> bytes:
            metadata = context.invocation_metadata() or ()
            exchange = Exchange(
                self._service.models,
                "gRPC",
                path,
                await self._proxies.client(_peer(context), _values(metadata, "x-forwarded-for")),
                next(iter(_values(metadata, "x-request-id")), ""),
                _values(metadata, "authorization"),
                is_open=method.is_open,
                route=method.name,
            )
            trailing: tuple[tuple[str, str], ...] = (("x-request-id", exchange.request_id),)
            context.set_trailing_metadata(trailing)
            encoded = b""

            async def work() -> None:
                nonlocal encoded
                fields = await method.answer(_parse(method.request, data), exchange)
                encoded = method.response(**fields).SerializeToString()
                exchange.status, exchange.sent = 200, len(encoded)

            async def refuse(refusal: Refusal) -> None:
                more = trailing
                if isinstance(refusal.error, UnavailableError):
                    again_s = refusal.error.retry_after_s
                    more = (*trailing, (PUSHBACK, str(-1 if again_s is None else again_s * 1000)))
                await context.abort(grpc.StatusCode[refusal.grpc], refusal.message, more)

            await self.pipeline.answer(exchange, work, refuse)
            return encoded

        return handle


def _parse(message: Any, data: bytes) -> Any:
    try:
        return message.FromString(data)
    except DecodeError as error:
        raise InputError("the request is no message of the protocol") from error


def _values(metadata: Any, wanted: str) -> list[str]:
    return [value for name, value in metadata if name == wanted]


def _peer(context: Context) -> str:
    """Return the address from a peer such as `ipv4:127.0.0.1:4242` or `ipv6:%5B::1%5D:4242`."""
    host = context.peer().partition(":")[2].rpartition(":")[0]
    return unquote(host).strip("[]")
