"""The server under a prefix: page, documents and health, with a token, whoever takes the prefix out of the path."""

import contextlib
import json
import re
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar
from urllib.parse import quote, urljoin

import httpx
import numpy as np
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount

import sefa_runtime
from sefa_runtime.errors import InputError
from sefa_runtime.server.app import create_app
from sefa_runtime.server.models import HostedModel, Models
from sefa_runtime.server.network.addresses import listen
from sefa_runtime.server.settings import Settings
from support.paths import TINY
from support.patience import PATIENCE_S, wait_until
from support.serving import Start, image_in, infer_body

TOKEN = {"Authorization": "Bearer secret"}
Z = np.linspace(-1, 1, 6, dtype=np.float32)[None]


class ReverseProxy(BaseHTTPRequestHandler):
    """Shows a server under /team/faces, which it takes out of the path."""

    protocol_version = "HTTP/1.1"
    upstream: ClassVar[str]
    headers_added: ClassVar[dict[str, str]] = {}

    def pass_on(self) -> None:
        path = self.path.removeprefix("/team/faces")
        assert path != self.path
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        headers = {name: text for name, text in self.headers.items() if name.lower() not in ("host", "content-length")}
        with httpx.Client(timeout=PATIENCE_S) as client:
            answer = client.request(
                self.command, self.upstream + path, content=body, headers=headers | self.headers_added
            )
        self.send_response(answer.status_code)
        for name, text in answer.headers.items():
            self.send_header(name, text)
        self.end_headers()
        self.wfile.write(answer.content)

    do_GET = do_POST = pass_on  # noqa: N815

    def log_message(self, *arguments: Any) -> None:
        """Say nothing."""


@contextlib.contextmanager
def reverse_proxy(upstream: str, **headers: str) -> Iterator[str]:
    """Run a proxy before a server, and give its address with the prefix."""
    names = {name.replace("_", "-"): text for name, text in headers.items()}
    handler = type("Handler", (ReverseProxy,), {"upstream": upstream, "headers_added": names})
    proxy = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=proxy.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{proxy.server_address[1]}/team/faces"
    finally:
        proxy.shutdown()
        thread.join()
        proxy.server_close()


@contextlib.contextmanager
def mounted() -> Iterator[str]:
    """Run the application as a part of another, and give its address."""
    settings = Settings(provider="cpu", threads=1, token="secret", timeout_s=PATIENCE_S)
    models = Models([HostedModel("tiny", TINY, settings)])

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        await models.load()
        yield
        await models.drain()

    async def others(request: Request, error: Exception) -> Response:
        return Response("the other application's", 418)

    app = Starlette(
        routes=[Mount("/team/faces", create_app(models, settings))],
        lifespan=lifespan,
        exception_handlers={ValueError: others, 404: others},
    )
    server = uvicorn.Server(uvicorn.Config(app, log_config=None))
    (listener,) = listen("127.0.0.1", 0)
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    try:
        wait_until(lambda: server.started)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/team/faces"
    finally:
        server.should_exit = True
        thread.join(PATIENCE_S)


WAYS = ("stripped", "stripped and not told", "stripped and told by the proxy", "left in", "mounted")


@pytest.fixture(scope="module", params=WAYS)
def base(request: pytest.FixtureRequest, start: Start) -> Iterator[str]:
    """The address, with its prefix, of a server that wants a token."""
    if request.param == "mounted":
        with mounted() as address:
            yield address
        return
    knows = request.param in ("stripped", "left in")
    server = start(
        TINY,
        token="secret",
        root_path="/team/faces" if knows else "",
        forwarded_allow_ips="127.0.0.1" if "proxy" in request.param else "",
    )
    url = f"http://{server.address}"
    if request.param == "left in":
        yield f"{url}/team/faces"
        return
    told = {"X_Forwarded_Prefix": "/team/faces/"} if "proxy" in request.param else {}
    with reverse_proxy(url, **told) as address:
        yield address


def links(html: str) -> list[str]:
    """What a page loads or leads to, and Swagger's page its description from."""
    found = re.findall(r"""(?:href|src)=["']?([^"' >]+)""", html)
    return [link for link in found if not link.startswith("#")] + re.findall(r"url: '([^']+)'", html)


def test_everything_is_where_the_links_lead(base: str) -> None:
    with httpx.Client(timeout=PATIENCE_S) as client:
        for address in (f"{base}/", f"{base}/docs"):
            page = client.get(address)
            assert page.status_code == 200
            found = links(page.text)
            assert len(found) > 3
            for link in found:
                assert urljoin(address, link).startswith(f"{base}/")
                answer = client.get(urljoin(address, link))
                assert answer.status_code == 200, link
        description = client.get(f"{base}/openapi.json")
        assert description.status_code == 200
        # Where a client that reads it asks: beside it.
        server = urljoin(f"{base}/openapi.json", description.json()["servers"][0]["url"]).rstrip("/")
        assert client.get(f"{server}/models", headers=TOKEN).status_code == 200


def test_the_token_is_asked_for_as_without_a_prefix(base: str) -> None:
    with httpx.Client(timeout=PATIENCE_S) as client:
        for path in ("/v2/health/live", "/v2/health/ready", "/page.js", "/docs", "/docs/swagger-ui.css"):
            assert client.get(base + path).status_code == 200, path
        for path in ("/models", "/v2", "/v2/models/tiny", "/metrics", "/docs2", "/models/tiny/image", "/nowhere"):
            assert client.get(base + path).status_code == 401, path
            assert client.get(base + path, headers=TOKEN).status_code == (
                404 if path in ("/docs2", "/nowhere") else 200
            )


def test_images_are_the_editors(base: str) -> None:
    expected = sefa_runtime.load(TINY, provider="cpu").run(z=Z)
    with httpx.Client(timeout=PATIENCE_S, headers=TOKEN) as client:
        answer = client.post(f"{base}/v2/models/tiny/infer", json=infer_body({"z": Z}))
        np.testing.assert_array_equal(image_in(answer), expected)
        wrong = client.post(f"{base}/models/tiny/edit", content=b"{}", headers={"Content-Type": "text/plain"})
        assert (wrong.status_code, list(wrong.json())) == (415, ["error"])


def test_the_prefix_alone_leads_to_the_page(base: str) -> None:
    with httpx.Client(timeout=PATIENCE_S) as client:
        answer = client.get(base)
        if answer.is_redirect:  # But for a proxy that takes all of it out, and may ask for nothing or for a slash.
            assert urljoin(base, answer.headers["location"]) == f"{base}/"
            answer = client.get(f"{base}/")
        assert answer.status_code == 200


Ask = Callable[..., str]


@pytest.fixture
def logged_client(start_once: Start, caplog: pytest.LogCaptureFixture) -> Ask:
    """Start a server with settings, ask it with headers, and give the client's address in the log."""

    def ask(headers: dict[str, str], **settings: Any) -> str:
        server = start_once(TINY, **settings)
        caplog.clear()
        caplog.set_level("INFO", "sefa.access")
        server.http.get("/v2", headers=headers)
        wait_until(lambda: caplog.records)
        return str(json.loads(caplog.records[0].getMessage())["client"])

    return ask


FORWARDED = {"X-Forwarded-For": "203.0.113.7", "X-Forwarded-Proto": "https", "X-Forwarded-Prefix": "/x"}


@pytest.mark.parametrize(
    ("trusted", "client"),
    [("", "127.0.0.1"), ("10.0.0.0/8", "127.0.0.1"), ("127.0.0.0/8", "203.0.113.7"), ("*", "203.0.113.7")],
)
def test_who_asked_is_what_a_trusted_proxy_says(logged_client: Ask, trusted: str, client: str) -> None:
    assert logged_client(FORWARDED, forwarded_allow_ips=trusted) == client


@pytest.mark.parametrize("trusted", ["", "10.0.0.1"])
def test_who_is_not_trusted_sets_no_prefix(start_once: Start, trusted: str) -> None:
    server = start_once(TINY, forwarded_allow_ips=trusted)
    answer = server.http.get("/openapi.json", headers={"X-Forwarded-Prefix": "/evil"})
    assert answer.json()["servers"] == [{"url": "."}]


def test_what_the_server_was_told_goes_before_what_a_header_says(start_once: Start) -> None:
    server = start_once(TINY, root_path="/faces", forwarded_allow_ips="127.0.0.1")
    answer = server.http.get("/openapi.json", headers={"X-Forwarded-Prefix": "/invented"})
    assert answer.json()["servers"][0] == {"url": "/faces"}


@pytest.mark.parametrize("prefix", ["//evil.example", "/a b", "evil", "/x?y", "/docs", "/v2", "/", "", "/é"])
def test_no_prefix_opens_what_is_closed(start_once: Start, prefix: str) -> None:
    server = start_once(TINY, token="secret", forwarded_allow_ips="127.0.0.1")
    headers = {b"X-Forwarded-Prefix": prefix.encode()}
    for path in ("/models", "/metrics", f"{prefix}/models", f"{prefix}/v2/models/tiny"):
        answer = server.http.get(f"http://{server.address}/{quote(path.lstrip('/'))}", headers=headers)
        assert answer.status_code in (401, 404)
    assert server.http.get("/v2/health/live", headers=headers).status_code == 200


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"root_path": "faces"}, "root-path must look like /faces"),
        ({"root_path": "/faces/"}, "without a slash at its end"),
        ({"root_path": "//faces"}, "root-path must look like"),
        ({"root_path": "/models/x"}, "must not begin like the server's own paths"),
        ({"forwarded_allow_ips": "proxy.example"}, "forwarded-allow-ips must be addresses or networks"),
        ({"forwarded_allow_ips": "127.0.0.1,"}, "forwarded-allow-ips must be addresses or networks"),
    ],
)
def test_what_cannot_be_a_prefix_or_a_proxy(settings: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Settings(**settings)  # type: ignore[arg-type]


def test_errors_are_ours_wherever_we_are_mounted(base: str) -> None:
    with httpx.Client(timeout=PATIENCE_S, headers=TOKEN) as client:
        for path, status in (("/models/tiny/image?seed=x", 400), ("/nowhere", 404), ("/models/gone", 404)):
            answer = client.get(base + path)
            assert (answer.status_code, list(answer.json())) == (status, ["error"])
