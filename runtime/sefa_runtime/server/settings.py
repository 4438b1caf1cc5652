"""The settings of a server."""

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from sefa_runtime.editor import PREFIX_MB
from sefa_runtime.errors import InputError

# A prefix of all our paths, as written in addresses.
PREFIX = re.compile(r"(?:/[A-Za-z0-9._~!$&'()*+,;=:@-]+)+")
# As browsers send it: lower case, no path, no trailing slash.
ORIGIN = re.compile(r"\*|null|[a-z][a-z0-9+.-]*://[^\sA-Z/?#@]+")
# As in a request's Host, without brackets and port.
HOST = re.compile(r"\*|[A-Za-z0-9._-]+|[0-9A-Fa-f:.]+")
# The first segments of our own paths, from which a prefix must differ.
OWN_PATHS = ("v2", "models", "docs", "metrics", "openapi.json")


@dataclass(frozen=True)
class Settings:
    """Settings shared by all models of a server.

    Raises:
        InputError: If a value is invalid.
    """

    host: str = "127.0.0.1"  # the address to listen on
    port: int = 8000  # 0 takes a free one
    grpc_port: int | None = None  # None: no gRPC
    provider: str = "auto"  # as `load` takes it
    provider_options: Mapping[str, str] = field(default_factory=dict)  # likewise
    instances: int = 1  # concurrent runs of a model
    threads: int | None = None  # per operator on the CPU; None: the usable cores, divided among the instances
    allow_cpu_fallback: bool = False  # likewise
    batch: int | None = None  # likewise; a static shape
    styles_on_cpu: bool = False  # likewise
    convolutions_on_cpu: int = 0  # likewise
    prefix_mb: float = PREFIX_MB  # of each model, for what its latents have in common with their edits, as `load` says
    max_batch: int = 16  # images in one run, and in one v2 request
    max_delay_ms: float = 2.0  # how long a run may wait for more requests, where sharing runs saves time
    max_queue: int = 256  # images that may wait, per model
    timeout_s: float = 30.0  # from a request's body to its answer; also the limit for the body to arrive
    max_edits: int = 64  # edits of one image
    max_body_mb: float = 8.0  # size of a request's body, in 10^6 bytes
    token: str | None = field(default=None, repr=False)  # what clients must send; None: no token
    cors: tuple[str, ...] = ()  # origins whose web pages may call the server
    allow_hosts: tuple[str, ...] = ()  # hosts that requests may name, besides this machine's own; *: any
    root_path: str = ""  # the prefix of all paths, as a reverse proxy's clients see them; empty: none
    forwarded_allow_ips: str = ""  # proxies whose X-Forwarded-... to trust: addresses, networks or *, comma-separated

    def __post_init__(self) -> None:
        for name, value, least, most in (
            ("port", self.port, 0, 65535),
            ("grpc-port", self.grpc_port or 0, 0, 65535),
            ("instances", self.instances, 1, 1024),
            ("prefix-mb", self.prefix_mb, 0, 1_000_000),
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
        if self.port and self.port == self.grpc_port:
            raise InputError(f"port and grpc-port must differ, got {self.port} for both")
        for origin in self.cors:
            if not ORIGIN.fullmatch(origin):
                raise InputError(
                    "cors must be an origin as browsers send it, like https://example.org: with http:// or https://, "
                    f"in small letters, no path, no slash at its end; or *; got {origin[:80]!r}"
                )
        for host in self.allow_hosts:
            if not HOST.fullmatch(host):
                raise InputError(
                    "allow-host must be a name or an address, like example.org, without a scheme and a port, or *; "
                    f"got {host[:80]!r}"
                )
        if self.root_path and not PREFIX.fullmatch(self.root_path):
            raise InputError(
                f"root-path must look like /faces, without a slash at its end, got {self.root_path[:80]!r}"
            )
        if self.root_path and self.root_path.split("/")[1] in OWN_PATHS:
            raise InputError(f"root-path must not begin like the server's own paths: {', '.join(OWN_PATHS)}")
        if self.forwarded_allow_ips and self.forwarded_allow_ips != "*":
            for proxy in self.forwarded_allow_ips.split(","):
                _check_network(proxy.strip())

    @property
    def max_body_bytes(self) -> int:
        """`max_body_mb` in bytes."""
        return round(self.max_body_mb * 1e6)


def _check_network(text: str) -> None:
    try:
        ipaddress.ip_network(text)
    except ValueError as error:
        raise InputError(
            f"forwarded-allow-ips must be addresses or networks with commas, as 127.0.0.1,10.0.0.0/8, or *: {error}"
        ) from error
