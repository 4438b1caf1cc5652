"""The application: joins the endpoints with what every request passes."""

from sefa_runtime.server.http import image_endpoints, openapi, page_endpoints, v2_endpoints
from sefa_runtime.server.http.application import Application
from sefa_runtime.server.metrics import Metrics
from sefa_runtime.server.models import Models
from sefa_runtime.server.settings import Settings


def create_app(models: Models, settings: Settings) -> Application:
    """Return the ASGI application that serves some models. Whoever runs it loads and drains the models: `run.serve`.

    Args:
        models: Of the server; also those that are not loaded yet.
        settings: The limits, the token, who may call from a web page.
    """
    metrics = Metrics(models)
    page = page_endpoints.page_routes()
    routes = [  # They are tried in order.
        *v2_endpoints.routes(),
        *image_endpoints.routes(),
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
    )
