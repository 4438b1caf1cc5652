"""The InferenceService against YAML's reader, and against the classes of KServe's own SDK."""

import json
import subprocess
import venv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conftest import Result
from sefa_runtime import InputError
from sefa_runtime.deploy.kserve import Document, KServeOptions, inference_service, to_yaml
from support.paths import GOLDEN

yaml = pytest.importorskip("yaml")
SERVICES: dict[str, KServeOptions] = {
    "plain": KServeOptions(),
    "gpus": KServeOptions(storage_uri="s3://bucket/repo", gpus=2, min_replicas=0, max_replicas=4, concurrency=8),
    "sefa": KServeOptions(runtime="sefa", image="registry.example.org/sefa:1", memory="8Gi"),
    "sefa_gpus": KServeOptions(runtime="sefa", image="example/sefa@sha256:0f", gpus=1),
}
# Builds the object of KServe's classes, and Kubernetes' below them: refuses a field that they do not have, one that is
# missing, and a value of another type.
PROGRAM = """
import json, re, sys
import kserve, kubernetes.client, yaml

def build(value, kind, where):
    listed = re.fullmatch(r"[lL]ist\\[(.*)\\]", kind)
    if listed:
        assert isinstance(value, list), where
        return [build(item, listed[1], f"{where}[]") for item in value]
    if kind.lower().startswith("dict"):
        assert all(isinstance(text, str) for pair in value.items() for text in pair), where
        return value
    if kind in ("str", "int", "bool"):
        assert type(value).__name__ == kind, f"{where}: {value!r} is no {kind}"
        return value
    if kind == "object":  # A port: a number or a name.
        return value
    cls = getattr(kserve, kind, None) or getattr(kubernetes.client, kind)
    names = {theirs: ours for ours, theirs in cls.attribute_map.items()}
    unknown = set(value) - set(names)
    assert not unknown, f"{where}: {kind} has no {unknown}"
    types = {theirs: cls.openapi_types[ours] for theirs, ours in names.items()}
    return cls(**{names[key]: build(item, types[key], f"{where}.{key}") for key, item in value.items()})

for path in sys.argv[1:]:
    with open(path) as file:
        document = yaml.safe_load(file)
    print(build(document, "V1beta1InferenceService", "").spec.predictor.min_replicas)
"""


@pytest.mark.parametrize("options", SERVICES.values(), ids=SERVICES)
def test_no_container_may_do_more_than_it_needs(options: KServeOptions) -> None:
    predictor = yaml.safe_load(to_yaml(service(options)))["spec"]["predictor"]
    (container,) = predictor["containers"] if options.runtime == "sefa" else [predictor["model"]]
    context = container["securityContext"]
    assert context["allowPrivilegeEscalation"] is False
    assert context["capabilities"] == {"drop": ["ALL"]}
    if options.runtime == "sefa":
        assert context["readOnlyRootFilesystem"] is context["runAsNonRoot"] is True
        assert context["runAsUser"] > 0


def service(options: KServeOptions, name: str | None = None) -> Document:
    return inference_service(GOLDEN / "tiny.onnx", options, name)


@pytest.mark.parametrize("options", SERVICES.values(), ids=SERVICES)
def test_yaml_reads_back_what_was_written(options: KServeOptions) -> None:
    document = service(options)
    assert yaml.safe_load(to_yaml(document)) == json.loads(json.dumps(document))


def test_texts_that_yaml_could_take_for_something_else_stay_texts() -> None:
    document: Document = {
        "a": {"b": ["no", "1e3", "- x", "a: b", '"', "#", "2"]},
        "c": [{"d": "null", "e": 1}, {"f": ["~"]}],
    }
    assert yaml.safe_load(to_yaml(document)) == document


def test_triton_gets_a_release_that_knows_our_models_and_the_gpus() -> None:
    document: Any = service(SERVICES["gpus"])
    predictor = document["spec"]["predictor"]
    assert [predictor[key] for key in ("minReplicas", "maxReplicas", "scaleMetric", "scaleTarget")] == [
        0,
        4,
        "concurrency",
        8,
    ]
    model = predictor["model"]
    assert (model["runtime"], model["runtimeVersion"], model["protocolVersion"], model["storageUri"]) == (
        "kserve-tritonserver",
        "24.10-py3",
        "v2",
        "s3://bucket/repo",
    )
    assert model["resources"]["limits"] == {"cpu": "2", "memory": "4Gi", "nvidia.com/gpu": "2"}


def test_the_image_of_sefa_serves_the_file_where_kserve_puts_it() -> None:
    document: Any = service(SERVICES["sefa"])
    container = document["spec"]["predictor"]["containers"][0]
    assert container["command"][:3] == ["sefa", "serve", "/mnt/models/tiny.onnx"]
    assert container["env"] == [{"name": "STORAGE_URI", "value": "pvc://tiny"}]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"gpus": 0}, "gpus must be in 1..64, got 0"),
        ({"min_replicas": 3, "max_replicas": 2}, "max-replicas must be in 3..10000, got 2"),
        ({"storage_uri": "bucket/repo"}, "storage-uri looks like s3://bucket/repo, got 'bucket/repo'"),
        ({"memory": "4 GB"}, "memory looks like 4Gi, got '4 GB'"),
        ({"runtime": "sefa"}, "the runtime sefa runs an image of yours: give image, and no runtime-version"),
        ({"image": "x"}, "image is for the runtime sefa; Triton's is chosen by runtime-version"),
        ({"runtime": "ray"}, "runtime must be triton or sefa, got 'ray'"),
    ],
)
def test_impossible_options_are_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as raised:
        KServeOptions(**arguments)
    assert str(raised.value) == message


def test_a_name_is_made_fit_for_kubernetes_or_asked_for(tmp_path: Path) -> None:
    model = tmp_path / "My_Faces.v2.onnx"
    model.write_bytes((GOLDEN / "tiny.onnx").read_bytes())
    document: Any = inference_service(model, KServeOptions())
    assert document["metadata"] == {"name": "my-faces-v2"}
    with pytest.raises(InputError, match="give another with --name"):
        service(KServeOptions(), "2faces")


def test_the_command_writes_the_file(sefa_command: Callable[..., Result], tmp_path: Path) -> None:
    output = tmp_path / "tiny.yaml"
    done = sefa_command("kserve", GOLDEN / "tiny.onnx", "-o", output, "--max-replicas", "3")
    assert (done.code, done.err) == (0, "")
    assert yaml.safe_load(output.read_text())["spec"]["predictor"]["maxReplicas"] == 3


def test_bad_input_is_one_line_and_no_file(sefa_command: Callable[..., Result], tmp_path: Path) -> None:
    for arguments in (["--cpus", "many"], ["--name", "A B"], ["--gpus", "-1"]):
        done = sefa_command("kserve", GOLDEN / "tiny.onnx", "-o", tmp_path / "x.yaml", *arguments)
        assert (done.code, done.out, done.err.count("\n")) == (1, "", 1)
    done = sefa_command("kserve", tmp_path / "none.onnx", "-o", tmp_path / "x.yaml")
    assert (done.code, done.err.count("\n")) == (1, 1)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_the_classes_of_kserves_sdk_take_it(tmp_path: Path) -> None:
    venv.create(tmp_path / "venv", with_pip=True)
    python = str(tmp_path / "venv" / "bin" / "python")
    install = [python, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "kserve==0.21.*", "pyyaml"]
    subprocess.run(install, check=True)
    paths = []
    for name, options in SERVICES.items():
        paths.append(tmp_path / f"{name}.yaml")
        paths[-1].write_text(to_yaml(service(options)))
    done = subprocess.run([python, "-c", PROGRAM, *map(str, paths)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.split()) == (0, ["1", "0", "1", "1"]), done.stderr
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(to_yaml(service(KServeOptions())).replace("minReplicas", "minimumReplicas"))
    done = subprocess.run([python, "-c", PROGRAM, str(wrong)], capture_output=True, text=True, check=False)
    assert "V1beta1PredictorSpec has no {'minimumReplicas'}" in done.stderr
