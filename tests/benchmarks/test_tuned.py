"""benchmarks/tuned.py: the process that tunes and takes turns."""

import sys
from pathlib import Path

import numpy as np

import sefa_runtime
from sefa_runtime.latency.measure import example_inputs
from sefa_runtime.session.tuned import Setting
from tuned import worker


def test_what_the_worker_finds_it_also_runs(golden: Path, tmp_path: Path) -> None:
    model = str(golden / "tiny.onnx")
    with worker(sys.executable) as ask:
        tuning = ask("tune", path=model, provider="cpu", seconds=0.001, batches=[1])
        setting = Setting(**tuning["one_caller"]["setting"])
        arguments = {"provider": setting.provider, "threads": setting.threads}
        assert ask("load", name="best", path=model, arguments=arguments) == {}
        assert ask("run", name="best", file=str(tmp_path / "image.npy")) == {}
    editor = sefa_runtime.load(model, "cpu")
    np.testing.assert_allclose(
        np.load(tmp_path / "image.npy").astype(int), editor.run(**example_inputs(editor.info, 1, 1)), atol=1
    )
