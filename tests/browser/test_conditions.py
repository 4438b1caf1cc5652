"""The page when things are not as they should be: slow, gone, locked; and models that take codes."""

import json
import re
import threading
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from playwright.sync_api import Page, Request, expect

import sefa_runtime
from browser.conftest import OpenPage
from browser.pages import alphas, pixels, shown, slide, wait_for_image
from sefa_runtime.editor import Editor
from sefa_runtime.inputs.batches import Feeds
from sefa_runtime.instances import load_instances
from support.paths import GOLDEN
from support.serving import Door, Running, Start, wait_until

pytestmark = pytest.mark.browser


@pytest.fixture
def door(monkeypatch: pytest.MonkeyPatch) -> Door:
    """An open door before every run of every model that is loaded from now on."""
    door = Door()
    door.open()
    infer = Editor.infer

    def held(self: Editor, feeds: Feeds) -> Any:
        assert door.opened.wait(30)
        door.runs.append(feeds["direction"].shape)
        return infer(self, feeds)

    monkeypatch.setattr(Editor, "infer", held)
    return door


def images_asked_for(page: Page) -> list[Request]:
    """The requests for images from now on."""
    asked: list[Request] = []
    page.on("request", lambda request: asked.append(request) if "/image?" in request.url else None)
    return asked


def test_what_is_overtaken_is_never_asked_for(door: Door, start_once: Start, open_page: OpenPage) -> None:
    server = start_once(GOLDEN / "tiny.onnx")
    page = open_page(f"http://{server.address}/#seed=7")
    wait_for_image(page)
    asked = images_asked_for(page)
    before = len(door.runs)
    door.close()
    for step in range(1, 41):
        slide(page, 0, 0.05 * step)
    page.wait_for_timeout(500)
    assert len(asked) == 1
    door.open()
    wait_for_image(page)
    assert len(asked) == 2
    assert len(door.runs) - before == 2
    assert asked[-1].url.endswith("/models/tiny/image?seed=7&edit=0:2&format=webp")
    answer = server.http.get("/models/tiny/image?seed=7&edit=0:2&format=png")
    np.testing.assert_array_equal(shown(page), pixels(answer.content))


def test_one_request_at_a_time_and_the_last_value_is_shown(start_once: Start, open_page: OpenPage) -> None:
    server = start_once(GOLDEN / "style_z.onnx")
    page = open_page(f"http://{server.address}/")
    wait_for_image(page)
    under_way = most = 0

    def began(request: Request) -> None:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)

    def ended(request: Request) -> None:
        nonlocal under_way
        under_way -= 1

    page.on("request", began)
    page.on("requestfinished", ended)
    page.on("requestfailed", ended)
    box = page.locator("#alpha-1").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 10)
    page.mouse.down()
    for step in range(60):
        page.mouse.move(box["x"] + box["width"] * (0.5 + step / 150), box["y"] + 10)
    page.mouse.up()
    wait_for_image(page)
    assert most <= 2
    alpha = alphas(page)[1]
    answer = server.http.get(f"/models/style_z/image?label=0&edit=1:{alpha}&format=png")
    np.testing.assert_array_equal(shown(page), pixels(answer.content))


def test_a_large_image_is_rough_in_motion_and_exact_at_rest(
    start_once: Start, open_page: OpenPage, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = start_once(GOLDEN / "tiny.onnx")
    page = open_page(f"http://{server.address}/")

    def enlarge(route: Any) -> None:
        answer = route.fetch()
        route.fulfill(response=answer, json={**answer.json(), "resolution": [1024, 1024]})

    page.route("**/models/tiny", enlarge)
    page.reload()
    wait_for_image(page)
    asked = images_asked_for(page)
    slide(page, 0, 1)
    slide(page, 0, 2)
    wait_for_image(page)
    formats = [request.url.rpartition("=")[2] for request in asked]
    assert formats[0] == "jpeg"
    assert formats[-1] == "webp"
    answer = server.http.get("/models/tiny/image?edit=0:2&format=png")
    np.testing.assert_array_equal(shown(page), pixels(answer.content))


def test_a_server_that_is_gone_and_comes_back(start_once: Start, open_page: OpenPage) -> None:
    server = start_once(GOLDEN / "tiny.onnx")
    page = open_page(f"http://{server.address}/#seed=7")
    wait_for_image(page)
    page.route("**/image?**", lambda route: route.abort("connectionrefused"))
    slide(page, 0, 2)
    expect(page.locator("#message")).to_have_text("The server does not answer. Trying again …")
    expect(page.locator("#announcement")).to_have_text("The server does not answer. Trying again …")
    slide(page, 0, 3)
    expect(page.locator("#notice")).to_be_visible()
    page.unroute("**/image?**")
    expect(page.locator("#notice")).to_be_hidden(timeout=12_000)
    wait_for_image(page)
    answer = server.http.get("/models/tiny/image?seed=7&edit=0:3&format=png")
    np.testing.assert_array_equal(shown(page), pixels(answer.content))


def test_a_server_that_has_ended(start_once: Start, open_page: OpenPage) -> None:
    server = start_once(GOLDEN / "tiny.onnx")
    page = open_page(f"http://{server.address}/#seed=7")
    wait_for_image(page)
    server.server.should_exit = True
    wait_until(lambda: _is_gone(server))
    slide(page, 0, 2)
    expect(page.locator("#message")).to_contain_text("The server")
    expect(page.get_by_role("button", name="Try again")).to_be_visible()


def _is_gone(server: Running) -> bool:
    try:
        server.http.get("/v2/health/live")
    except httpx.TransportError:
        return True
    return False


def test_what_the_server_refuses_is_said(start_once: Start, open_page: OpenPage) -> None:
    server = start_once(GOLDEN / "tiny.onnx", max_edits=2)
    page = open_page(f"http://{server.address}/#edit=0:1&edit=1:1&edit=2:1")
    expect(page.locator("#message")).to_have_text("The server says: at most 2 edits of an image, got 3.")
    page.get_by_role("button", name="Reset pose").click()
    expect(page.locator("#notice")).to_be_hidden()
    for _ in range(5):
        page.get_by_role("button", name="Random edits").click()
        assert 0 < sum(alpha != 0 for alpha in alphas(page)) <= 2


def test_a_model_that_is_still_loading(start_once: Start, open_page: OpenPage, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = threading.Event()

    def slowly(*arguments: Any, **options: Any) -> Any:
        assert loaded.wait(30)
        return load_instances(*arguments, **options)

    monkeypatch.setattr("sefa_runtime.server.models.load_instances", slowly)
    server = start_once(GOLDEN / "tiny.onnx", ready=False)
    try:
        page = open_page(f"http://{server.address}/")
        expect(page.locator("#message")).to_contain_text("Trying again")
    finally:
        loaded.set()
    expect(page.locator(".name")).to_have_count(4)
    wait_for_image(page)
    expect(page.locator("#notice")).to_be_hidden()


def test_a_token_is_asked_for_and_kept(start_once: Start, open_page: OpenPage) -> None:
    server = start_once(GOLDEN / "tiny.onnx", token="open sesame")
    page = open_page(f"http://{server.address}/#seed=7&edit=0:2")
    field = page.get_by_label("Token", exact=True)
    expect(field).to_be_focused()
    field.fill("guess")
    field.press("Enter")
    expect(page.locator("#token-problem")).to_have_text("The server did not take that token.")
    field.fill("open sesame")
    field.press("Enter")
    expect(page.locator("#token-dialog")).to_be_hidden()
    wait_for_image(page)
    answer = server.http.get(
        "/models/tiny/image?seed=7&edit=0:2&format=png", headers={"Authorization": "Bearer open sesame"}
    )
    np.testing.assert_array_equal(shown(page), pixels(answer.content))
    assert 'Bearer $SEFA_TOKEN"' in page.locator("#curl").inner_text()
    assert "sesame" not in page.content() + page.url
    page.reload()
    wait_for_image(page)
    expect(page.locator("#token-dialog")).to_be_hidden()


@pytest.mark.parametrize(("model", "name"), [("style_w+", "codes"), ("style_w", "w")])
def test_a_model_of_codes(start_once: Start, open_page: OpenPage, tmp_path: Path, model: str, name: str) -> None:
    server = start_once(GOLDEN / f"{model}.onnx")
    page = open_page(f"http://{server.address}/#edit=1:2")
    expect(page.locator("#no-image")).to_be_visible()
    expect(page.get_by_label("Seed", exact=True)).to_be_hidden()
    expect(page.get_by_role("button", name="Make sweep")).to_be_disabled()
    expect(page.locator("#code-explanation")).to_contain_text("not from seeds")

    editor = sefa_runtime.load(GOLDEN / f"{model}.onnx", "cpu")
    codes = np.random.RandomState(0).randn(2, *editor.info.latent_shape).astype(np.float32)
    given: dict[str, Any] = {name: codes}
    images = editor.edit(**given, edits={1: 2})
    np.save(tmp_path / "one.npy", codes[0])
    np.savez(tmp_path / "projected_w.npz", w=codes[:1])
    np.savez_compressed(tmp_path / "two.npz", w=codes.astype(np.float64), other=np.zeros(3))
    (tmp_path / "two.json").write_text(json.dumps(codes.tolist()))
    for file in ("one.npy", "projected_w.npz", "two.npz", "two.json"):
        page.get_by_label("File with codes").set_input_files(tmp_path / file)
        wait_for_image(page)
        np.testing.assert_array_equal(shown(page), images[0])
        # What a shell or Python could read is offered.
        assert page.locator("#python").is_visible() == (not file.endswith(".json"))
    page.get_by_label("Code, 1 to 2").fill("2")
    wait_for_image(page)
    np.testing.assert_array_equal(shown(page), images[1])
    assert page.url.endswith(f"#model={model.replace('+', '%2B')}&edit=1:2")

    np.save(tmp_path / "wrong.npy", np.zeros((3, 5), np.float32))
    (tmp_path / "text.json").write_text("{")
    for file, message in (("wrong.npy", r"have the shape \[3, 5\]"), ("text.json", "no .npy, .npz or .json")):
        page.get_by_label("File with codes").set_input_files(tmp_path / file)
        expect(page.locator("#message")).to_contain_text(re.compile(message))


def test_the_python_recipe_of_a_code(
    start_once: Start, open_page: OpenPage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server: Running = start_once(GOLDEN / "style_w+.onnx")
    page = open_page(f"http://{server.address}/#edit=1:2")
    np.savez(tmp_path / "two.npz", w=np.random.RandomState(0).randn(2, 8, 24))
    page.get_by_label("File with codes").set_input_files(tmp_path / "two.npz")
    page.get_by_label("Code, 1 to 2").fill("2")
    wait_for_image(page)
    for file in ("style_w+.onnx", "style.safetensors"):
        (tmp_path / file).write_bytes((GOLDEN / file).read_bytes())
    monkeypatch.chdir(tmp_path)
    exec(page.locator("#python").inner_text(), {})
    np.testing.assert_array_equal(pixels((tmp_path / "style_w+.png").read_bytes()), shown(page))
