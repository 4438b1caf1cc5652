"""The methods of the gRPC services: decoding requests and filling in responses."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from sefa_runtime.errors import InputError
from sefa_runtime.server import model_documents
from sefa_runtime.server.errors import UnknownModelError
from sefa_runtime.server.grpc.messages import load_services, message_class
from sefa_runtime.server.inference import GivenTensor, InferRequest, generate, prepare
from sefa_runtime.server.models import VERSION, HostedModel, Models
from sefa_runtime.server.pipeline import Exchange

SERVICE = "inference.GRPCInferenceService"
# Methods that need no token.
OPEN = ("ServerLive", "ServerReady", "Check")
# The field that holds a tensor's numbers if they are not raw bytes.
CONTENTS = {"FP32": "fp32_contents", "INT64": "int64_contents"}
MAX_TENSORS = 16

Answer = Callable[[Any, Exchange], Awaitable[dict[str, Any]]]


@dataclass(frozen=True)
class Method:
    """One method of a service."""

    service: str
    name: str
    request: Any  # class of the request message
    response: Any
    answer: Answer  # returns the response's fields

    @property
    def is_open(self) -> bool:
        """Whether it needs no token."""
        return self.name in OPEN


class Service:
    """The methods, for the models of a server."""

    def __init__(self, models: Models) -> None:
        self.models = models

    def methods(self) -> list[Method]:
        """Return all methods on offer."""
        answers: dict[str, Answer] = {
            "ModelInfer": self.infer,
            "ServerLive": self.server_live,
            "ServerReady": self.server_ready,
            "ServerMetadata": self.server_metadata,
            "ModelReady": self.model_ready,
            "ModelMetadata": self.model_metadata,
            "ModelConfig": self.model_config,
            "ModelStatistics": self.model_statistics,
            "Check": self.check,
        }
        return [
            Method(
                service_name,
                method.name,
                message_class(method.input_type),
                message_class(method.output_type),
                answers[method.name],
            )
            for service_name, service in load_services().items()
            for method in service.methods
        ]

    async def infer(self, request: Any, exchange: Exchange) -> dict[str, Any]:
        """Return images, as raw bytes."""
        model = exchange.find_model(request.model_name, request.model_version or VERSION, for_images=True)
        wanted = decode_request(request)
        image = await generate(exchange, model, prepare(model, wanted))
        output = model.info.signature.output
        return {
            "model_name": model.name,
            "model_version": VERSION,
            "id": wanted.id or exchange.request_id,
            "outputs": [{"name": output.name, "datatype": output.datatype, "shape": image.shape}],
            "raw_output_contents": [image.tobytes()],
        }

    async def server_live(self, request: Any, exchange: Exchange) -> dict[str, Any]:
        """Return whether the process answers."""
        return {"live": True}

    async def server_ready(self, request: Any, exchange: Exchange) -> dict[str, Any]:
        """Return whether the server should be sent requests."""
        return {"ready": self.models.ready}

    async def server_metadata(self, request: Any, exchange: Exchange) -> dict[str, Any]:
        """Return the server's name, version and extensions."""
        return model_documents.SERVER_METADATA

    async def model_ready(self, request: Any, exchange: Exchange) -> dict[str, Any]:
        """Return whether a model is ready."""
        return {"ready": _model(request, exchange).ready}

    async def model_metadata(self, request: Any, exchange: Exchange) -> dict[str, Any]:
        """Return the inputs and outputs of a model."""
        return model_documents.model_metadata(_model(request, exchange))

    async def model_config(self, request: Any, exchange: Exchange) -> dict[str, Any]:
        """Return a model's configuration as Triton words it."""
        return {"config": model_documents.model_config(_model(request, exchange))}

    async def model_statistics(self, request: Any, exchange: Exchange) -> dict[str, Any]:
        """Return a model's statistics as Triton words them, or those of all models if none is named."""
        models = [_model(request, exchange)] if request.name else list(self.models)
        return {"model_stats": [model_documents.model_statistics(model) for model in models]}

    async def check(self, request: Any, exchange: Exchange) -> dict[str, Any]:
        """Return whether the server is ready: the health check of Kubernetes and load balancers."""
        if request.service not in ("", SERVICE):
            raise UnknownModelError(f"no service {request.service[:128]!r} here: {SERVICE}")
        return {"status": "SERVING" if self.models.ready else "NOT_SERVING"}


def _model(request: Any, exchange: Exchange) -> HostedModel:
    return exchange.find_model(request.name, request.version or VERSION)


def decode_request(request: Any) -> InferRequest:
    """Decode a `ModelInferRequest`, whose tensors are either all raw bytes or all numbers.

    Raises:
        InputError: If it breaks the protocol, or asks for something that is not offered.
    """
    raw = request.raw_input_contents
    for name, tensors in (("inputs", request.inputs), ("outputs", request.outputs)):
        if len(tensors) > MAX_TENSORS:
            raise InputError(f"at most {MAX_TENSORS} {name} in a request, got {len(tensors)}")
    if raw and len(raw) != len(request.inputs):
        raise InputError(f"raw_input_contents must be as many as inputs: {len(request.inputs)}, got {len(raw)}")
    inputs = []
    for index, entry in enumerate(request.inputs):
        if raw and entry.HasField("contents"):
            raise InputError(f"input {entry.name[:128]!r}: contents must not stand beside raw_input_contents")
        data = raw[index] if raw else getattr(entry.contents, CONTENTS.get(entry.datatype, ""), ())
        inputs.append(GivenTensor(entry.name, entry.datatype, entry.shape, entry.parameters, data))
    for entry in request.outputs:
        if "shared_memory_region" in entry.parameters or (
            "classification" in entry.parameters and entry.parameters["classification"].int64_param
        ):
            raise InputError(f"output {entry.name[:128]!r}: shared memory and classification are not offered here")
    return InferRequest(request.id, inputs, [entry.name for entry in request.outputs], binary=True)
