"""sefa doctor: what works on this machine."""

from dataclasses import asdict

import typer

from sefa_cli.options import JsonOption
from sefa_cli.output import print_json, say, working


def doctor(json: JsonOption = False) -> None:
    """Show what works on this machine, what does not and why, and how to fix it.

    [b]sefa doctor[/b]

    Runs a convolution on every provider that onnxruntime offers, and says what CUDA, TensorRT and OpenVINO lack. The
    exit code is 1 if something that is needed does not work.
    """
    from sefa_runtime.session.doctor import examine

    with working("Examining"):
        checks = examine()
    healthy = all(check.ok or not check.needed for check in checks)
    if json:
        print_json({"healthy": healthy, "checks": [asdict(check) for check in checks]})
    else:
        width = max(len(check.name) for check in checks)
        for check in checks:
            mark = "ok" if check.ok else "FAIL" if check.needed else "no"
            say(f"{mark:<4}  {check.name:<{width}}  {check.detail}")
            if not check.ok and check.remedy:
                say(f"{'':<{width + 8}}-> {check.remedy}")
    if not healthy:
        raise typer.Exit(1)
