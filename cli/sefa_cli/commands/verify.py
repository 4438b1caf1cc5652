"""sefa verify: does a model draw here what it drew at export?"""

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
        Path | None, typer.Option(metavar="FILE", help="Also check that the model was made of this checkpoint.")
    ] = None,
    session: Annotated[SessionChoices, PROVIDER.without("allow_cpu_fallback")],
    json: JsonOption = False,
) -> None:
    """Check that a model arrived whole and draws on this machine what PyTorch drew at export.

    [b]sefa verify faces.onnx --provider cuda[/b]

    The file carries what is needed: checksums, and the mean levels of a few images. They are drawn again here, all at
    once and one by one, and on the CPU too if that is not the provider. Exit code 1 if anything differs.
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
