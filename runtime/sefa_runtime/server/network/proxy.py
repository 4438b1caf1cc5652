"""Behind a reverse proxy: who really asks, and under which prefix of its paths the server stands."""

import re
from collections.abc import Sequence

from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from sefa_runtime.server.settings import OWN_PATHS, PREFIX, Settings


async def client_behind(settings: Settings, peer: str, forwarded_for: Sequence[str]) -> str:
    """Return who asks, by the rule that holds for HTTP: what a trusted proxy says, else whose connection it is.

    Args:
        settings: Which proxies are trusted.
        peer: Whose connection it is.
        forwarded_for: The values of X-Forwarded-For.
    """
    if not (settings.forwarded_allow_ips and forwarded_for):
        return peer

    async def nothing(*arguments: object) -> None:
        pass

    headers = [(b"x-forwarded-for", value.encode()) for value in forwarded_for]
    scope: Scope = {"type": "http", "client": (peer, 0), "headers": headers}
    await ProxyHeadersMiddleware(nothing, settings.forwarded_allow_ips)(scope, nothing, nothing)  # type: ignore[arg-type]
    return str(scope["client"][0])


class Proxied:
    """Put the prefix, and what a trusted proxy says about its client, where all that follows looks for them.

    A proxy may leave the prefix in the path or take it out. Either way the path has it from here on, as ASGI wants it,
    and `root_path` is the prefix.
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        """Stand before an application."""
        self.app = app
        self.root_path = settings.root_path
        self.proxies: ProxyHeadersMiddleware | None = None
        if settings.forwarded_allow_ips:
            # X-Forwarded-For and X-Forwarded-Proto.
            self.proxies = ProxyHeadersMiddleware(app, settings.forwarded_allow_ips)  # type: ignore[arg-type]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        scope["root_path"] = scope.get("root_path", "").rstrip("/")
        prefix = self.root_path or self._told(scope)
        if prefix and not scope["root_path"]:  # Else we are mounted, and whoever did that has set it.
            path = scope["path"]
            scope["root_path"] = prefix
            if path != prefix and not path.startswith(prefix + "/"):
                scope["path"] = prefix + path
        await (self.proxies or self.app)(scope, receive, send)  # type: ignore[arg-type]

    def _told(self, scope: Scope) -> str:
        """The prefix that a trusted proxy took out of the path; empty if it says nothing that can be one."""
        client = scope.get("client")
        if self.proxies is None or client is None or client[0] not in self.proxies.trusted_hosts:
            return ""
        given = [value.decode("latin-1") for name, value in scope["headers"] if name == b"x-forwarded-prefix"]
        # Of several proxies, each adds its own behind those before it.
        prefix = "".join(part.strip().rstrip("/") for part in ",".join(given).split(","))
        return prefix if re.fullmatch(PREFIX, prefix) and prefix.split("/")[1] not in OWN_PATHS else ""
