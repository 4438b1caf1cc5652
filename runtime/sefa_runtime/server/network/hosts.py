"""Which hosts a request may be addressed to.

A web page whose own name is made to resolve to 127.0.0.1 (DNS rebinding) is, to the browser, of the same origin as a
server on this machine, and may ask it anything. What gives it away is the name in the header Host.
"""

import ipaddress

from sefa_runtime.server.errors import HostError
from sefa_runtime.server.settings import Settings


class Hosts:
    """The hosts that requests may name.

    These are the settings' `allow_hosts`. On a server that listens on this machine only, they are also `localhost`, the
    loopback addresses and the name that it listens at; on any other server without `allow_hosts`, all hosts.
    """

    def __init__(self, settings: Settings, *, is_local: bool) -> None:
        """Take the settings of a server, and whether it listens on this machine only."""
        self._names = frozenset(name.lower() for name in settings.allow_hosts)
        self._any = "*" in self._names or not (is_local or self._names)
        self._is_local = is_local
        if is_local:
            self._names |= {"localhost", settings.host.lower().strip("[]")}

    def check(self, header: str | None) -> None:
        """Check the header Host; browsers always send it, and without it every request is taken.

        Raises:
            HostError: If it names another host.
        """
        if self._any or header is None:
            return
        name = _without_port(header).lower().removesuffix(".")
        if name in self._names or (self._is_local and _is_loopback(name)):
            return
        raise HostError(
            f"this server does not answer for the host {name[:80]!r}: `sefa serve --allow-host NAME` allows one, and "
            "`--allow-host '*'` every host"
        )


def _without_port(header: str) -> str:
    bracketed, closing, _ = header.partition("]")
    return bracketed.removeprefix("[") if closing else header.partition(":")[0]


def _is_loopback(name: str) -> bool:
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return False
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback
