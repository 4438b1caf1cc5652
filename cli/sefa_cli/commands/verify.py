"""sefa verify: does a model render here what it rendered at export?"""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from sefa_cli.options import PROVIDER, JsonOption, ModelArgument, SessionChoices
from sefa_cli.output import print_json, say, working


def verify(
    model: ModelArgument,
    *,
    checkpoint: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also check that the model was made from this checkpoint.")
    ] = None,
    session: Annotated[SessionChoices, PROVIDER.without("allow_cpu_fallback", "tuned")],
    json: JsonOption = False,
) -> None:
    """Check that a model is intact and renders the same images here as PyTorch did at export.

    [b]sefa verify faces.onnx --provider cuda[/b]

    The file carries what is needed: checksums, and the mean levels of a few images. These are rendered again here, all
    at once and one by one, and on the CPU, too, if the provider is another. The exit code is 1 if anything differs.
    """
    from sefa_runtime.verification import verify as verify_model

    with working("Verifying"):
        verification = verify_model(
            model, session.provider, session.provider_options, session.threads, checkpoint=checkpoint
        )
    if json:
        print_json({"ok": verification.ok, **asdict(verification)})
    else:
        width = max(len(finding.name) for finding in verification.findings)
        for finding in verification.findings:
            say(f"{'ok' if finding.ok else 'FAIL':<4}  {finding.name:<{width}}  {finding.detail}")
    if not verification.ok:
        raise typer.Exit(1)
