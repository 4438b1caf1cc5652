"""A client that goes away, as servers other than our own tell of it: by a message alone."""

import asyncio
from typing import Any

import pytest

from sefa_runtime.server.errors import ClientGoneError
from sefa_runtime.server.http.receiving import while_connected


def watch(answered: bool, messages: list[str]) -> tuple[Any, bool]:
    """Wait for an answer under a server that has these messages; return it, and whether its work was cancelled."""
    cancelled = False

    async def scenario() -> Any:
        left = [*messages]

        async def receive() -> dict[str, Any]:
            if not left:
                await asyncio.Event().wait()
            return {"type": left.pop(0)}

        async def work() -> str:
            nonlocal cancelled
            try:
                await asyncio.sleep(0.05 if answered else 60)
            except asyncio.CancelledError:
                cancelled = True
                raise
            return "an answer"

        return await while_connected({"type": "http"}, receive, work())

    return asyncio.run(scenario()), cancelled


def test_an_answer_is_returned_to_who_stays() -> None:
    assert watch(True, ["http.request"]) == ("an answer", False)


def test_work_for_who_has_gone_is_cancelled() -> None:
    with pytest.raises(ClientGoneError):
        watch(False, ["http.request", "http.disconnect"])


def test_a_cancellation_from_elsewhere_stays_one() -> None:
    async def scenario() -> None:
        async def receive() -> dict[str, Any]:
            await asyncio.Event().wait()
            raise AssertionError

        waiting = asyncio.create_task(while_connected({"type": "http"}, receive, asyncio.sleep(60)))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    asyncio.run(scenario())
