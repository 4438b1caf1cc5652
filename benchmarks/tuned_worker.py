"""A process that tunes a model and takes turns with it, in an environment that may have nothing but the runtime.

It reads requests, one JSON object a line, and answers each with one line. What onnxruntime prints goes to standard
error.
"""

import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

import sefa_runtime
from sefa_runtime.latency.measure import example_inputs
from sefa_runtime.latency.tuning import tune
from sefa_runtime.machine.packages import describe_versions


def main() -> None:
    """Serve requests until there are no more."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    editors: dict[str, sefa_runtime.Editor] = {}
    for line in sys.stdin:
        answers.write(json.dumps(serve(editors, **json.loads(line))) + "\n")
        answers.flush()


def serve(editors: dict[str, sefa_runtime.Editor], what: str, **request: Any) -> dict[str, Any]:
    """Do what is asked for."""
    match what:
        case "tune":
            return asdict(tune(**request)) | {"versions": describe_versions()}
        case "load":
            editors[request["name"]] = sefa_runtime.load(request["path"], prefix_mb=0, **request["arguments"])
        case "run":
            editor = editors[request["name"]]
            image = editor.run(**example_inputs(editor.info, 1, 1))
            if request.get("file"):
                np.save(Path(request["file"]), image)
    return {}


if __name__ == "__main__":
    main()
