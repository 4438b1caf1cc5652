"""What Prometheus reads, by its own parser."""

import numpy as np
from prometheus_client.parser import text_string_to_metric_families

from support.paths import GOLDEN
from support.serving import Running, Start, infer_body


def read(server: Running) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    answer = server.http.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    families = text_string_to_metric_families(answer.text)
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


def test_requests_runs_and_models_are_counted(start: Start) -> None:
    server = start(GOLDEN / "tiny.onnx", GOLDEN / "style_w.onnx", f"bad={GOLDEN / 'README.md'}")
    body = infer_body({"z": np.zeros((3, 6), np.float32)})
    for _ in range(2):
        server.http.post("/v2/models/tiny/infer", json=body)
    server.http.post("/v2/models/tiny/infer", json={})
    server.http.get("/models/tiny/image")
    server.http.get("/no/such/path")
    found = read(server)

    def value(name: str, **labels: str) -> float | None:
        return found.get((name, tuple(sorted(labels.items()))))

    assert value("sefa_requests_total", model="tiny", route="infer", status="200") == 2
    assert value("sefa_requests_total", model="tiny", route="infer", status="400") == 1
    assert value("sefa_requests_total", model="tiny", route="image", status="200") == 1
    assert value("sefa_requests_total", model="", route="none", status="404") == 1
    assert value("sefa_request_seconds_count", model="tiny", route="infer") == 3
    assert value("sefa_queue_seconds_count", model="tiny") == 3
    assert value("sefa_run_seconds_count", model="tiny") == 3
    assert value("sefa_run_images_sum", model="tiny") == 7
    assert value("sefa_model_provider", model="tiny", provider="cpu") == 1
    assert value("sefa_model_ready", model="tiny", state="ready") == 1
    assert value("sefa_model_ready", model="bad", state="failed") == 0
    assert value("sefa_waiting_images", model="tiny") == 0
    assert value("sefa_run_seconds_count", model="style_w") == 0
