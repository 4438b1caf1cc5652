"""The `sefa` command. Modules here import torch, onnx and onnxruntime inside the commands that need them."""

import sys


def main() -> None:
    """Run the command line."""
    try:
        from sefa_cli import app  # The import takes a while, and Ctrl-C during it must not print a traceback.
    except KeyboardInterrupt:
        sys.exit(130)
    app.main()


__all__ = ["main"]
