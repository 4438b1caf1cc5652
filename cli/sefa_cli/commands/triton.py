"""sefa triton: a model repository for NVIDIA's Triton Inference Server."""

from pathlib import Path
from typing import Annotated

import typer

from sefa_cli.options import INTEGERS
from sefa_cli.output import command_line, say
from sefa_runtime.errors import InputError
from sefa_runtime.model.choices import Precision


def triton(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL...",
            help="[b].onnx[/b] files made by [b]sefa export[/b]; each is named after its file, or [b]NAME=PATH[/b].",
        ),
    ],
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="REPO", help="The folder of the repository.", show_default=False)
    ],
    gpus: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="Run on the first N GPUs.", show_default="a GPU if Triton has one, else the CPU"
        ),
    ] = None,
    cpu: Annotated[bool, typer.Option("--cpu", help="Run on the CPU.")] = False,
    instances: Annotated[int, typer.Option(metavar="N", help="Sessions on each GPU, or on the CPU.")] = 1,
    threads: Annotated[
        int | None, typer.Option(metavar="N", help="With --cpu: threads of each session.", show_default="the cores")
    ] = None,
    max_batch: Annotated[
        int | None, typer.Option(metavar="N", help="Most images in one run.", show_default="16")
    ] = None,
    max_delay_ms: Annotated[
        float, typer.Option(metavar="MS", help="How long a request may wait for batch-mates.")
    ] = 2.0,
    preferred_batch: Annotated[
        list[int] | None,
        typer.Option(
            metavar="SIZES", help="Batch sizes that run at once, such as [b]4,8[/b].", show_default="the largest"
        ),
        INTEGERS,
    ] = None,
    max_queue: Annotated[
        int, typer.Option(metavar="N", help="Requests that may wait; further ones are refused.")
    ] = 256,
    timeout_s: Annotated[
        float, typer.Option(metavar="S", help="How long a request may wait before it is refused.")
    ] = 30.0,
    tensorrt: Annotated[
        bool, typer.Option("--tensorrt", help="Let TensorRT run what it can, and CUDA the rest.")
    ] = False,
    precision: Annotated[
        Precision | None,
        typer.Option(help="With --tensorrt: what it computes in.", show_default="as the model was exported"),
    ] = None,
    engine_cache: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDER",
            help="With --tensorrt: a folder on the server that caches its engines between starts.",
        ),
    ] = None,
    force: Annotated[
        bool,
        typer.Option(
            "--force", help="Write even into a folder that holds other things, and replace a model of the same name."
        ),
    ] = False,
) -> None:
    """Write a model repository for NVIDIA's Triton Inference Server.

    [b]sefa triton faces.onnx -o repo --gpus 1[/b]

    Triton's onnxruntime backend serves each model, batches requests with the same number of edits, and warms the model
    up before it is ready. The names of the directions and real inputs for perf_analyzer are written beside the model.
    An existing repository keeps its other models.
    """
    from sefa_runtime.deploy.triton import TritonOptions, write_repository

    options = TritonOptions(
        gpus=gpus,
        cpu=cpu,
        instances=instances,
        threads=threads,
        max_batch=max_batch,
        max_delay_ms=max_delay_ms,
        preferred_batch=tuple(preferred_batch or ()),
        max_queue=max_queue,
        timeout_s=timeout_s,
        tensorrt=tensorrt,
        precision=None if precision is None else precision.value,
        engine_cache=engine_cache,
    )
    folders = write_repository(parse_models(models), output, options, force=force)
    for folder in folders:
        say(f"{output / folder.name}: {', '.join(sorted(path.name for path in folder.iterdir()))}")
    command = command_line("tritonserver", f"--model-repository={output.absolute()}")
    say("", f"serve it with: {command}")


def parse_models(texts: list[str]) -> dict[str, Path]:
    """Parse texts like `faces.onnx` or `NAME=faces.onnx` into paths by name.

    Raises:
        InputError: If two models have the same name.
    """
    models: dict[str, Path] = {}
    for text in texts:
        name, equals, rest = text.partition("=")
        path = Path(text)
        if equals and not path.is_file():
            path = Path(rest)
        else:
            name = path.stem
        if name in models:
            raise InputError(f"{models[name]} and {path} are both called {name}: give one as NAME=PATH")
        models[name] = path
    return models
