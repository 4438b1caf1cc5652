"""Reverse proxies: the client they forward for, and the prefix they serve us under."""

import re
from collections.abc import Sequence

from starlette.types import Scope
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from sefa_runtime.server.settings import OWN_PATHS, PREFIX, Settings


async def _nothing(*arguments: object) -> None:
    pass


class Proxies:
    """The trusted proxies, and the prefix they serve us under.

    A proxy may leave the prefix in the path or strip it. Afterwards the path includes it in either case, as ASGI
    requires, and `root_path` is the prefix.
    """

    def __init__(self, settings: Settings) -> None:
        self.root_path = settings.root_path
        self._headers: ProxyHeadersMiddleware | None = None
        if settings.forwarded_allow_ips:
            # X-Forwarded-For and X-Forwarded-Proto.
            self._headers = ProxyHeadersMiddleware(_nothing, settings.forwarded_allow_ips)

    async def apply(self, scope: Scope) -> str:
        """Add the prefix, and what a trusted proxy says about its client, to a request's scope.

        Returns:
            The path without the prefix; empty if the path is the prefix itself.
        """
        scope["root_path"] = scope.get("root_path", "").rstrip("/")
        prefix = self.root_path or self._told(scope)
        if prefix and not scope["root_path"]:  # Otherwise we are mounted, and the outer application has set it.
            scope["root_path"] = prefix
            if scope["path"] != prefix and not scope["path"].startswith(prefix + "/"):
                scope["path"] = prefix + scope["path"]
        if self._headers is not None:
            await self._headers(scope, _nothing, _nothing)  # type: ignore[arg-type]
        path: str = scope["path"]
        below = path.removeprefix(scope["root_path"])
        return below if below.startswith("/") or not below else path

    async def client(self, peer: str, forwarded_for: Sequence[str]) -> str:
        """Return a gRPC client's address, as for HTTP: what a trusted proxy says, else the peer.

        Args:
            peer: The address at the other end of the connection.
            forwarded_for: The values of X-Forwarded-For.
        """
        if self._headers is None or not forwarded_for:
            return peer
        headers = [(b"x-forwarded-for", value.encode()) for value in forwarded_for]
        scope: Scope = {"type": "http", "client": (peer, 0), "headers": headers}
        await self._headers(scope, _nothing, _nothing)  # type: ignore[arg-type]
        return str(scope["client"][0])

    def _told(self, scope: Scope) -> str:
        """Return the prefix that a trusted proxy says it stripped; empty if it names no valid one."""
        client = scope.get("client")
        if self._headers is None or client is None or client[0] not in self._headers.trusted_hosts:
            return ""
        given = [value.decode("latin-1") for name, value in scope["headers"] if name == b"x-forwarded-prefix"]
        # Each of several proxies appends its own to those before it.
        prefix = "".join(part.strip().rstrip("/") for part in ",".join(given).split(","))
        return prefix if re.fullmatch(PREFIX, prefix) and prefix.split("/")[1] not in OWN_PATHS else ""
