"""What commands say of the time they take, in a log: by a clock that is set by hand."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sefa_cli import output
from sefa_cli.output import duration, progress_bar, say_how_long, working
from support.patience import wait_until

Command = Callable[..., Any]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.2, "1 s"), (59.4, "59 s"), (60, "1 min"), (75, "1 min 15 s"), (3600, "1 h"), (7261, "2 h 1 min")],
)
def test_seconds_in_words(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_a_log_gets_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    now = [1000.0]
    monkeypatch.setattr(output, "PATIENCE_S", 10.0)
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    with progress_bar("Measuring") as show:
        for tenths in range(11):
            show(tenths / 10)
            now[0] += 6
    assert capsys.readouterr().err.splitlines() == [
        "Measuring: 20%, about 48 s left",
        "Measuring: 40%, about 36 s left",
        "Measuring: 60%, about 24 s left",
        "Measuring: 80%, about 12 s left",
    ]


def test_what_goes_on_from_earlier_counts_only_what_is_done_now(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [1000.0]
    monkeypatch.setattr(output, "PATIENCE_S", 10.0)
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    with progress_bar("Measuring") as show:
        show(0.8)
        now[0] += 30
        show(0.9)
    assert capsys.readouterr().err == "Measuring: 90%, about 30 s left\n"


def test_what_is_done_soon_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar("Measuring") as show, working("Loading"):
        show(0.5)
        show(1.0)
    say_how_long(output.PATIENCE_S / 2)
    assert capsys.readouterr() == ("", "")


def test_work_without_a_known_length_says_that_it_goes_on(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(output, "PATIENCE_S", 0.01)
    said: list[str] = []

    def has_said() -> bool:
        said.append(capfd.readouterr().err)
        return "Exporting: 1 s so far\n" in "".join(said)

    with working("Exporting"):
        wait_until(has_said)


def test_tune_and_explore_say_how_long_they_take(
    sefa_command: Command, golden: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output, "PATIENCE_S", 0.0)
    for command in (
        ("tune", golden / "tiny.onnx", "--seconds", "0.01"),
        ("explore", golden / "tiny.onnx", "-o", tmp_path / "a.json", "--samples", "4"),
    ):
        said = sefa_command(*command).err.splitlines()
        lines = [line for line in said if not line.startswith("sefa: load average")]
        assert lines[0].startswith("sefa: this takes about ")
        assert lines[1].startswith("Measuring: ")
        assert lines[-1].endswith(" left")


def test_a_long_table_looks_like_any_other(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [(0, "pose", 1.5), (10, "日本\x1b[2J", 200.25), (11, "", 0.0)]
    output.print_table(("index", "name", "strength"), rows)
    usual = capsys.readouterr().out
    monkeypatch.setattr(output, "MANY_ROWS", 2)
    output.print_table(("index", "name", "strength"), rows)
    assert capsys.readouterr().out.splitlines() == [line.rstrip() for line in usual.splitlines()]
