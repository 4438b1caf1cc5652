"""The page at /, /docs with nothing loaded from other hosts, and /metrics.

All links are relative: a proxy may serve us under any prefix without our knowledge.
"""

import hashlib
import importlib.util
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from sefa_runtime.server.http.responses import Endpoint, is_known
from sefa_runtime.server.metrics import Metrics

PAGE_FOLDER = Path(__file__).parents[1] / "page"
MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".webp": "image/webp",
    ".ico": "image/x-icon",
    ".json": "application/json",
    ".woff2": "font/woff2",
}
# Swagger's user interface, from the package fastapi-offline.
SWAGGER_FILES = ("swagger-ui-bundle.js", "swagger-ui.css", "favicon.png")
SWAGGER_PAGE = """<!doctype html>
<meta name="viewport" content="width=device-width, initial-scale=1.0">
<link rel="stylesheet" href="docs/swagger-ui.css">
<link rel="icon" href="docs/favicon.png">
<title>sefa</title>
<div id="swagger-ui"></div>
<script src="docs/swagger-ui-bundle.js"></script>
<script>
SwaggerUIBundle({
  url: 'openapi.json',
  dom_id: "#swagger-ui",
  layout: "BaseLayout",
  deepLinking: true,
  showExtensions: true,
  showCommonExtensions: true,
  presets: [SwaggerUIBundle.presets.apis, SwaggerUIBundle.SwaggerUIStandalonePreset],
})
</script>
"""
# Nothing from other hosts; images are shown from the blobs that were fetched.
PAGE_POLICY = (
    "default-src 'self'; img-src 'self' blob:; object-src 'none'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)


def page_routes() -> list[Endpoint]:
    """Return routes for the files of `page/` at `/`, read once; no request's path is looked up on disk."""
    if not (PAGE_FOLDER / "index.html").is_file():
        return [Endpoint("/", _to_docs)]
    routes = []
    for path in sorted(PAGE_FOLDER.rglob("*")):
        if path.is_file() and path.suffix in MEDIA_TYPES:
            address = "/" + path.relative_to(PAGE_FOLDER).as_posix()
            address = "/" if address == "/index.html" else address
            answer = _constant(path.read_bytes(), MEDIA_TYPES[path.suffix], {"content-security-policy": PAGE_POLICY})
            routes.append(Endpoint(address, answer))
    return routes


def docs_routes() -> list[Endpoint]:
    """Return the routes of /docs: Swagger's page if its files are installed, else a page that links the description."""
    specification = importlib.util.find_spec("fastapi_offline")
    if specification is None or specification.origin is None:
        return [Endpoint("/docs", _no_swagger)]
    folder = Path(specification.origin).parent / "static"
    routes = [Endpoint("/docs", _swagger)]
    for name in SWAGGER_FILES:
        path = folder / name
        if not path.is_file():
            return [Endpoint("/docs", _no_swagger)]
        routes.append(Endpoint(f"/docs/{name}", _constant(path.read_bytes(), MEDIA_TYPES[path.suffix])))
    return routes


def metrics_route(metrics: Metrics) -> Endpoint:
    """Return the route of /metrics."""

    async def prometheus(request: Request) -> Response:
        return Response(metrics.text(), media_type=metrics.media_type)

    return Endpoint("/metrics", prometheus)


async def _swagger(request: Request) -> Response:
    return HTMLResponse(SWAGGER_PAGE)


async def _no_swagger(request: Request) -> Response:
    return HTMLResponse(
        "<!doctype html><title>sefa</title><p>The endpoints are described in <a href=openapi.json>openapi.json</a>. "
        "<code>pip install fastapi-offline</code> makes this a page to try them from."
    )


async def _to_docs(request: Request) -> Response:
    return RedirectResponse("docs")


def _constant(
    content: bytes, media_type: str, headers: Mapping[str, str] | None = None
) -> Callable[[Request], Awaitable[Response]]:
    tag = f'"{hashlib.sha256(content).hexdigest()}"'
    # The files change with the version: browsers cache them, and revalidate each time.
    kept = {"x-content-type-options": "nosniff", "etag": tag, "cache-control": "no-cache", **(headers or {})}

    async def answer(request: Request) -> Response:
        if is_known(request, tag):
            return Response(status_code=304, headers=kept)
        return Response(content, media_type=media_type, headers=kept)

    return answer
