"""The description of the endpoints: schemathesis asks what it says may be asked; its examples work."""

import io
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from PIL import Image
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance

from support.paths import GOLDEN
from support.patience import PATIENCE_S
from support.serving import Running, Start, image_in


@pytest.fixture(scope="module")
def server(start: Start) -> Running:
    """A server of models with and without conditions."""
    return start(GOLDEN / "tiny.onnx", GOLDEN / "style_w.onnx")


@pytest.fixture(scope="module")
def document(server: Running) -> dict[str, Any]:
    """What /openapi.json says."""
    found: dict[str, Any] = server.http.get("/openapi.json").json()
    return found


def test_every_endpoint_is_described(document: dict[str, Any]) -> None:
    assert list(document["paths"]) == [
        "/models",
        "/models/{model}",
        "/models/{model}/image",
        "/models/{model}/edit",
        "/v2",
        "/v2/models/{model}",
        "/v2/models/{model}/infer",
        "/v2/models/{model}/ready",
        "/v2/models/{model}/config",
        "/v2/models/{model}/stats",
        "/v2/models/stats",
        "/v2/health/live",
        "/v2/health/ready",
        "/metrics",
    ]


@pytest.mark.parametrize("model", ["tiny", "style_z", "style_w", "style_w+"])
def test_the_examples_work(start: Start, model: str) -> None:
    server = start(GOLDEN / f"{model}.onnx")
    paths = server.http.get("/openapi.json").json()["paths"]

    def examples(path: str) -> list[Any]:
        content = paths[path]["post"]["requestBody"]["content"]["application/json"]
        return [example["value"] for example in content["examples"].values()]

    (body,) = examples("/v2/models/{model}/infer")
    assert image_in(server.http.post(f"/v2/models/{model}/infer", json=body)).size
    for body in examples("/models/{model}/edit"):
        answer = server.http.post(f"/models/{model}/edit", json=body)
        assert answer.status_code == 200, answer.text
        with Image.open(io.BytesIO(answer.content)) as image:
            image.load()


def test_the_documents_page_asks_for_nothing_from_elsewhere(server: Running) -> None:
    page = server.http.get("/docs")
    assert page.status_code == 200
    assert "http://" not in page.text
    assert "https://" not in page.text
    for name in ("swagger-ui-bundle.js", "swagger-ui.css", "favicon.png"):
        assert f'"docs/{name}"' in page.text
        assert server.http.get(f"/docs/{name}").status_code == 200


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
def test_the_server_keeps_to_its_description(server: Running, document: dict[str, Any], mode: GenerationMode) -> None:
    asked = set()
    for result in schemathesis.openapi.from_dict(document).get_all_operations():
        operation = result.ok()  # type: ignore[union-attr]

        @settings(max_examples=30, suppress_health_check=list(HealthCheck))
        @given(case=operation.as_strategy(generation_mode=mode))
        def ask(case: Any) -> None:
            # Not all that the description allows can be taken: sizes of latents and names are the model's.
            case.call_and_validate(
                base_url=f"http://{server.address}", excluded_checks=[positive_data_acceptance], timeout=PATIENCE_S
            )

        try:
            ask()
        except Unsatisfiable:  # Nothing can be wrong with a request that has no fields.
            continue
        asked.add(operation.path)
    assert {"/v2/models/{model}/infer", "/models/{model}/edit", "/models/{model}/image"} <= asked
    assert mode is GenerationMode.NEGATIVE or len(asked) == len(document["paths"])
