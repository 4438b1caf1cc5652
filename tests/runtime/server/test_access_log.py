"""The log of requests as `sefa serve` writes it."""

import io
import json
import logging
from collections.abc import Iterator

import pytest

from sefa_runtime.server.access_log import LineHandler, access, flush, write_line


@pytest.fixture
def written() -> Iterator[io.StringIO]:
    """What the only handler of the log writes."""
    stream = io.StringIO()
    before = access.handlers, access.propagate, access.level
    access.handlers, access.propagate = [LineHandler(stream)], False
    access.setLevel(logging.INFO)
    yield stream
    access.handlers, access.propagate = before[:2]
    access.setLevel(before[2])


def write(path: str = "/a") -> None:
    write_line("c", "GET", path, 200, 0.0015, 7, {"request_id": "mine"})


def test_a_line_is_the_same_with_and_without_a_record(written: io.StringIO, caplog: pytest.LogCaptureFixture) -> None:
    write()
    access.addHandler(caplog.handler)  # Another handler needs a record.
    write()
    alone, beside = ({**json.loads(line), "time": ""} for line in written.getvalue().splitlines())
    assert alone == beside
    assert alone == {**json.loads(caplog.records[0].getMessage()), "time": ""}
    assert (alone["path"], alone["status"], alone["ms"], alone["request_id"]) == ("/a", 200, 1.5, "mine")


def test_what_a_terminal_acts_on_is_escaped(written: io.StringIO) -> None:
    write("/\x7f\x1b[2J\n")
    (line,) = written.getvalue().splitlines()
    assert line.isprintable()


def test_a_level_above_info_keeps_requests_out(written: io.StringIO) -> None:
    access.setLevel(logging.WARNING)
    write()
    assert written.getvalue() == ""


def test_a_log_that_cannot_be_written_fails_no_request(written: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging, "raiseExceptions", False)
    written.close()
    write()
    flush()
