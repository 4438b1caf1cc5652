"""The server process: it answers while models are still loading, and drains them when asked to stop."""

import asyncio
import atexit
import contextlib
import gc
import logging
import os
import socket
import sys
from collections.abc import Callable, Coroutine, Sequence
from types import FrameType
from typing import TYPE_CHECKING, Any

import uvicorn

from sefa_runtime.errors import ModelFileError
from sefa_runtime.printable import printable
from sefa_runtime.server.access_log import LineHandler
from sefa_runtime.server.app import create_app
from sefa_runtime.server.models import HostedModel, Models, parse_model
from sefa_runtime.server.network.addresses import EVERY_NETWORK, at_port, close, is_local, listen, resolve
from sefa_runtime.server.network.bounded_http import BoundedHttp
from sefa_runtime.server.pipeline import Pipeline
from sefa_runtime.server.settings import Settings

if TYPE_CHECKING:
    from sefa_runtime.server.grpc.server import GrpcServer

Report = Callable[[str], None]

# How long Python runs one thread before another gets its turn. The default, 5 ms, exceeds a small model's run, which
# would wait that long at both ends: on two busy cores the median latency of a request fell from 4.6 to 3.2 ms.
SWITCH_INTERVAL_S = 0.0005
# Allocations until Python looks for cyclic garbage, of which requests leave none behind. With the default, 700, looking
# through the objects of the requests under way took a tenth of the event loop's time.
GC_THRESHOLD = 10_000
# Time for answers under way to finish when the server closes.
GRACE_S = 10


def serve(models: Sequence[str], settings: Settings, report: Report = print) -> None:
    """Serve models until SIGTERM or SIGINT; then answer the requests received so far and return.

    Args:
        models: Each `PATH` or `NAME=PATH`.
        settings: The server's settings.
        report: Called with a line for people when something begins or ends.

    Raises:
        InputError: If a name or setting is invalid, or the address is not available.
        ModelFileError: If none of the models could be loaded.
    """
    hosted = Models([HostedModel(*parse_model(text), settings) for text in models])
    write_logs()
    listeners = listen(settings.host, settings.port)
    try:
        if settings.token is None and not is_local(settings.host):
            report(f"anyone who reaches {settings.host} may ask: a token would prevent that")
        server = Server(hosted, settings, report)
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        gc.set_threshold(GC_THRESHOLD)
        gc.freeze()  # The modules stay: no need to look through them.
        server.run(listeners)
    finally:
        close(listeners)
    failed = not server.stopped and not any(model.loaded for model in hosted)
    if any(model.at_work for model in hosted):
        atexit.register(_end, int(failed))
    if failed:
        raise ModelFileError("; ".join(f"{model.name}: {model.reason}" for model in hosted))


class Server(uvicorn.Server):
    """Uvicorn's server, extended to load the models once it listens and to drain them before it closes."""

    def __init__(self, models: Models, settings: Settings, report: Report = print) -> None:
        app = create_app(models, settings, is_local=is_local(settings.host))
        super().__init__(
            uvicorn.Config(
                app,
                host=settings.host,
                port=settings.port,
                loop="auto",
                http=BoundedHttp,
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_keep_alive=75,
                timeout_graceful_shutdown=GRACE_S,
            )
        )
        self.models = models
        self.settings = settings
        self.report = report
        self.grpc = _grpc_server(models, settings, app.pipeline)
        self.stopped = False  # by a signal
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def address(self) -> str:
        """Where it listens, once it has started."""
        host, port = self.servers[0].sockets[0].getsockname()[:2]
        return f"http://{at_port(self.settings.host if host == EVERY_NETWORK else host, port)}"

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until asked to stop."""
        self.loop = asyncio.get_running_loop()
        await super().serve(sockets)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start answering, then load the models."""
        if self.grpc is not None:
            await self.grpc.start()
        await super().startup(sockets)
        self.report(f"sefa serves at {self.address}")
        if self.grpc is not None:
            self.report(f"and over gRPC at {self.grpc.address}")
        if EVERY_NETWORK in resolve(self.settings.host):
            self.report(f"{self.settings.host} is every network of this machine, IPv4 and IPv6")
        self._begin(self._load())

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close, once the requests under way are answered."""
        if self.grpc is not None:
            await self.grpc.stop(None if self.force_exit else GRACE_S)
        await super().shutdown(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Drain on the first signal, exit at once on the second. Uvicorn does not raise it again, so exit code 0."""
        if self.stopped:
            os._exit(0)  # Nothing to clean up, and an endless run would keep Python from exiting.
        self.stopped = True
        self.loop.call_soon_threadsafe(lambda: self._begin(self._drain()))

    def _begin(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _load(self) -> None:
        await self.models.load(self._report_on)
        if not any(model.loaded for model in self.models) and not self.stopped:
            self.should_exit = True

    def _report_on(self, model: HostedModel) -> None:
        if model.loaded:
            count = model.settings.instances
            self.report(
                f"model {model.name} is ready on {model.editor.provider}"
                + (f", {count} instances" if count > 1 else "")
            )
        elif model.reason:
            self.report(f"model {model.name} failed to load: {model.reason}")

    async def _drain(self) -> None:
        self.report("sefa stops: answering what was asked")
        await self.models.drain()
        self.should_exit = True


def _end(code: int) -> None:
    """Exit before Python stops its threads: it would crash on one that is in an endless run."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):  # The reader is gone.
            stream.flush()
    os._exit(code)


def _grpc_server(models: Models, settings: Settings, pipeline: Pipeline) -> "GrpcServer | None":
    if settings.grpc_port is None:
        return None
    from sefa_runtime.server.grpc.server import GrpcServer  # Needs its own extra.

    return GrpcServer(models, settings, pipeline)


class _PrintableFormatter(logging.Formatter):
    """Formats log lines without control characters, whatever a client sent."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        return printable(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:  # noqa: N802
        return "\n".join(map(printable, super().formatException(ei).split("\n")))


def write_logs() -> None:
    """Log requests to stdout as lines of JSON, and faults to stderr.

    No line says where in the code it comes from or which thread or process wrote it: that halves the cost of a line.
    """
    logging._srcfile = None  # As Python's logging HOWTO advises under "Optimization".
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    handlers = {
        "sefa.access": LineHandler(sys.stdout),
        "sefa.error": logging.StreamHandler(sys.stderr),
        "uvicorn.error": logging.StreamHandler(sys.stderr),
    }
    for name, handler in handlers.items():
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        handler.setFormatter(_PrintableFormatter())
        logger.setLevel(logging.WARNING if name == "uvicorn.error" else logging.INFO)
        logger.propagate = False
