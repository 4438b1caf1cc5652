"""Prometheus metrics: requests and errors, time in the queue and in runs, images per run, the provider that runs."""

from collections.abc import Callable, Iterator

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from sefa_runtime.server.batching import RunRecord
from sefa_runtime.server.models import Models

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
IMAGES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """Counters since the server's start."""

    media_type = CONTENT_TYPE_LATEST

    def __init__(self, models: Models) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "sefa_requests", "Requests by route and status.", ("model", "route", "status"), registry=self._registry
        )
        self._request_seconds = Histogram(
            "sefa_request_seconds",
            "From a request's headers to the end of its answer.",
            ("model", "route"),
            buckets=SECONDS,
            registry=self._registry,
        )
        # Counter and histogram by model, route and status: looking them up each time takes longer than counting.
        self._found: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}
        self._registry.register(_ModelStates(models))
        queue_seconds = Histogram(
            "sefa_queue_seconds",
            "Requests' wait for their run.",
            ("model",),
            buckets=(0.0005, *SECONDS),
            registry=self._registry,
        )
        run_seconds = Histogram(
            "sefa_run_seconds", "Runs of the graph.", ("model",), buckets=SECONDS, registry=self._registry
        )
        run_images = Histogram(
            "sefa_run_images", "Images in a run.", ("model",), buckets=IMAGES, registry=self._registry
        )
        failed_runs = Counter("sefa_failed_runs", "Runs that failed.", ("model",), registry=self._registry)
        for model in models:
            children = (
                queue_seconds.labels(model.name),
                run_seconds.labels(model.name),
                run_images.labels(model.name),
                failed_runs.labels(model.name),
            )
            model.observers.append(_observer(*children))

    def count_request(self, model: str, route: str, status: int, seconds: float) -> None:
        """Count a finished request; `model` is empty if it was for no model."""
        key = model, route, status
        if key not in self._found:
            self._found[key] = self._requests.labels(*key), self._request_seconds.labels(model, route)
        count, duration = self._found[key]
        count.inc()
        duration.observe(seconds)

    def text(self) -> bytes:
        """Return all metrics in Prometheus's text format."""
        return generate_latest(self._registry)


class _ModelStates(Collector):
    """The models' states at the time Prometheus asks."""

    def __init__(self, models: Models) -> None:
        self._models = models

    def collect(self) -> Iterator[GaugeMetricFamily]:
        ready = GaugeMetricFamily("sefa_model_ready", "1 if the model answers.", labels=("model", "state"))
        waiting = GaugeMetricFamily("sefa_waiting_images", "Images that wait for a run.", labels=("model",))
        provider = GaugeMetricFamily(
            "sefa_model_provider", "1: the execution provider that runs the model.", labels=("model", "provider")
        )
        for model in self._models:
            ready.add_metric((model.name, model.state), float(model.ready))
            waiting.add_metric((model.name,), model.waiting_images)
            if model.loaded:
                provider.add_metric((model.name, model.editor.provider), 1)
        yield from (ready, waiting, provider)


def _observer(
    queue_seconds: Histogram, run_seconds: Histogram, run_images: Histogram, failed_runs: Counter
) -> Callable[[RunRecord], None]:
    def observe(record: RunRecord) -> None:
        for waited_ns in record.queue_ns:
            queue_seconds.observe(waited_ns / 1e9)
        run_seconds.observe(record.run_ns / 1e9)
        run_images.observe(record.images)
        if record.failed:
            failed_runs.inc()

    return observe
