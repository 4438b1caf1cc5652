"""A KServe InferenceService for an exported model, for `kubectl apply -f`.

Sources: kserve/kserve, pkg/apis/serving/v1beta1 and config/runtimes/kserve-tritonserver.yaml.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from sefa_runtime.errors import InputError, ModelFileError
from sefa_runtime.model.reading import is_onnx, read_info

# No more than a container needs that serves models. The user is any but root; the image need not know it.
USER = 10001
CONFINED = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}

Document: TypeAlias = Mapping[str, "str | int | Document | Sequence[str] | Sequence[Document]"]

SERVICE_NAME = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")
STORAGE_URI = re.compile(r"[a-z0-9+.-]+://[!-~]+")
IMAGE = re.compile(r"[A-Za-z0-9][!-~]*")
CPUS = re.compile(r"[0-9]+(\.[0-9]+)?m?")
MEMORY = re.compile(r"[0-9]+(\.[0-9]+)?([KMGT]i?|k)?")
# The release that repositories from `sefa triton` are tested with. KServe's default is 23.05, whose onnxruntime (1.15)
# refuses older exports of IR version 10, made before files were stamped with the lowest version that they need.
TRITON_VERSION = "24.10-py3"
# Where KServe puts the contents of the storage URI, and the port on which it expects a container to listen.
MODELS_FOLDER = "/mnt/models"
PORT = 8080


@dataclass(frozen=True)
class KServeOptions:
    """How KServe runs the model.

    Raises:
        InputError: If a value is invalid, or options exclude each other.
    """

    runtime: str = "triton"  # "triton": KServe's Triton; "sefa": a container image that contains `sefa serve`
    storage_uri: str | None = None  # the Triton repository, or for "sefa" the model's folder; None: pvc://NAME
    image: str | None = None  # for "sefa"
    runtime_version: str | None = None  # for "triton": the image's tag; None: TRITON_VERSION
    gpus: int | None = None  # per replica
    cpus: str = "2"  # per replica, as Kubernetes writes it: 2, 500m
    memory: str = "4Gi"  # per replica, as Kubernetes writes it
    min_replicas: int = 1  # 0: none while there are no requests
    max_replicas: int | None = None  # None: min_replicas, or 1
    concurrency: int | None = None  # concurrent requests per replica to scale for; None: KServe's choice

    def __post_init__(self) -> None:
        for name, value, least, most in (
            ("gpus", self.gpus, 1, 64),
            ("min-replicas", self.min_replicas, 0, 10_000),
            ("max-replicas", self.max_replicas, max(self.min_replicas, 1), 10_000),
            ("concurrency", self.concurrency, 1, 100_000),
        ):
            if value is not None and not least <= value <= most:
                raise InputError(f"{name} must be in {least}..{most}, got {value}")
        for name, text, pattern, example in (
            ("storage-uri", self.storage_uri, STORAGE_URI, "s3://bucket/repo"),
            ("image", self.image, IMAGE, "registry.example.org/sefa:1"),
            ("runtime-version", self.runtime_version, IMAGE, TRITON_VERSION),
            ("cpus", self.cpus, CPUS, "2 or 500m"),
            ("memory", self.memory, MEMORY, "4Gi"),
        ):
            if text is not None and not pattern.fullmatch(text):
                raise InputError(f"{name} looks like {example}, got {text!r}")
        if self.runtime not in ("triton", "sefa"):
            raise InputError(f"runtime must be triton or sefa, got {self.runtime!r}")
        if self.runtime == "sefa" and (self.image is None or self.runtime_version is not None):
            raise InputError("the runtime sefa runs an image of yours: give image, and no runtime-version")
        if self.runtime == "triton" and self.image is not None:
            raise InputError("image is for the runtime sefa; Triton's is chosen by runtime-version")


def inference_service(model: Path, options: KServeOptions, name: str | None = None) -> Document:
    """Return the InferenceService as a document.

    Args:
        model: An ONNX file made by `sefa export`.
        options: How to run it.
        name: The service's name; None takes the file's, in lower case and with `-` for `_` and `.`.

    Raises:
        ModelFileError: If the model is missing, damaged or not one of ours.
        InputError: If Kubernetes would not take the name.
    """
    read_info(model)
    if not is_onnx(model):
        raise ModelFileError(f"{model}: an archive that runs in torch; the .onnx export is needed here")
    if name is None:
        name = re.sub(r"[_.]", "-", model.stem.lower())
    if not SERVICE_NAME.fullmatch(name):
        raise InputError(
            f"a service's name has lower-case letters, digits and -, and begins with a letter, got {name[:128]!r}; "
            "give another with --name"
        )
    predictor: dict[str, object] = {
        "minReplicas": options.min_replicas,
        "maxReplicas": options.max_replicas or max(options.min_replicas, 1),
    }
    if options.concurrency is not None:
        predictor |= {"scaleMetric": "concurrency", "scaleTarget": options.concurrency}
    storage_uri = options.storage_uri or f"pvc://{name}"
    if options.runtime == "triton":
        predictor["model"] = _triton(options, storage_uri)
    else:
        predictor["containers"] = [_sefa(options, storage_uri, model)]
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": name},
        "spec": {"predictor": predictor},  # type: ignore[dict-item]  # Contains only what a Document may.
    }


def to_yaml(document: Document, indent: str = "") -> str:
    """Return a document as YAML, in its order; strings are written as in JSON, which YAML reads the same way."""
    lines = []
    for key, value in document.items():
        if isinstance(value, Mapping):
            lines.append(f"{indent}{key}:\n{to_yaml(value, indent + '  ')}")
        elif isinstance(value, str | int):
            lines.append(f"{indent}{key}: {json.dumps(value)}\n")
        else:
            lines.append(f"{indent}{key}:\n")
            for item in value:
                text = to_yaml(item, indent + "    ") if isinstance(item, Mapping) else json.dumps(item) + "\n"
                lines.append(f"{indent}  - {text.lstrip(' ')}")
    return "".join(lines)


def _triton(options: KServeOptions, storage_uri: str) -> dict[str, object]:
    model: dict[str, object] = {
        "modelFormat": {"name": "triton", "version": "2"},
        "runtime": "kserve-tritonserver",
        "runtimeVersion": options.runtime_version or TRITON_VERSION,
        "protocolVersion": "v2",
        "storageUri": storage_uri,
        "securityContext": CONFINED,
        "resources": _resources(options),
    }
    if options.gpus is not None:
        # TF32 would break the parity measured at export, and older Triton backends do not take use_tf32.
        model["env"] = [{"name": "NVIDIA_TF32_OVERRIDE", "value": "0"}]
    return model


def _sefa(options: KServeOptions, storage_uri: str, model: Path) -> dict[str, object]:
    command = ["sefa", "serve", f"{MODELS_FOLDER}/{model.name}", "--host", "0.0.0.0", "--port", str(PORT)]
    return {
        "name": "kserve-container",
        "image": options.image,
        "command": [*command, "--provider", "cuda" if options.gpus is not None else "cpu"],
        "env": [{"name": "STORAGE_URI", "value": storage_uri}],
        "ports": [{"containerPort": PORT, "protocol": "TCP"}],
        "readinessProbe": {"httpGet": {"path": "/v2/health/ready", "port": PORT}},
        "securityContext": {**CONFINED, "readOnlyRootFilesystem": True, "runAsNonRoot": True, "runAsUser": USER},
        "resources": _resources(options),
    }


def _resources(options: KServeOptions) -> dict[str, object]:
    amounts = {"cpu": options.cpus, "memory": options.memory}
    if options.gpus is not None:
        amounts["nvidia.com/gpu"] = str(options.gpus)
    return {"requests": amounts, "limits": amounts}
