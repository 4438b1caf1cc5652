"""sefa seal: accept a model that another tool changed, after measuring it."""

from pathlib import Path
from typing import Annotated

import typer

from sefa_cli.options import JsonOption
from sefa_cli.output import print_json, say, working


def seal(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL", help="What the tool made of a model of [b]sefa export[/b].")
    ],
    *,
    like: Annotated[Path, typer.Option(metavar="ORIGINAL", help="The .onnx file that it was made from.")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE", help="Where to write.", show_default="in place")
    ] = None,
    min_psnr: Annotated[
        float, typer.Option(metavar="DB", help="How much like the original's the worst image must be.")
    ] = 20.0,
    json: JsonOption = False,
) -> None:
    """Accept a model that another tool changed: simplified, quantised, converted to float16, of a fixed shape.

    [b]sefa seal small.onnx --like faces.onnx[/b]

    Such a file works, but is not the one that was verified at export, and is refused until then. Its images are
    compared with the original's, and the difference is written into its description, which is the original's
    otherwise: [b]sefa inspect[/b], [b]sefa verify[/b] and the page of [b]sefa serve[/b] show it.
    """
    from sefa_runtime.sealing import seal as seal_model

    with working("Comparing"):
        info = seal_model(model, like, output, least_psnr_db=min_psnr)
    if json:
        print_json({"file": str(output or model), "info": info.to_dict()})
        return
    what = f"sealed {info.seal.in_words}" if info.seal else "graph and weights are the original's, to the bit"
    say(f"{output or model}: {what}")
    fixed = [f"{name} {size}" for name, size in (("batch", info.batch), ("edits", info.num_edits)) if size is not None]
    if fixed:
        say(f"static sizes: {', '.join(fixed)}")
