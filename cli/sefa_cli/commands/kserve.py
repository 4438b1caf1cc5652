"""sefa kserve: an InferenceService for KServe on Kubernetes."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from sefa_cli.options import ModelArgument
from sefa_cli.output import command_line, say
from sefa_runtime.files import check_output, write_whole
from sefa_runtime.model.reading import files_of


class Runtime(StrEnum):
    """What serves the model."""

    TRITON = "triton"
    SEFA = "sefa"


def kserve(
    model: ModelArgument,
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="FILE.yaml", help="The file to write.", show_default=False)
    ],
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="The service's name.", show_default="the model's file")
    ] = None,
    runtime: Annotated[
        Runtime,
        typer.Option(
            help="[b]triton[/b]: KServe's Triton, with a repository that [b]sefa triton[/b] wrote. [b]sefa[/b]: a "
            "container image of your own that runs [b]sefa serve[/b]."
        ),
    ] = Runtime.TRITON,
    storage_uri: Annotated[
        str | None,
        typer.Option(
            metavar="URI",
            help="Where the repository (or the model file) is, such as [b]s3://bucket/repo[/b].",
            show_default="pvc://NAME, a volume claim",
        ),
    ] = None,
    image: Annotated[
        str | None, typer.Option(metavar="IMAGE", help="With --runtime sefa: the container image.")
    ] = None,
    runtime_version: Annotated[
        str | None,
        typer.Option(metavar="TAG", help="With --runtime triton: the release of Triton.", show_default="24.10-py3"),
    ] = None,
    gpus: Annotated[int | None, typer.Option(metavar="N", help="GPUs of each replica.", show_default="none")] = None,
    cpus: Annotated[str, typer.Option(metavar="N", help="Processors of each replica.")] = "2",
    memory: Annotated[str, typer.Option(metavar="SIZE", help="Memory of each replica.")] = "4Gi",
    min_replicas: Annotated[
        int, typer.Option(metavar="N", help="Fewest replicas; 0 scales to none without requests.")
    ] = 1,
    max_replicas: Annotated[
        int | None, typer.Option(metavar="N", help="Most replicas.", show_default="as the minimum, or 1")
    ] = None,
    concurrency: Annotated[
        int | None,
        typer.Option(metavar="N", help="Target for concurrent requests per replica.", show_default="KServe's choice"),
    ] = None,
) -> None:
    """Write an InferenceService for KServe on Kubernetes.

    [b]sefa kserve faces.onnx -o faces.yaml --storage-uri s3://bucket/repo --gpus 1 --max-replicas 4[/b]

    It serves the Open Inference Protocol v2 once the file is applied with [b]kubectl apply -f[/b] and the repository is
    in place.
    """
    from sefa_runtime.deploy.kserve import KServeOptions, inference_service, to_yaml

    options = KServeOptions(
        runtime=runtime.value,
        storage_uri=storage_uri,
        image=image,
        runtime_version=runtime_version,
        gpus=gpus,
        cpus=cpus,
        memory=memory,
        min_replicas=min_replicas,
        max_replicas=max_replicas,
        concurrency=concurrency,
    )
    check_output(output, *files_of(model))
    write_whole(output, to_yaml(inference_service(model, options, name)).encode())
    say(f"{output}: apply it with {command_line('kubectl', 'apply', '-f', output)}")
