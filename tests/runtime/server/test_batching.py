"""Sharing runs: who waits for whom, what is refused, what is forgotten; on a clock that moves when it is told to."""

import asyncio
import queue
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sefa_runtime
from sefa_runtime.inputs.batches import Feeds, join
from sefa_runtime.inputs.call import Call
from sefa_runtime.server.batching import Batcher, Clock, RunRecord
from sefa_runtime.server.errors import QueueFullError, UnavailableError
from support.paths import GOLDEN
from support.patience import PATIENCE_S, wait_until

EDITORS: dict[str, sefa_runtime.Editor] = {}


def feeds(images: int, edits: int = 1, value: float = 0.0) -> Feeds:
    return {
        "z": np.full((images, 3), value, np.float32),
        "direction": np.ones((images, edits), np.int64),
        "alpha": np.full((images, edits), value, np.float32),
    }


class SimulatedClock(Clock):
    """Stands still until it is moved, and tells who waits."""

    def __init__(self) -> None:
        self.time_ns = 1_000_000_000
        self.changed = threading.Condition()
        self.waits: queue.Queue[int | None] = queue.Queue()  # how long each wait is to be

    def now_ns(self) -> int:
        return self.time_ns

    def wait(self, changed: threading.Condition, delay_ns: int | None) -> None:
        self.changed = changed
        self.waits.put(delay_ns)
        changed.wait()  # What hangs ends by `play`; a thread that nobody stops waits on, in silence.

    def advance_ms(self, by: int) -> None:
        """Let time pass."""
        with self.changed:
            self.time_ns += by * 1_000_000
            self.changed.notify_all()

    async def someone_waits(self, delay_ms: int | None) -> None:
        """Wait until a thread waits for that long; None: until a request comes."""
        delay_ns = None if delay_ms is None else delay_ms * 1_000_000
        while await asyncio.to_thread(self.waits.get, timeout=PATIENCE_S) != delay_ns:
            pass

    def nobody_waited_for_more(self) -> bool:
        """Whether every wait until now was for a first request."""
        waits = [self.waits.get() for _ in range(self.waits.qsize())]
        return all(delay_ns is None for delay_ns in waits)


class Graph:
    """Gives z back; can be held up."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.go.set()
        self.begun = threading.Semaphore(0)
        self.sizes: list[int] = []

    def run(self, inputs: Feeds) -> Any:
        self.sizes.append(len(inputs["z"]))
        self.begun.release()
        self.go.wait()
        if (inputs["z"] < 0).any():
            raise ValueError("negative")
        return inputs["z"].copy()


class TimedGraph(Graph):
    """Lets the clock go on by what a run of so many images takes."""

    def __init__(self, clock: SimulatedClock, run_ms: dict[int, int]) -> None:
        super().__init__()
        self.clock, self.run_ms = clock, run_ms

    def run(self, inputs: Feeds) -> Any:
        image = super().run(inputs)
        self.clock.advance_ms(self.run_ms[len(image)])
        return image


def make(*graphs: Graph, **options: Any) -> Batcher:
    usual: dict[str, Any] = {"max_batch": 4, "max_delay_ms": 0, "max_queue": 8, "clock": SimulatedClock()}
    return Batcher([graph.run for graph in graphs], **usual | options)


def play(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run it to its end; one that hangs fails."""
    asyncio.run(asyncio.wait_for(scenario(), PATIENCE_S))


async def begin_run(graph: Graph, batcher: Batcher) -> "asyncio.Future[Any]":
    """One request whose run has begun and is held up."""
    graph.go.clear()
    first = batcher.submit(feeds(1))
    await asyncio.to_thread(graph.begun.acquire, timeout=PATIENCE_S)
    return first


async def run_one_then_more(graph: Graph, batcher: Batcher, more: int) -> None:
    """One request, and so many more that wait until its run has ended."""
    first = await begin_run(graph, batcher)
    rest = [batcher.submit(feeds(1)) for _ in range(more)]
    graph.go.set()
    await asyncio.gather(first, *rest)


def test_requests_that_wait_share_the_next_run() -> None:
    async def scenario() -> None:
        graph = Graph()
        records: list[RunRecord] = []
        clock = SimulatedClock()
        batcher = make(graph, observe=records.append, clock=clock)
        first = await begin_run(graph, batcher)
        clock.advance_ms(2)
        rest = [batcher.submit(feeds(images, value=images)) for images in (1, 2, 1, 3)]
        assert batcher.waiting_images == 7
        clock.advance_ms(3)
        graph.go.set()
        answers = await asyncio.gather(first, *rest)
        assert graph.sizes == [1, 4, 3]  # In order, as many as fit.
        assert [len(answer.image) for answer in answers] == [1, 1, 2, 1, 3]
        assert [answer.run_images for answer in answers] == [1, 4, 4, 4, 3]
        for answer, value in zip(answers[1:], (1, 2, 1, 3), strict=True):
            assert (answer.image == value).all()
        assert [(record.images, len(record.queue_ns)) for record in records] == [(1, 1), (4, 3), (3, 1)]
        assert [answer.run_ns for answer in answers] == [5_000_000, 0, 0, 0, 0]
        assert [answer.queue_ns for answer in answers] == [0, *[3_000_000] * 4]
        await batcher.drain(PATIENCE_S)

    play(scenario)


def test_a_run_wakes_the_event_loop_once(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        graph, loop, woken = Graph(), asyncio.get_running_loop(), 0
        batcher = make(graph)
        first = await begin_run(graph, batcher)
        wake = loop.call_soon_threadsafe

        def counted(*arguments: Any) -> Any:
            nonlocal woken
            woken += 1
            return wake(*arguments)

        monkeypatch.setattr(loop, "call_soon_threadsafe", counted)
        others = [batcher.submit(feeds(1)) for _ in range(4)]
        graph.go.set()
        answers = await asyncio.gather(first, *others)
        assert [answer.run_images for answer in answers] == [1, 4, 4, 4, 4]
        assert woken == 2

    play(scenario)


def test_a_single_client_does_not_wait_for_more_requests() -> None:
    async def scenario() -> None:
        clock = SimulatedClock()
        batcher = make(Graph(), max_delay_ms=10, clock=clock)
        for _ in range(20):
            await batcher.submit(feeds(1))
        assert clock.nobody_waited_for_more()
        await batcher.drain(PATIENCE_S)

    play(scenario)


def test_after_a_shared_run_the_same_number_is_waited_for() -> None:
    async def scenario() -> None:
        graph, clock = Graph(), SimulatedClock()
        batcher = make(graph, max_delay_ms=50, clock=clock)
        await run_one_then_more(graph, batcher, 3)
        again = [batcher.submit(feeds(1)) for _ in range(2)]
        await clock.someone_waits(50)
        assert not any(future.done() for future in again)
        await asyncio.gather(*again, batcher.submit(feeds(1)))
        assert graph.sizes == [1, 3, 3]
        await batcher.drain(PATIENCE_S)

    play(scenario)


@pytest.mark.parametrize(("shared_ms", "waits"), [(15, True), (16, False), (30, False)])
def test_requests_are_waited_for_only_where_sharing_has_saved_time(shared_ms: int, waits: bool) -> None:
    async def scenario() -> None:
        clock = SimulatedClock()
        graph = TimedGraph(clock, {1: 10, 3: shared_ms})  # Three alone would take 30 ms.
        batcher = make(graph, max_delay_ms=50, clock=clock)
        await run_one_then_more(graph, batcher, 3)
        alone = batcher.submit(feeds(1))
        if waits:
            await clock.someone_waits(50)
            assert not alone.done()
            clock.advance_ms(50)
        await alone
        assert graph.sizes == [1, 3, 1]
        await batcher.drain(PATIENCE_S)

    play(scenario)


def test_where_sharing_saves_nothing_a_quarter_of_the_images_stays_waiting() -> None:
    async def scenario() -> None:
        clock = SimulatedClock()
        graph = TimedGraph(clock, {images: 10 * images for images in range(1, 17)})
        batcher = make(graph, max_batch=16, max_queue=64, clock=clock)
        await run_one_then_more(graph, batcher, 4)
        assert graph.sizes == [1, 4]  # Whether sharing saves time was not known yet.
        graph.begun.acquire()  # That of the second run.
        await run_one_then_more(graph, batcher, 16)
        assert graph.sizes == [1, 4, 1, 12, 3, 1]
        await batcher.drain(PATIENCE_S)

    play(scenario)


def test_a_client_of_many_images_alone_does_not_wait_either() -> None:
    async def scenario() -> None:
        clock = SimulatedClock()
        batcher = make(Graph(), max_delay_ms=10, clock=clock)
        for images in (4, 1, 3, 2):
            await batcher.submit(feeds(images))
        assert clock.nobody_waited_for_more()
        await batcher.drain(PATIENCE_S)

    play(scenario)


def test_it_is_waited_no_longer_than_the_delay() -> None:
    async def scenario() -> None:
        graph, clock = Graph(), SimulatedClock()
        batcher = make(graph, max_delay_ms=50, clock=clock)
        await run_one_then_more(graph, batcher, 3)
        alone = batcher.submit(feeds(1))
        await clock.someone_waits(50)
        clock.advance_ms(49)
        await clock.someone_waits(1)
        assert not alone.done()
        clock.advance_ms(1)
        assert (await alone).queue_ns == 50_000_000
        assert graph.sizes == [1, 3, 1]
        await batcher.drain(PATIENCE_S)

    play(scenario)


def test_a_full_queue_refuses() -> None:
    async def scenario() -> None:
        graph = Graph()
        batcher = make(graph)
        first = await begin_run(graph, batcher)
        rest = [batcher.submit(feeds(4)) for _ in range(2)]
        with pytest.raises(QueueFullError, match="8 images are waiting") as refused:
            batcher.submit(feeds(1))
        assert refused.value.retry_after_s == 1
        graph.go.set()
        await asyncio.gather(first, *rest)
        assert len((await batcher.submit(feeds(1))).image) == 1
        await batcher.drain(PATIENCE_S)

    play(scenario)


def test_a_cancelled_request_leaves_the_queue() -> None:
    async def scenario() -> None:
        graph = Graph()
        batcher = make(graph)
        first = await begin_run(graph, batcher)
        gone, stays = batcher.submit(feeds(3)), batcher.submit(feeds(2))
        gone.cancel()
        await asyncio.sleep(0)
        assert batcher.waiting_images == 2
        graph.go.set()
        await asyncio.gather(first, stays)
        assert graph.sizes == [1, 2]
        await batcher.drain(PATIENCE_S)

    play(scenario)


def test_cancelling_a_request_whose_run_has_begun_leaves_the_others_alone() -> None:
    async def scenario() -> None:
        graph = Graph()
        batcher = make(graph)
        first = await begin_run(graph, batcher)
        first.cancel()
        graph.go.set()
        assert len((await batcher.submit(feeds(2))).image) == 2
        await batcher.drain(PATIENCE_S)

    play(scenario)


def test_a_request_that_fails_does_not_take_those_beside_it_along() -> None:
    async def scenario() -> None:
        graph = Graph()
        batcher = make(graph)
        first = await begin_run(graph, batcher)
        good, bad, other = (batcher.submit(feeds(1, value=value)) for value in (1, -1, 2))
        graph.go.set()
        await first
        assert (await good).image.max() == 1
        assert (await other).image.max() == 2
        with pytest.raises(ValueError, match="negative"):
            await bad
        assert graph.sizes == [1, 3, 1, 1, 1]
        await batcher.drain(PATIENCE_S)

    play(scenario)


def test_draining_answers_what_waits_and_refuses_more() -> None:
    async def scenario() -> None:
        graph = Graph()
        batcher = make(graph)
        first = await begin_run(graph, batcher)
        rest = [batcher.submit(feeds(4)) for _ in range(2)]
        draining = asyncio.create_task(batcher.drain(PATIENCE_S))
        await asyncio.sleep(0)  # It begins.
        with pytest.raises(UnavailableError, match="about to stop"):
            batcher.submit(feeds(1))
        graph.go.set()
        await draining
        assert [len(answer.image) for answer in await asyncio.gather(first, *rest)] == [1, 4, 4]

    play(scenario)


def test_what_is_not_answered_by_the_end_of_draining_fails() -> None:
    async def scenario() -> None:
        graph = Graph()
        batcher = make(graph)
        first = await begin_run(graph, batcher)
        late = batcher.submit(feeds(1))
        await batcher.drain(0)
        with pytest.raises(UnavailableError, match="stopping"):
            await late
        graph.go.set()
        await first

    play(scenario)


def test_instances_run_at_the_same_time_and_share_what_waits() -> None:
    async def scenario() -> None:
        one, other = graphs = Graph(), Graph()
        clock = SimulatedClock()
        batcher = make(*graphs, max_delay_ms=10, clock=clock)
        for graph in graphs:
            graph.go.clear()
        begun = [batcher.submit(feeds(1)) for _ in graphs]
        for graph in graphs:
            await asyncio.to_thread(graph.begun.acquire, timeout=PATIENCE_S)
        rest = [batcher.submit(feeds(1)) for _ in range(4)]
        assert clock.nobody_waited_for_more()
        one.go.set()
        await asyncio.gather(*rest)
        await clock.someone_waits(None)  # The first instance is idle again, and waits for four before the other is.
        other.go.set()
        await asyncio.gather(*begun)
        assert (one.sizes, other.sizes) == ([1, 4], [1])
        await asyncio.to_thread(wait_until, lambda: batcher._idle == 2)
        for graph in graphs:
            graph.go.clear()
        for graph in graphs:
            while graph.begun.acquire(blocking=False):  # Those of before.
                pass
        again = [batcher.submit(feeds(1)) for _ in range(4)]
        for graph in graphs:
            await asyncio.to_thread(graph.begun.acquire, timeout=PATIENCE_S)
        assert (one.sizes, other.sizes) == ([1, 4, 2], [1, 2])
        for graph in graphs:
            graph.go.set()
        await asyncio.gather(*again)
        await batcher.drain(PATIENCE_S)

    play(scenario)


def test_draining_waits_for_every_instance() -> None:
    async def scenario() -> None:
        graphs = Graph(), Graph()
        batcher = make(*graphs, max_queue=16)
        for graph in graphs:
            graph.go.clear()
        requests = [batcher.submit(feeds(4)) for _ in range(4)]
        for graph in graphs:
            await asyncio.to_thread(graph.begun.acquire, timeout=PATIENCE_S)
        draining = asyncio.create_task(batcher.drain(PATIENCE_S))
        await asyncio.sleep(0)  # It begins.
        graphs[0].go.set()
        await asyncio.to_thread(wait_until, lambda: sum(thread.is_alive() for thread in batcher._threads) == 1)
        assert not draining.done()
        graphs[1].go.set()
        await draining
        assert [len(answer.image) for answer in await asyncio.gather(*requests)] == [4] * 4

    play(scenario)


def test_runs_that_take_too_long_are_known_by_the_clock() -> None:
    async def scenario() -> None:
        graphs, clock = (Graph(), Graph()), SimulatedClock()
        batcher = make(*graphs, timeout_s=1, clock=clock)

        def hanging() -> bool:
            return batcher.hanging

        for graph in graphs:
            graph.go.clear()
        begun = []
        for _ in graphs:
            begun.append(batcher.submit(feeds(4)))
            await asyncio.to_thread(wait_until, lambda: len(batcher._runs) == len(begun))
            clock.advance_ms(400)
        assert not hanging()
        assert batcher.stop_runs() == pytest.approx(0.2)  # Until the first of them has run for a second.
        clock.advance_ms(200)
        assert not hanging()  # The second has 0.4 s left.
        assert batcher.stop_runs() == pytest.approx(0.4)
        clock.advance_ms(400)
        assert hanging()
        assert batcher.stop_runs() is None
        for graph in graphs:
            graph.go.set()
        await asyncio.gather(*begun)
        assert not hanging()
        await batcher.drain(PATIENCE_S)

    play(scenario)


@pytest.mark.parametrize("instances", [1, 3])
def test_no_request_is_lost_or_mixed_up_among_many(instances: int) -> None:
    async def scenario() -> None:
        graphs = [Graph() for _ in range(instances)]
        batcher = make(*graphs, max_batch=8, max_delay_ms=1, max_queue=1000, clock=Clock())
        random = np.random.default_rng(0)

        async def client(number: int) -> None:
            for step in range(20):
                images, edits = int(random.integers(1, 5)), int(random.integers(0, 4))
                future = batcher.submit(feeds(images, edits, value=number * 100 + step))
                if random.random() < 0.1:
                    await asyncio.sleep(0)
                    future.cancel()
                    continue
                answer = await future
                assert answer.image.shape == (images, 3)
                assert (answer.image == number * 100 + step).all()

        await asyncio.gather(*(client(number) for number in range(30)))
        assert batcher.waiting_images == 0
        await batcher.drain(PATIENCE_S)

    play(scenario)


@settings(max_examples=60)
@given(sizes=st.lists(st.tuples(st.integers(1, 3), st.integers(0, 5)), min_size=1, max_size=5), seed=st.integers(0, 99))
@pytest.mark.parametrize("model", ["tiny", "tiny_float32", "style_w", "style_w+"])
def test_a_shared_run_gives_each_request_the_image_it_gets_alone(
    model: str, sizes: list[tuple[int, int]], seed: int
) -> None:
    editor = EDITORS.setdefault(model, sefa_runtime.load(f"{GOLDEN}/{model}.onnx", provider="cpu"))
    random = np.random.default_rng(seed)
    parts = []
    for images, edits in sizes:
        latent = random.standard_normal((images, *editor.info.latent_shape), np.float32)
        direction = random.integers(0, len(editor.info.directions), (images, edits))
        alpha = random.uniform(-3, 3, (images, edits)).astype(np.float32)
        parts.append(editor.prepare(Call({editor.info.latent_name: latent, "direction": direction, "alpha": alpha})))
    together = editor.infer(join(parts))
    np.testing.assert_array_equal(together, np.concatenate([editor.infer(part) for part in parts]))
