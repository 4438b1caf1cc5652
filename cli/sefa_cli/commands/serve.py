"""sefa serve: answer requests over HTTP."""

import contextlib
import os
from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer

from sefa_cli.options import SessionOptions
from sefa_cli.output import say
from sefa_runtime.errors import InputError
from sefa_runtime.files import input_problem

TOKEN_VARIABLE = "SEFA_TOKEN"
LIMITS, ACCESS, PROXY = "Limits", "Access", "Behind a reverse proxy"


def serve(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL",
            help="[b].onnx[/b] files made by [b]sefa export[/b]; each is named after its file, or [b]NAME=PATH[/b].",
        ),
    ],
    *,
    host: Annotated[
        str,
        typer.Option(
            metavar="ADDRESS",
            help="Address to listen on; [b]0.0.0.0[/b] and [b]::[/b] both mean every network, IPv4 and IPv6.",
        ),
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(metavar="N", help="Port to listen on; 0 takes a free one.")] = 8000,
    grpc_port: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Also serve gRPC on this port; 0 takes a free one. Needs the extra 'grpc'.",
            show_default=False,
        ),
    ] = None,
    session: SessionOptions,
    instances: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Concurrent runs of a model, each on its share of the cores: more images per second, but a single "
            "request takes longer. With [b]--tuned[/b], [b]1[/b] takes what was best for one caller.",
            show_default="1, or as --tuned says",
        ),
    ] = None,
    max_batch: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Most images in one run, and in one request.",
            rich_help_panel=LIMITS,
            show_default="16, or as --tuned says",
        ),
    ] = None,
    prefix_mb: Annotated[
        float,
        typer.Option(
            metavar="MB",
            help="Memory of each model for the latents used last, where its first layers are not edited and so run "
            "once for each latent; 0 runs the whole graph every time.",
            rich_help_panel=LIMITS,
        ),
    ] = 128.0,
    max_delay_ms: Annotated[
        float,
        typer.Option(
            metavar="MS",
            help="How long a run may wait for batch-mates while requests overlap, where that saves time.",
            rich_help_panel=LIMITS,
        ),
    ] = 2.0,
    max_queue: Annotated[
        int,
        typer.Option(
            metavar="N", help="Images that may wait for a model; beyond that, requests get 503.", rich_help_panel=LIMITS
        ),
    ] = 256,
    timeout_s: Annotated[
        float,
        typer.Option(
            metavar="S", help="Time allowed for an answer; beyond that, requests get 504.", rich_help_panel=LIMITS
        ),
    ] = 30.0,
    max_edits: Annotated[int, typer.Option(metavar="N", help="Most edits of one image.", rich_help_panel=LIMITS)] = 64,
    max_body_mb: Annotated[
        float, typer.Option(metavar="MB", help="Largest size of a request's body.", rich_help_panel=LIMITS)
    ] = 8.0,
    token_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help=f"Clients must send [b]Authorization: Bearer[/b] with the token in this file, or in the environment "
            f"variable [b]{TOKEN_VARIABLE}[/b].",
            rich_help_panel=ACCESS,
        ),
    ] = None,
    cors: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ORIGIN",
            help="Allow requests from web pages of this origin, such as [b]https://example.org[/b]; may be repeated.",
            rich_help_panel=ACCESS,
        ),
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Also answer requests addressed to this host, such as [b]example.org[/b], or [b]*[/b] for every host; "
            "may be repeated. A server on this machine only answers for [b]localhost[/b] and its addresses, any other "
            "for every host unless this option names some.",
            rich_help_panel=ACCESS,
        ),
    ] = None,
    root_path: Annotated[
        str,
        typer.Option(
            metavar="PATH",
            help="The prefix under which the proxy exposes the server, such as [b]/faces[/b], whether or not it strips "
            "the prefix from requests.",
            rich_help_panel=PROXY,
        ),
    ] = "",
    forwarded_allow_ips: Annotated[
        str,
        typer.Option(
            metavar="LIST",
            help="Proxies whose X-Forwarded-For, -Proto and -Prefix are trusted: addresses and networks separated by "
            "commas, such as [b]127.0.0.1,10.0.0.0/8[/b], or [b]*[/b].",
            rich_help_panel=PROXY,
        ),
    ] = "",
) -> None:
    """Serve models over HTTP: images for people, the Open Inference Protocol v2 for inference clients.

    [b]sefa serve faces.onnx[/b]

    Then open [b]http://127.0.0.1:8000[/b], or [b]http://127.0.0.1:8000/models/faces/image?seed=7[/b]. Requests that
    arrive at the same time share a run. [b]/docs[/b] describes the endpoints, [b]/metrics[/b] is for Prometheus, and
    each request is logged to stdout as a line of JSON. On SIGTERM it stops once all pending requests are answered.
    Listens on this machine only unless told otherwise. Needs the extra 'serve'.
    """
    try:
        if grpc_port is not None:
            import_module("grpc")
        from sefa_runtime.server.models import parse_model
        from sefa_runtime.server.run import serve as run_server
        from sefa_runtime.server.settings import Settings
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("sefa"):
            raise
        extra = "serve" if grpc_port is None else "grpc"
        raise InputError(
            f"serving needs {error.name}, which is not installed: install sefa with its extra '{extra}'"
        ) from error
    if session.tuned is not None:
        if len(models) > 1:
            raise InputError(f"--tuned is about one model, and {len(models)} are to be served: serve each by itself")
        name, path = parse_model(models[0])
        path, arguments, choice = session.resolve(path, "one_caller" if instances == 1 else "many_callers")
        assert choice is not None
        models = [f"{name}={path}"]
        if instances not in (None, choice.setting.instances):
            arguments["threads"] = None  # Each takes its share of the cores.
        if instances is None:
            instances = choice.setting.instances
        if max_batch is None and choice.max_batch > 1:
            max_batch = choice.max_batch
    else:
        _, arguments, _ = session.resolve(Path(models[0]))
    settings = Settings(
        host=host,
        port=port,
        grpc_port=grpc_port,
        **arguments,
        instances=1 if instances is None else instances,
        max_batch=16 if max_batch is None else max_batch,
        prefix_mb=prefix_mb,
        max_delay_ms=max_delay_ms,
        max_queue=max_queue,
        timeout_s=timeout_s,
        max_edits=max_edits,
        max_body_mb=max_body_mb,
        token=_read_token(token_file),
        cors=tuple(cors or ()),
        allow_hosts=tuple(allow_host or ()),
        root_path=root_path.rstrip("/"),
        forwarded_allow_ips=forwarded_allow_ips,
    )
    run_server(models, settings, report=_report)


def _report(line: str) -> None:
    # The reader of stderr may be gone: that must neither stop the server nor keep it from stopping.
    with contextlib.suppress(OSError):
        say(line, err=True)


def _read_token(path: Path | None) -> str | None:
    if path is None:
        return os.environ.get(TOKEN_VARIABLE) or None
    problem = input_problem(path)
    if problem:
        raise InputError(f"{path}: {problem}")
    try:
        token = path.read_text("utf-8").strip()
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not a text file") from error
    if not token:
        raise InputError(f"{path}: empty; a token was expected")
    return token
