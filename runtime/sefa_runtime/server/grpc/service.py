"""The Open Inference Protocol v2 over gRPC: from messages to messages."""

import math
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from sefa_runtime.errors import InputError
from sefa_runtime.server import inference
from sefa_runtime.server.errors import UnknownModelError
from sefa_runtime.server.grpc.messages import HEALTH, INFERENCE, Messages
from sefa_runtime.server.http.v2_tensors import DTYPES, MAX_DIMENSION, MAX_DIMENSIONS, MAX_ID, Tensor, check_datatype
from sefa_runtime.server.models import VERSION, HostedModel, Models

SERVICE = "inference.GRPCInferenceService"
HEALTH_SERVICE = "grpc.health.v1.Health"
# Where the numbers of a tensor stand that are not raw bytes.
CONTENTS = {"FP32": "fp32_contents", "INT64": "int64_contents"}
MAX_TENSORS = 16

Facts = dict[str, Any]


@dataclass(frozen=True)
class Method:
    """One call of a service."""

    service: str
    name: str
    request: Any  # its class
    answer: Callable[[Any, Facts], Awaitable[Any]]  # notes facts for the log; facts["request_id"] is there
    is_open: bool = False  # also to those who have no token


class Service:
    """Answers for the models of a server."""

    def __init__(self, models: Models) -> None:
        self.models = models
        self.messages = Messages("inference", INFERENCE)
        self.health = Messages("grpc.health.v1", HEALTH)

    def methods(self) -> list[Method]:
        """All calls that are offered."""
        messages = self.messages
        return [
            Method(SERVICE, "ModelInfer", messages["ModelInferRequest"], self.infer),
            Method(SERVICE, "ServerLive", messages["ServerLiveRequest"], self.server_live, is_open=True),
            Method(SERVICE, "ServerReady", messages["ServerReadyRequest"], self.server_ready, is_open=True),
            Method(SERVICE, "ServerMetadata", messages["ServerMetadataRequest"], self.server_metadata),
            Method(SERVICE, "ModelReady", messages["ModelReadyRequest"], self.model_ready),
            Method(SERVICE, "ModelMetadata", messages["ModelMetadataRequest"], self.model_metadata),
            Method(SERVICE, "ModelConfig", messages["ModelConfigRequest"], self.model_config),
            Method(SERVICE, "ModelStatistics", messages["ModelStatisticsRequest"], self.model_statistics),
            Method(HEALTH_SERVICE, "Check", self.health["HealthCheckRequest"], self.check, is_open=True),
        ]

    async def infer(self, request: Any, facts: Facts) -> Any:
        """Images, as raw bytes."""
        model = self._model(request.model_name, request.model_version, facts)
        if len(request.id) > MAX_ID:
            raise InputError(f"id must be a string of at most {MAX_ID} characters")
        settings = model.settings
        largest = settings.max_batch * max(settings.max_edits, math.prod(model.info.latent_shape))
        inputs, outputs = read_inputs(request, largest, inference.datatypes(model.info)), read_outputs(request)
        answer = await inference.infer(model, inputs, outputs)
        facts |= {
            "images": len(answer.image),
            "run_images": answer.run_images,
            "queue_ms": round(answer.queue_ns / 1e6, 3),
            "run_ms": round(answer.run_ns / 1e6, 3),
        }
        spec = inference.output_spec(model.info)
        return self.messages["ModelInferResponse"](
            model_name=model.name,
            model_version=VERSION,
            id=request.id or facts["request_id"],
            outputs=[{"name": spec.name, "datatype": spec.datatype, "shape": answer.image.shape}],
            raw_output_contents=[answer.image.tobytes()],
        )

    async def server_live(self, request: Any, facts: Facts) -> Any:
        """Whether the process answers."""
        return self.messages["ServerLiveResponse"](live=True)

    async def server_ready(self, request: Any, facts: Facts) -> Any:
        """Whether the server should get requests."""
        return self.messages["ServerReadyResponse"](ready=self.models.ready)

    async def server_metadata(self, request: Any, facts: Facts) -> Any:
        """What this server is."""
        return self.messages["ServerMetadataResponse"](**inference.SERVER_METADATA)

    async def model_ready(self, request: Any, facts: Facts) -> Any:
        """Whether a model answers."""
        model = self._model(request.name, request.version, facts)
        return self.messages["ModelReadyResponse"](ready=model.ready)

    async def model_metadata(self, request: Any, facts: Facts) -> Any:
        """Inputs and outputs of a model."""
        model = self._model(request.name, request.version, facts)
        return self.messages["ModelMetadataResponse"](**inference.model_metadata(model))

    async def model_config(self, request: Any, facts: Facts) -> Any:
        """Triton's configuration of a model."""
        model = self._model(request.name, request.version, facts)
        return self.messages["ModelConfigResponse"](config=inference.model_config(model))

    async def model_statistics(self, request: Any, facts: Facts) -> Any:
        """Triton's statistics of a model, or of all if none is named."""
        models = [self._model(request.name, request.version, facts)] if request.name else list(self.models)
        return self.messages["ModelStatisticsResponse"](
            model_stats=[inference.model_statistics(model) for model in models]
        )

    async def check(self, request: Any, facts: Facts) -> Any:
        """Readiness, as Kubernetes and load balancers ask for it."""
        if request.service not in ("", SERVICE):
            raise UnknownModelError(f"no service {request.service[:128]!r} here: {SERVICE}")
        return self.health["HealthCheckResponse"](status="SERVING" if self.models.ready else "NOT_SERVING")

    def _model(self, name: str, version: str, facts: Facts) -> HostedModel:
        model = self.models.get(name, version or VERSION)
        facts["model"] = model.name
        return model


def read_inputs(request: Any, largest: int, datatypes: Mapping[str, str]) -> dict[str, Tensor]:
    """The tensors of a `ModelInferRequest`: all as raw bytes, or all as numbers.

    Args:
        request: The message.
        largest: How many numbers a tensor may have; raw bytes cost nothing to read, and are not counted here.
        datatypes: Of the model's inputs, by their names.

    Raises:
        InputError: If they are not as the protocol has it.
    """
    raw = request.raw_input_contents
    if len(request.inputs) > MAX_TENSORS:
        raise InputError(f"at most {MAX_TENSORS} inputs in a request, got {len(request.inputs)}")
    if raw and len(raw) != len(request.inputs):
        raise InputError(f"raw_input_contents must be as many as inputs: {len(request.inputs)}, got {len(raw)}")
    inputs: dict[str, Tensor] = {}
    for index, entry in enumerate(request.inputs):
        name, shape = entry.name[:128], tuple(entry.shape[: MAX_DIMENSIONS + 1])
        if name in inputs:
            raise InputError(f"input {name!r} is given twice")
        datatype = check_datatype(name, entry.datatype, datatypes)
        if len(shape) > MAX_DIMENSIONS or not all(0 <= size <= MAX_DIMENSION for size in shape):
            raise InputError(
                f"input {name!r}: shape must be at most {MAX_DIMENSIONS} sizes, got {str(list(shape))[:80]}"
            )
        if "shared_memory_region" in entry.parameters:
            raise InputError(f"input {name!r}: shared memory is not offered here")
        dtype = np.dtype(DTYPES[datatype])
        if not raw:
            numbers = getattr(entry.contents, CONTENTS[datatype])
            if len(numbers) > largest:
                raise InputError(f"input {name!r}: at most {largest} numbers, got {len(numbers)}")
            array = np.fromiter(numbers, dtype, len(numbers))
        elif entry.HasField("contents"):
            raise InputError(f"input {name!r}: contents must not stand beside raw_input_contents")
        elif len(raw[index]) % dtype.itemsize:
            raise InputError(f"input {name!r}: {len(raw[index])} raw bytes are not whole numbers")
        else:
            array = np.frombuffer(raw[index], dtype.newbyteorder("<"))
        if array.size != math.prod(shape):
            raise InputError(f"input {name!r}: {array.size} {datatype} do not fill the shape {list(shape)}")
        inputs[name] = Tensor(datatype, array.reshape(shape))
    return inputs


def read_outputs(request: Any) -> list[str]:
    """The names of the outputs that a `ModelInferRequest` wants; none is all.

    Raises:
        InputError: If they are wanted in a way that we do not offer.
    """
    if len(request.outputs) > MAX_TENSORS:
        raise InputError(f"at most {MAX_TENSORS} outputs in a request, got {len(request.outputs)}")
    for entry in request.outputs:
        if "shared_memory_region" in entry.parameters or (
            "classification" in entry.parameters and entry.parameters["classification"].int64_param
        ):
            raise InputError(f"output {entry.name[:128]!r}: shared memory and classification are not offered here")
    return [entry.name for entry in request.outputs]
