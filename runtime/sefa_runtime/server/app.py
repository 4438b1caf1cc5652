"""The application: joins the endpoints with the pipeline that every request goes through."""

from sefa_runtime.server.http import image_endpoints, openapi, page_endpoints, v2_endpoints
from sefa_runtime.server.http.application import Application
from sefa_runtime.server.metrics import Metrics
from sefa_runtime.server.models import Models
from sefa_runtime.server.settings import Settings


def create_app(models: Models, settings: Settings, *, is_local: bool = False) -> Application:
    """Return the ASGI application that serves some models. The caller loads and drains them, as `run.serve` does.

    Args:
        models: The server's models, loaded or not.
        settings: The limits, the token, and which web pages may call.
        is_local: Whether it is reached from this machine only; then requests must be addressed to this machine.
    """
    metrics = Metrics(models)
    page = page_endpoints.page_routes()
    routes = [  # Tried in order, so those that are asked for most come first.
        *v2_endpoints.inference_routes(),
        *image_endpoints.routes(),
        *v2_endpoints.routes(),
        *page_endpoints.docs_routes(),
        openapi.route(models, settings),
        page_endpoints.metrics_route(metrics),
        *page,
    ]
    return Application(
        models,
        settings,
        metrics,
        routes,
        open_paths=[route.path for route in page],
        headers=[v2_endpoints.HEADER_LENGTH],
        is_local=is_local,
    )
