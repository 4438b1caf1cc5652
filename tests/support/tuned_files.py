"""Files that `sefa tune -o` could have written."""

from typing import Any

from sefa_runtime.machine.description import describe_machine
from sefa_runtime.model.reading import read_info
from sefa_runtime.session.tuned import content_of
from support.paths import TINY


def tuned_document() -> dict[str, Any]:
    """Return what `sefa tune -o` could write beside `tiny.onnx` on this machine, as far as it is read."""
    setting = {
        "model": TINY.name,
        "provider": "cpu",
        "instances": 1,
        "threads": 2,
        "options": {"session.intra_op.spin_duration_us": "2000"},
        "batch": 1,
        "styles_on_cpu": True,
        "convolutions_on_cpu": 1,
    }
    many = {
        **setting,
        "instances": 2,
        "threads": 1,
        "batch": None,
        "styles_on_cpu": False,
        "convolutions_on_cpu": 0,
        "options": {},
    }
    return {
        "tuned_version": 1,
        "models": [{"file": TINY.name, "content_sha256": content_of(read_info(TINY))}],
        "machine": describe_machine(),
        "one_caller": {"setting": setting, "batch": 1},
        "many_callers": {"setting": many, "batch": 4},
    }
