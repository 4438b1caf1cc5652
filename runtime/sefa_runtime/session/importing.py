"""The one place where onnxruntime is imported."""

import os
import sys
from types import ModuleType

from sefa_runtime.errors import ProviderError
from sefa_runtime.session.providers import CPU, CUDA

# Since 1.29, onnxruntime's wheels write an identifier and a database below HOME, and send the machine, model paths and
# run times, unless this is 1 when they are imported.
DISABLE_TELEMETRY = "ORT_DISABLE_TELEMETRY"


def import_onnxruntime() -> ModuleType:
    """Import onnxruntime with its telemetry off, unless the environment already says otherwise.

    Raises:
        ProviderError: If it is not installed or cannot be imported.
    """
    if "onnxruntime" not in sys.modules:  # After the import it has no effect.
        os.environ.setdefault(DISABLE_TELEMETRY, "1")
    try:
        import onnxruntime
    except ImportError as error:
        from sefa_runtime.session.provider_problems import installation

        raise ProviderError(
            f"onnxruntime cannot be imported ({error})",
            f"{installation(CPU)}, or with an NVIDIA GPU {installation(CUDA)}",
        ) from error
    return onnxruntime  # type: ignore[no-any-return]
