"""Where a server listens: one set of addresses for HTTP and gRPC, which would resolve some hosts differently."""

import ipaddress
import os
import socket
from collections.abc import Sequence

from sefa_runtime.errors import InputError

EVERY_NETWORK = "::"


def resolve(host: str) -> tuple[str, ...]:
    """Return the numeric addresses of a host.

    To gRPC, `0.0.0.0` means every network, IPv6 included; to others, `::` does. Here either one becomes `::`, or
    `0.0.0.0` on a machine without IPv6.

    Args:
        host: A name or an address; an IPv6 address may have brackets and a zone: `[fe80::1%eth0]`.

    Raises:
        InputError: If there is no such host.
    """
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    try:
        found = socket.getaddrinfo(bare, None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(
            f"cannot listen at {host or repr(host)}: {reason}; 127.0.0.1 is this machine, 0.0.0.0 every network"
        ) from error
    addresses: dict[str, None] = {}  # In order, without duplicates.
    for _, _, _, _, sockaddr in found:
        address = ipaddress.ip_address(str(sockaddr[0]))
        address = getattr(address, "ipv4_mapped", None) or address
        if address.is_unspecified:
            return (EVERY_NETWORK if socket.has_dualstack_ipv6() else "0.0.0.0",)
        zone = sockaddr[3] if len(sockaddr) == 4 else 0
        addresses[f"{address}%{socket.if_indextoname(int(zone))}" if zone else str(address)] = None
    return tuple(addresses)


def is_local(host: str) -> bool:
    """Return whether all addresses of a host can be reached from this machine only; errors as for `resolve`."""
    return all(ipaddress.ip_address(address).is_loopback for address in resolve(host))


def at_port(host: str, port: int) -> str:
    """Return host and port as written in a URL."""
    return f"[{host.strip('[]')}]:{port}" if ":" in host else f"{host}:{port}"


def listen(host: str, port: int) -> list[socket.socket]:
    """Listen at all addresses of a host.

    Args:
        host: As for `resolve`.
        port: 0 takes a free one, the same at all addresses.

    Raises:
        InputError: If there is no such host, or an address is not available.
    """
    sockets: list[socket.socket] = []
    try:
        for address in resolve(host):
            sockets.append(_listen(address, port))
            port = port or sockets[0].getsockname()[1]
    except OSError as error:
        close(sockets)
        # `create_server` adds the address to the system's message.
        reason = str(error) if error.errno is None else os.strerror(error.errno)
        raise InputError(f"cannot listen at {host} port {port}: {reason}") from error
    return sockets


def close(sockets: Sequence[socket.socket]) -> None:
    """Close all the sockets."""
    for listener in sockets:
        listener.close()


def _listen(address: str, port: int) -> socket.socket:
    family, _, _, _, sockaddr = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM)[0]
    every = address == EVERY_NETWORK
    return socket.create_server(sockaddr, family=family, backlog=2048, dualstack_ipv6=every)
