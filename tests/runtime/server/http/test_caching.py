"""HEAD wherever there is GET; ETags, by which an image that is known already is neither generated nor sent."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request
from starlette.routing import Route

from sefa_runtime.model.renaming import rename_directions
from sefa_runtime.server.http.responses import is_known
from support.paths import GOLDEN
from support.serving import Door, Running, Start

TINY = GOLDEN / "tiny.onnx"
IMAGE = "/models/tiny/image?seed=7&edit=pose:2.5&format=png"


@pytest.fixture(scope="module")
def server(start: Start) -> Running:
    """A server of one model."""
    return start(TINY)


def runs(server: Running) -> int:
    return server.models.get("tiny").statistics.runs


def all_paths(server: Running) -> list[str]:
    """Every address that answers GET."""
    routes: list[Any] = []

    def add(found: list[Any]) -> None:
        for route in found:
            routes.append(route)
            add(list(getattr(getattr(route, "original_router", None), "routes", [])))

    application: Any = server.server.config.app
    add(application.routes)
    paths = [route.path for route in routes if isinstance(route, Route) and "GET" in (route.methods or ())]
    return [path.format(model="tiny", version="1") for path in paths]


def test_head_is_get_without_its_body(server: Running) -> None:
    paths = all_paths(server)
    assert {"/", "/docs", "/openapi.json", "/metrics", "/models", "/models/tiny", "/models/tiny/image"} <= set(paths)
    assert {"/v2", "/v2/models/tiny/ready", "/v2/health/ready"} <= set(paths)
    for path in paths:
        got, head = server.http.get(path), server.http.head(path)
        assert (head.status_code, head.content) == (got.status_code, b""), path
        kept = ("content-type", "etag", "cache-control")
        assert [head.headers.get(name) for name in kept] == [got.headers.get(name) for name in kept], path


def test_head_where_there_is_no_get(server: Running) -> None:
    for path in ("/models/tiny/edit", "/v2/models/tiny/infer"):
        answer = server.http.head(path)
        assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    for path in all_paths(server):
        answer = server.http.request("PATCH", path)
        allowed = answer.headers["allow"]
        assert set(allowed.split(", ")) == {"GET", "HEAD"}, path
        assert answer.json() == {"error": f"this address takes {allowed}"}
    assert server.http.head("/nowhere").status_code == 404
    assert server.http.head("/models/nobody").status_code == 404


def test_an_image_that_is_known_is_not_generated_again(start_once: Start, door: Door) -> None:
    server = start_once(TINY)
    first = server.http.get(IMAGE)
    assert first.status_code == 200
    assert first.headers["cache-control"] == "no-cache"
    before = runs(server)
    door.close()  # A run would not end.
    tag = first.headers["etag"]
    for given in (tag, f"W/{tag}", f'"other", {tag}', "*"):
        again = server.http.get(IMAGE, headers={"If-None-Match": given})
        assert (again.status_code, again.content) == (304, b"")
        assert (again.headers["etag"], again.headers["cache-control"]) == (tag, "no-cache")
    assert runs(server) == before
    door.open()
    for given in ('"other"', tag.strip('"'), tag[:-2] + '"'):
        answer = server.http.get(IMAGE, headers={"If-None-Match": given})
        assert (answer.status_code, answer.content) == (200, first.content)


def test_a_weak_tag_is_known_as_well() -> None:
    def known(given: str, tag: str) -> bool:
        scope = {"type": "http", "headers": [(b"if-none-match", given.encode())]}
        return is_known(Request(scope), tag)

    assert known('W/"a"', 'W/"a"')
    assert known('"b", "a"', 'W/"a"')
    assert not known('W/"b"', 'W/"a"')
    assert not known("", 'W/"a"')


def test_a_tag_stands_for_one_image(server: Running) -> None:
    asked = (
        "?seed=7",
        "?seed=8",
        "?seed=7&format=png",
        "?seed=7&scale=2",
        "?seed=7&edit=pose:1",
        "?seed=7&edit=pose:-1",
        "?seed=7&edit=light:1",
        "?seed=7&edit=pose:1&edit=light:1",
        "?seed=7&edit=pose:0",
    )
    tags = [server.http.get(f"/models/tiny/image{query}").headers["etag"] for query in asked]
    assert len(set(tags)) == len(asked)
    # The same, in other words.
    for query in ("?edit=0:1&seed=7", "?seed=7&edit=pose:1.0&format=webp&scale=1"):
        assert server.http.get(f"/models/tiny/image{query}").headers["etag"] == tags[4]


def test_a_tag_is_the_models_not_the_names(start_once: Start, tmp_path: Path) -> None:
    shutil.copy(TINY, tmp_path / "renamed.onnx")
    rename_directions(tmp_path / "renamed.onnx", {0: "turn"})
    server = start_once(TINY, f"same={tmp_path / 'renamed.onnx'}", f"other={GOLDEN / 'tiny_float32.onnx'}")

    def tag(model: str, direction: str) -> str:
        return server.http.get(f"/models/{model}/image?seed=7&edit={direction}:1").headers["etag"]

    assert tag("tiny", "pose") == tag("same", "turn")
    assert tag("tiny", "pose") != tag("other", "pose")


def test_behind_a_token_nobody_else_may_keep_an_image(start_once: Start) -> None:
    server = start_once(TINY, token="secret")
    first = server.http.get(IMAGE, headers={"Authorization": "Bearer secret"})
    assert first.headers["cache-control"] == "private, no-cache"
    assert server.http.get(IMAGE, headers={"If-None-Match": first.headers["etag"]}).status_code == 401


@pytest.mark.parametrize("query", ["seed=x", "edit=smile:1", "format=bmp"])
def test_what_cannot_be_taken_is_not_unchanged(server: Running, query: str) -> None:
    assert server.http.get(f"/models/tiny/image?{query}", headers={"If-None-Match": "*"}).status_code == 400


@pytest.mark.parametrize("path", ["/", "/page.js", "/docs/swagger-ui-bundle.js"])
def test_files_of_the_page_are_sent_once(server: Running, path: str) -> None:
    first = server.http.get(path)
    assert first.headers["cache-control"] == "no-cache"
    again = server.http.get(path, headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
