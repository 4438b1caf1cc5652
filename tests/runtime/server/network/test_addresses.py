"""Where a server listens, over HTTP and gRPC alike, and who is told that he may ask."""

import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import grpc
import httpx
import pytest

from sefa_runtime.errors import InputError
from sefa_runtime.server.network.addresses import at_port, close, is_local, listen, resolve
from sefa_runtime.server.settings import Settings
from support.paths import TINY
from support.patience import PATIENCE_S
from support.serving import Start

LOCAL = ("127.0.0.1", "::1")


def has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="needs IPv6")


def reached(address: str, port: int) -> bool:
    """Whether somebody listens there."""
    try:
        socket.create_connection((address, port), timeout=PATIENCE_S).close()
    except OSError:
        return False
    return True


@needs_ipv6
@pytest.mark.parametrize("host", [*LOCAL, "[::1]", "::", "[::]", "0.0.0.0", "::ffff:127.0.0.1", "localhost"])
def test_both_transports_listen_at_the_same_addresses(start_once: Start, host: str) -> None:
    server = start_once(TINY, host=host, grpc_port=0)
    assert server.server.grpc is not None
    over_http = [reached(address, server.port) for address in LOCAL]
    assert over_http == [reached(address, server.server.grpc.port) for address in LOCAL]
    assert any(over_http)
    if host in ("::", "[::]", "0.0.0.0"):
        assert over_http == [True, True]
        assert server.reports[2] == f"{host} is every network of this machine, IPv4 and IPv6"
    else:
        assert not any("every network" in line for line in server.reports)


@needs_ipv6
@pytest.mark.parametrize("host", ["::1", "[::1]"])
def test_an_address_of_ipv6_is_reported_as_it_is_asked(start_once: Start, host: str) -> None:
    server = start_once(TINY, host=host, grpc_port=0)
    assert server.reports[0] == f"sefa serves at http://[::1]:{server.port}"
    assert httpx.get(f"{server.server.address}/v2/health/live").status_code == 200
    assert server.server.grpc is not None
    assert server.server.grpc.address == f"[::1]:{server.server.grpc.port}"
    with grpc.insecure_channel(server.server.grpc.address) as channel:
        assert channel.unary_unary("/grpc.health.v1.Health/Check")(b"") == b"\x08\x01"


@pytest.mark.parametrize(
    ("host", "addresses", "local"),
    [
        ("127.0.0.1", ("127.0.0.1",), True),
        ("127.1.2.3", ("127.1.2.3",), True),
        ("127.1", ("127.0.0.1",), True),
        ("::1", ("::1",), True),
        ("[::1]", ("::1",), True),
        ("::ffff:127.0.0.1", ("127.0.0.1",), True),
        ("[::ffff:127.0.0.1]", ("127.0.0.1",), True),
        ("::ffff:10.0.0.1", ("10.0.0.1",), False),
        ("10.0.0.1", ("10.0.0.1",), False),
        ("fd00::17", ("fd00::17",), False),
    ],
)
def test_what_a_host_stands_for(host: str, addresses: tuple[str, ...], local: bool) -> None:
    assert resolve(host) == addresses
    assert is_local(host) is local


def test_this_machine_and_every_network_by_name() -> None:
    assert is_local("localhost")
    for host in ("0.0.0.0", "::ffff:0.0.0.0"):
        assert not is_local(host)


def link_local() -> Iterator[str]:
    """The addresses of this machine that need a zone."""
    table = Path("/proc/net/if_inet6")
    for line in table.read_text().splitlines() if table.exists() else []:
        digits, *_, name = line.split()
        if digits.startswith("fe80"):
            yield ":".join(digits[at : at + 4] for at in range(0, 32, 4)) + f"%{name}"


@pytest.mark.skipif(not list(link_local()), reason="needs a link-local address")
def test_an_address_with_a_zone() -> None:
    zoned = next(link_local())
    (address,) = resolve(f"[{zoned}]")
    assert address.partition("%")[2] == zoned.partition("%")[2]
    assert not is_local(zoned)
    sockets = listen(zoned, 0)
    assert reached(zoned, sockets[0].getsockname()[1])
    close(sockets)


@needs_ipv6
@pytest.mark.parametrize("host", ["[::1]", "localhost"])
def test_nobody_else_reaches_a_loopback_address(host: str) -> None:
    assert "anyone" not in said_at_start(host)


def test_everybody_reaches_every_network() -> None:
    assert said_at_start("0.0.0.0").startswith("anyone who reaches 0.0.0.0 may ask: a token would prevent that\n")


def said_at_start(host: str) -> str:
    """What the command says until it fails, which is soon: there is no such model."""
    command = [sys.executable, "-m", "sefa_cli", "serve", "gone.onnx", "--host", host, "--port", "0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert done.returncode == 1
    assert "sefa serves at http://" in done.stderr, done.stderr
    return done.stderr


def test_ports_must_differ() -> None:
    with pytest.raises(InputError, match="port and grpc-port must differ, got 8000 for both"):
        Settings(port=8000, grpc_port=8000)
    assert Settings(port=0, grpc_port=0).grpc_port == 0


def test_addresses_as_they_are_written() -> None:
    assert [at_port(host, 1) for host in ("::1", "[::1]", "127.0.0.1")] == ["[::1]:1", "[::1]:1", "127.0.0.1:1"]
