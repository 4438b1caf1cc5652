"""How a server was told to run."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from sefa_runtime.errors import InputError


@dataclass(frozen=True)
class Settings:
    """What holds for all models of a server.

    Raises:
        InputError: If a limit is impossible.
    """

    host: str = "127.0.0.1"
    port: int = 8000  # 0 takes a free one
    grpc_port: int | None = None  # None: no gRPC
    provider: str = "auto"
    provider_options: Mapping[str, str] = field(default_factory=dict)
    instances: int = 1  # runs of a model at the same time
    threads: int | None = None  # of one operator on the CPU; None: the cores that the process may use, shared out
    allow_cpu_fallback: bool = False
    max_batch: int = 16  # images in one run, and in one request
    max_delay_ms: float = 2.0  # how long a run may wait for company, once requests come together
    max_queue: int = 256  # images that may wait, of each model
    timeout_s: float = 30.0  # from a request's body to its answer; also for the body to arrive
    max_edits: int = 64  # edits of one image
    max_body_mb: float = 8.0  # of a request, in 10^6 bytes
    token: str | None = field(default=None, repr=False)  # what clients must send; None: nothing
    cors: tuple[str, ...] = ()  # origins whose pages may call the server

    def __post_init__(self) -> None:
        for name, value, least, most in (
            ("port", self.port, 0, 65535),
            ("grpc-port", self.grpc_port or 0, 0, 65535),
            ("instances", self.instances, 1, 1024),
            ("max-batch", self.max_batch, 1, 4096),
            ("max-delay-ms", self.max_delay_ms, 0, 10_000),
            ("max-queue", self.max_queue, 1, 1_000_000),
            ("timeout-s", self.timeout_s, 0.001, 86_400),
            ("max-edits", self.max_edits, 1, 100_000),
            ("max-body-mb", self.max_body_mb, 0.001, 10_000),
        ):
            if not least <= value <= most:
                raise InputError(f"{name} must be in {least:g}..{most:g}, got {value:g}")
        if self.token is not None and not (self.token and self.token.isascii() and self.token.isprintable()):
            raise InputError("a token must be printable ASCII and not empty")

    @property
    def max_body_bytes(self) -> int:
        """`max_body_mb` in bytes."""
        return round(self.max_body_mb * 1e6)
