"""The reference of the HTTP endpoints has all of them, as a running server does."""

import re

import pytest

import http_reference
from sefa_runtime.server.http import image_endpoints, v2_endpoints
from sefa_runtime.server.http.image_requests import EditRequest, ImageQuery, Sweep
from support.paths import ROOT

TEXT = http_reference.endpoints()


def test_every_endpoint_has_its_heading() -> None:
    routes = [*image_endpoints.routes(), *v2_endpoints.inference_routes(), *v2_endpoints.routes()]
    served = {
        f"{method} {re.sub(r':[a-z]+}', '}', route.path)}"
        for route in routes
        for method in route.methods or ()
        if method != "HEAD" and "/versions/" not in route.path
    }
    assert set(re.findall("^### (.+)$", TEXT, re.MULTILINE)) == served | {"GET /metrics"}


@pytest.mark.parametrize("fields", [ImageQuery.model_fields, EditRequest.model_fields])
def test_every_field_is_there(fields: dict[str, object]) -> None:
    assert {*fields} <= set(re.findall(r"^`(\w+)`\n:   \S", TEXT, re.MULTILINE))


def test_the_fields_of_a_sweep_are_there() -> None:
    assert {f"sweep.{field}" for field in Sweep.model_fields} == set(
        re.findall(r"^`(sweep\.\w+)`$", TEXT, re.MULTILINE)
    )


def test_the_page_has_a_place_for_the_endpoints() -> None:
    assert (ROOT / "docs" / http_reference.PAGE).read_text().count(http_reference.ENDPOINTS_HERE) == 1
