"""What every request passes, without a transport: ids, the token, errors, counters, the log."""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from sefa_runtime.errors import InputError
from sefa_runtime.server.errors import ClientGoneError
from sefa_runtime.server.metrics import Metrics
from sefa_runtime.server.models import HostedModel, Models
from sefa_runtime.server.pipeline import Exchange, Pipeline, Refusal
from sefa_runtime.server.settings import Settings


class Passage:
    """One request that passes the pipeline, and what came of it."""

    def __init__(self, error: BaseException | None = None, token: str | None = None, **fields: Any) -> None:
        self.models = Models([HostedModel("tiny", Path("tiny.onnx"), Settings())])
        self.metrics = Metrics(self.models)
        self.error = error
        self.worked = False
        self.refusals: list[Refusal] = []
        usual: dict[str, Any] = {
            "method": "GET",
            "path": "/a",
            "client": "c",
            "request_id": "mine",
            "authorization": (),
        }
        self.exchange = Exchange(self.models, **usual | {"authorization": (), "route": "infer"} | fields)
        asyncio.run(Pipeline(token, self.metrics).answer(self.exchange, self.work, self.refuse))

    async def work(self) -> None:
        self.worked = True
        self.exchange.find_model("tiny", for_images=True)
        if self.error is not None:
            raise self.error
        self.exchange.status = 200

    async def refuse(self, refusal: Refusal) -> None:
        self.refusals.append(refusal)


def test_an_answer_is_counted_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "sefa.access")
    passage = Passage()
    (record,) = caplog.records
    line = json.loads(record.getMessage())
    assert (line["method"], line["path"], line["client"], line["status"]) == ("GET", "/a", "c", 200)
    assert (line["request_id"], line["model"]) == ("mine", "tiny")
    statistics = passage.models.get("tiny").statistics
    assert (statistics.requests, statistics.failures) == (1, 0)
    assert b'sefa_requests_total{model="tiny",route="infer",status="200"} 1.0' in passage.metrics.text()


def test_an_error_is_sent_and_counts_as_a_failure() -> None:
    passage = Passage(InputError("no"))
    (refusal,) = passage.refusals
    assert (refusal.message, refusal.http, refusal.grpc) == ("no", 400, "INVALID_ARGUMENT")
    statistics = passage.models.get("tiny").statistics
    assert (statistics.requests, statistics.failures) == (0, 1)


def test_a_fault_of_ours_is_logged_with_its_traceback_and_not_told(caplog: pytest.LogCaptureFixture) -> None:
    (refusal,) = Passage(ZeroDivisionError("private")).refusals
    assert (refusal.http, refusal.message) == (500, "a fault of the server; its log has it as mine")
    (record,) = (record for record in caplog.records if record.name == "sefa.error")
    assert record.exc_info is not None
    assert record.exc_info[0] is ZeroDivisionError


def test_nothing_is_sent_after_an_answer_has_begun() -> None:
    passage = Passage(InputError("late"), status=200)
    assert passage.refusals == []
    assert passage.exchange.status == 400


def test_a_client_that_is_gone_gets_nothing() -> None:
    passage = Passage(ClientGoneError("gone"))
    assert (passage.refusals, passage.exchange.status) == ([], 499)


def test_who_cancels_is_told_and_counted() -> None:
    with pytest.raises(asyncio.CancelledError):
        Passage(asyncio.CancelledError())


@pytest.mark.parametrize(
    ("given", "is_open", "worked"),
    [
        (["Bearer secret"], False, True),
        (["bearer  secret "], False, True),
        ([], True, True),
        ([], False, False),
        (["secret"], False, False),
        (["Basic secret"], False, False),
        (["Bearer secrets"], False, False),
        (["Bearer secret", "Bearer secret"], False, False),
        (["Bearer s\xe9cret"], False, False),
    ],
)
def test_the_token_comes_before_all_work(given: Sequence[str], is_open: bool, worked: bool) -> None:
    passage = Passage(token="secret", authorization=given, is_open=is_open)
    assert passage.worked is worked
    assert [refusal.http for refusal in passage.refusals] == ([] if worked else [401])


@pytest.mark.parametrize("given", ["", "a b", "a\n", "x" * 129, "\xe9"])
def test_an_id_that_cannot_stand_in_a_log_is_replaced(given: str) -> None:
    made = Passage(request_id=given).exchange.request_id
    assert len(made) == 32
    assert made.isalnum()
