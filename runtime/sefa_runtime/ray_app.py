"""The application of `sefa serve`, in replicas on Ray Serve. Needs the extra `ray`.

serve run sefa_runtime.ray_app:app model=faces.onnx num_replicas=2
"""

import os
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from ray import serve

from sefa_runtime.errors import InputError, ModelFileError
from sefa_runtime.server.app import create_app
from sefa_runtime.server.http.application import Application
from sefa_runtime.server.models import HostedModel, Models, parse_model
from sefa_runtime.server.settings import Settings

TOKEN_VARIABLE = "SEFA_TOKEN"


class Options(BaseModel):
    """Options, as NAME=VALUE for `serve run` or `args` in Ray's configuration files; limits as in `Settings`."""

    model_config = ConfigDict(extra="forbid")

    model: str = Field(description="PATH or NAME=PATH, on every node; several with commas")
    num_replicas: int | None = Field(None, description="That many, always; 1 if max_replicas is not given either")
    min_replicas: int = Field(1, description="With max_replicas; 0: none while nobody asks")
    max_replicas: int | None = Field(None, description="As many as are needed, up to that many")
    target_ongoing_requests: float = Field(2.0, description="Of one replica, with max_replicas")
    num_cpus: float = Field(1.0, description="Of one replica; also its threads, if whole")
    num_gpus: float = Field(0.0, description="Of one replica")
    provider: str = Settings.provider
    max_batch: int = Settings.max_batch
    max_delay_ms: float = Settings.max_delay_ms
    max_queue: int = Field(Settings.max_queue, description="Images that wait at a replica, and requests at a proxy")
    timeout_s: float = Settings.timeout_s
    max_edits: int = Settings.max_edits
    max_body_mb: float = Settings.max_body_mb


class Replica:
    """A process that holds the models. Ray calls its application, and restarts it when it dies or becomes unhealthy."""

    async def __init__(self, models: list[str], settings: Settings) -> None:  # type: ignore[misc]  # Ray awaits it.
        """Load the models; Ray sends no requests until then.

        Raises:
            ModelFileError: If none could be loaded.
        """
        self.settings = settings
        self.models = Models([HostedModel(*parse_model(text), settings) for text in models])
        await self.models.load()
        self.check_health()

    def __serve_build_asgi_app__(self) -> Application:
        return create_app(self.models, self.settings)

    def check_health(self) -> None:
        """Check that at least one model is ready.

        Raises:
            ModelFileError: If none is.
        """
        if not self.models.ready:
            raise ModelFileError("; ".join(f"{model.name}: {model.reason or model.state}" for model in self.models))


def app(options: Options) -> serve.Application:
    """Build the application for Ray: `serve run sefa_runtime.ray_app:app model=faces.onnx`, or `serve.run(app(...))`.

    The token, if any, comes from the environment variable SEFA_TOKEN of the calling process.

    Raises:
        InputError: If a name or limit is invalid.
    """
    settings = Settings(
        provider=options.provider,
        threads=max(1, int(options.num_cpus)),
        max_batch=options.max_batch,
        max_delay_ms=options.max_delay_ms,
        max_queue=options.max_queue,
        timeout_s=options.timeout_s,
        max_edits=options.max_edits,
        max_body_mb=options.max_body_mb,
        token=os.environ.get(TOKEN_VARIABLE) or None,
    )
    models = []
    for text in options.model.split(","):
        name, path = parse_model(text)
        models.append(f"{name}={path.absolute()}")  # Replicas have another working directory.
    deployment = serve.deployment(
        serve.ingress()(Replica),
        name="sefa",
        # The requests of one run, and those gathering for the next; Ray queues the others.
        max_ongoing_requests=2 * options.max_batch,
        max_queued_requests=options.max_queue,
        ray_actor_options={"num_cpus": options.num_cpus, "num_gpus": options.num_gpus},
        graceful_shutdown_timeout_s=options.timeout_s,
        **_scale(options),
    )
    return deployment.bind(models, settings)


def _scale(options: Options) -> dict[str, Any]:
    if options.max_replicas is None:
        return {"num_replicas": options.num_replicas or 1}
    if options.num_replicas is not None:
        raise InputError("num_replicas and max_replicas exclude each other")
    scale = {name: getattr(options, name) for name in ("min_replicas", "max_replicas", "target_ongoing_requests")}
    return {"autoscaling_config": scale}
