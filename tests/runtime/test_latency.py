import json
from typing import Any

import pytest

from sefa_runtime import Editor, InputError
from sefa_runtime.latency import MIN_RUNS, measure


def test_a_record_says_what_was_measured_on_what(tiny: Editor) -> None:
    shares: list[float] = []
    record = measure(tiny, batches=(1, 2), edits=2, seconds=0.05, progress=shares.append)
    assert [result.batch for result in record.results] == [1, 2]
    for result in record.results:
        assert result.runs >= MIN_RUNS
        assert 0 < result.p50_ms <= result.p90_ms <= result.p99_ms
        assert result.first_run_ms > 0
        assert result.images_per_second == pytest.approx(result.batch * result.runs / result.seconds, rel=0.02)
    assert record.provider == "cpu"
    assert record.load_ms > 0
    assert record.machine["cores"]
    assert record.versions["sefa"]
    assert shares[-1] == 1.0
    assert json.loads(json.dumps(record.to_dict()))["model"]["file"] == "tiny.onnx"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batches": ()}, "at least one batch size"),
        ({"batches": (1, 0)}, "batch must be in"),
        ({"seconds": 0}, "seconds must be in"),
        ({"seconds": float("nan")}, "seconds must be in"),
        ({"seconds": float("inf")}, "seconds must be in"),
        ({"edits": -1}, "edits must be in"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(tiny: Editor, arguments: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        measure(tiny, **arguments)
