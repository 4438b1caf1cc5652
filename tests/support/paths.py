"""Where the repository and the reference data lie."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden"
CHECKPOINTS = GOLDEN / "checkpoints"
TINY = GOLDEN / "tiny.onnx"
