"""benchmarks/records.py: turns, ratios, and the record."""

import json
from pathlib import Path

import numpy as np
import pytest

from records import Record, alternate, check_same, ratio


def test_each_has_its_turn_and_the_first_one_rotates() -> None:
    order: list[str] = []
    runs = {name: lambda name=name: order.append(name) for name in "abc"}
    times = alternate(runs, rounds=2, calls=2, warm_up=1, settle=1, pause_s=0)
    assert "".join(order) == "aaabbbccc" + "bbbcccaaa" + "cccaaabbb"
    assert {name: of_one.shape for name, of_one in times.items()} == dict.fromkeys("abc", (2, 2))


def test_a_ratio_is_that_of_calls_made_at_the_same_time() -> None:
    busy = np.array([1.0, 1.0, 10.0, 10.0, 10.0])[:, None]  # The machine is ten times as slow from the third round on.
    assert ratio({"ours": busy, "theirs": 3 * busy}, "theirs", "ours") == {
        "ratio": 3.0,
        "ratio_quartiles": [3.0, 3.0],
    }


def test_the_record_is_written_even_if_a_limit_does_not_hold(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "record.json"
    with pytest.raises(SystemExit, match="too slow"):
        Record("times", ("pytest",)).finish({"ms": 5}, path, ["too slow"])
    record = json.loads(path.read_text())
    assert (record["what"], record["ms"], record["versions"]["pytest"]) == ("times", 5, pytest.__version__)
    assert json.loads(capsys.readouterr().out) == record


def test_images_that_differ_are_not_timed() -> None:
    image = np.zeros((1, 2, 2, 3), np.uint8)
    assert check_same(image, image + np.uint8(1)) == 1
    with pytest.raises(AssertionError, match="2 levels"):
        check_same(image, image + np.uint8(2))
