"""Batching: requests that arrive at the same time share one run of the graph.

Each instance of a model has its own thread, which makes one run after another. A single client never waits. What many
clients get depends on whether sharing runs saves time, which is measured:

- Where it does, as on a GPU, the next run takes as many requests as fit, or the instance's share of them if other
  instances are idle too. After a shared run, an instance waits for at most `max_delay_ms`, until as many images are
  waiting as that run held, since the same clients are about to come back.
- Where a run takes about as long as its requests one by one, as on a CPU, an instance that waits is only idle, so it
  starts at once. It takes its share of three quarters of the images that are there, waiting or in runs: the rest keeps
  the instances busy while the event loop answers and reads.
"""

import asyncio
import math
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from sefa_runtime.inputs.batches import Feeds, join
from sefa_runtime.server.errors import QueueFullError, UnavailableError
from sefa_runtime.session.session import stop_run

Run = Callable[[Feeds], NDArray[Any]]

# Sharing saves time if an image takes at most this share of the time that it takes in a run of one request.
SAVING = 0.5
# Where it does not, so much of all images that are there may be in runs; the rest waits, so that no instance runs dry.
IN_RUNS = 0.75


@dataclass(frozen=True)
class Answer:
    """One request's images, and how they were generated."""

    image: NDArray[Any]  # [batch, ...]; a part of the whole run's array
    queue_ns: int  # from `submit` to the start of the run
    run_ns: int  # of the run, including joining its inputs
    run_images: int  # images in the run


@dataclass(frozen=True)
class RunRecord:
    """One run of the graph."""

    images: int
    queue_ns: tuple[int, ...]  # of each request in it
    run_ns: int
    failed: bool


class Clock:
    """The machine's monotonic clock, and waits measured by it."""

    def now_ns(self) -> int:
        """Return nanoseconds since some fixed moment in the past."""
        return time.perf_counter_ns()

    def wait(self, changed: threading.Condition, delay_ns: int | None) -> None:
        """Wait until `changed` is notified, or until the delay is over if there is one."""
        changed.wait(None if delay_ns is None else delay_ns / 1e9)


CLOCK = Clock()


@dataclass(eq=False)
class _Request:
    feeds: Feeds
    images: int
    future: "asyncio.Future[Answer]"
    loop: asyncio.AbstractEventLoop
    came_ns: int


class Batcher:
    """A bounded queue in front of the threads that run a graph, one per instance."""

    def __init__(
        self,
        instances: Sequence[Run],
        *,
        max_batch: int,
        max_delay_ms: float,
        max_queue: int,
        timeout_s: float = math.inf,
        observe: Callable[[RunRecord], None] = lambda record: None,
        name: str = "model",
        clock: Clock = CLOCK,
    ) -> None:
        """Start the threads.

        Args:
            instances: Functions from checked inputs to images (`Editor.infer`), each called by one thread.
            max_batch: The most images in one run, and in one request.
            max_delay_ms: How long a run may wait for more requests, where sharing runs saves time.
            max_queue: How many images may wait.
            timeout_s: How long a run may take; nobody waits longer than that.
            observe: Called after each run, in the event loop of its requests.
            name: Used in the names of the threads.
            clock: Tells the time; tests pass a simulated one.
        """
        self.max_batch = max_batch
        self.max_queue = max_queue
        self.timeout_s = timeout_s
        self._observe = observe
        self._clock = clock
        self._max_delay_ns = round(max_delay_ms * 1e6)
        self._changed = threading.Condition()
        self._waiting: deque[_Request] = deque()
        self._waiting_images = 0
        self._gathering = threading.Lock()  # held by the one thread that is gathering its next batch
        self._wake_at = 1  # wake that thread when this many images are waiting
        self._idle = len(instances)  # threads not in a run
        self._running_images = 0  # in the runs of the others
        self._closed = False
        self._process = os.getpid()
        self._alone_ns = math.inf  # how long an image of a run of one request takes, at best
        self._saves = True  # whether the last shared run saved time
        self._running = threading.Lock()  # guards `_runs`
        self._runs: dict[int, int] = {}  # thread identifier -> when its current run began, perf_counter_ns
        self._threads = [
            threading.Thread(target=self._work, args=(run,), name=f"sefa-{name}-{number}", daemon=True)
            for number, run in enumerate(instances)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def waiting_images(self) -> int:
        """How many images are waiting for a run."""
        return self._waiting_images

    @property
    def left_behind(self) -> bool:
        """Whether this is a fork of the process that has the threads."""
        return os.getpid() != self._process

    @property
    def at_work(self) -> bool:
        """Whether any of its threads is still alive."""
        return any(thread.is_alive() for thread in self._threads)

    @property
    def hanging(self) -> bool:
        """Whether every instance is in a run that has exceeded `timeout_s`."""
        with self._running:
            return len(self._runs) == len(self._threads) and max(self._left_s().values()) <= 0

    def stop_runs(self) -> float | None:
        """Ask onnxruntime to stop the runs that have exceeded `timeout_s`.

        Returns:
            Seconds until the next of the other runs exceeds it; None if there is no other.
        """
        with self._running:  # Held so that the thread cannot have begun its next run.
            left_s = self._left_s()
            for thread, seconds in left_s.items():
                if seconds <= 0:
                    stop_run(thread)
        return min((seconds for seconds in left_s.values() if seconds > 0), default=None)

    def submit(self, feeds: Feeds) -> "asyncio.Future[Answer]":
        """Queue inputs for the next run. Call it in an event loop.

        Cancelling the future, or setting its exception, takes them out of the queue; a run that has already begun
        continues.

        Args:
            feeds: From `Editor.prepare`, 1 to `max_batch` images; requests may differ in their number of edits.

        Returns:
            A future with the answer, or with the exception that the run raised.

        Raises:
            QueueFullError: If the queue has no room for that many images.
            UnavailableError: If the batcher is draining.
        """
        images = len(feeds["direction"])
        assert 1 <= images <= self.max_batch
        loop = asyncio.get_running_loop()
        request = _Request(feeds, images, loop.create_future(), loop, self._clock.now_ns())
        with self._changed:
            if self._closed:
                raise UnavailableError("the server is about to stop", retry_after_s=1)
            # An empty queue takes a request of any size; otherwise a large one would never fit.
            if self._waiting and self._waiting_images + images > self.max_queue:
                raise QueueFullError(f"{self._waiting_images} images are waiting: try again later", retry_after_s=1)
            self._waiting.append(request)
            self._waiting_images += images
            if self._waiting_images >= self._wake_at:
                self._changed.notify()
        request.future.add_done_callback(
            lambda future: self._forget(request) if future.cancelled() or future.exception() else None
        )
        return request.future

    async def drain(self, timeout_s: float) -> None:
        """Take no more requests, answer those that are waiting, end the threads; requests not answered in time fail."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        await asyncio.to_thread(self._join, timeout_s)
        with self._changed:
            left = list(self._waiting)
            self._waiting.clear()
            self._waiting_images = 0
        for request in left:
            if not request.future.done():
                request.future.set_exception(UnavailableError("the server is stopping", retry_after_s=1))

    def _left_s(self) -> dict[int, float]:
        """Return how many more seconds each thread's run may take."""
        now = self._clock.now_ns()
        return {thread: self.timeout_s - (now - started) / 1e9 for thread, started in self._runs.items()}

    def _forget(self, request: _Request) -> None:
        with self._changed:
            try:
                self._waiting.remove(request)
            except ValueError:
                return  # Its run has begun.
            self._waiting_images -= request.images

    def _join(self, timeout_s: float) -> None:
        end = time.monotonic() + timeout_s
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))

    def _work(self, run: Run) -> None:
        expected = 1  # images that are worth waiting for
        while True:
            with self._gathering:
                batch = self._next_batch(expected)
            if not batch:
                return
            images = sum(request.images for request in batch)
            self._answer(run, batch)
            expected = images if len(batch) > 1 and self._saves else 1
            with self._changed:
                self._idle += 1
                self._running_images -= images

    def _next_batch(self, expected: int) -> list[_Request]:
        """Wait for requests and take as many as fit into one run; an empty list means that it is time to end."""
        with self._changed:
            while True:
                self._wait_for(1, None)
                self._wait_for(expected, self._max_delay_ns)
                wanted = math.ceil(self._waiting_images / self._idle)
                if not self._saves:
                    there = self._waiting_images + self._running_images
                    wanted = min(wanted, math.ceil(there * IN_RUNS / len(self._threads)))
                batch = self._take(min(self.max_batch, wanted))
                if batch or self._closed:
                    self._wake_at = self.max_queue + self.max_batch + 1  # No thread is gathering.
                    self._idle -= 1
                    self._running_images += sum(request.images for request in batch)
                    return batch

    def _take(self, wanted: int) -> list[_Request]:
        """Take the oldest requests, about `wanted` images in all and never more than fit into one run."""
        batch: list[_Request] = []
        images = 0
        while self._waiting and images < wanted and images + self._waiting[0].images <= self.max_batch:
            request = self._waiting.popleft()
            images += request.images
            batch.append(request)
        self._waiting_images -= images
        return batch

    def _wait_for(self, images: int, delay_ns: int | None) -> None:
        """Wait until that many images are waiting, the oldest has waited for `delay_ns`, or it is time to end."""
        self._wake_at = images
        while self._waiting_images < images and not self._closed:
            if delay_ns is None:
                self._clock.wait(self._changed, None)
                continue
            if not self._waiting:
                return  # The waiting requests were all cancelled.
            left_ns = self._waiting[0].came_ns + delay_ns - self._clock.now_ns()
            if left_ns <= 0:
                return
            self._clock.wait(self._changed, left_ns)

    def _answer(self, run: Run, batch: list[_Request]) -> None:
        started = self._clock.now_ns()
        thread = threading.get_ident()
        with self._running:
            self._runs[thread] = started
        try:
            try:
                image = run(join([request.feeds for request in batch]))
            finally:
                with self._running:
                    del self._runs[thread]
        except Exception as error:
            waited_for = [request for request in batch if not request.future.done()]
            if len(batch) > 1 and waited_for:  # One of them, or the batch size, is at fault: run each by itself.
                for request in waited_for:
                    self._answer(run, [request])
                return
            self._hand_over(batch, error, started, self._clock.now_ns() - started)
        else:
            run_ns = self._clock.now_ns() - started
            if len(batch) == 1:
                self._alone_ns = min(self._alone_ns, run_ns / len(image))
            else:
                self._saves = run_ns / len(image) <= SAVING * self._alone_ns
            self._hand_over(batch, image, started, run_ns)

    def _hand_over(self, batch: list[_Request], result: NDArray[Any] | Exception, started: int, run_ns: int) -> None:
        """Wake the event loop once for all requests of a run."""

        def deliver() -> None:
            images = sum(request.images for request in batch)
            queue_ns = tuple(started - request.came_ns for request in batch)
            self._observe(RunRecord(images, queue_ns, run_ns, isinstance(result, Exception)))
            start = 0
            for request, waited_ns in zip(batch, queue_ns, strict=True):
                stop = start + request.images
                if not request.future.done():
                    if isinstance(result, Exception):
                        request.future.set_exception(result)
                    else:
                        request.future.set_result(Answer(result[start:stop], waited_ns, run_ns, images))
                start = stop

        try:
            batch[0].loop.call_soon_threadsafe(deliver)
        except RuntimeError:  # The loop has ended, and nobody is waiting any more.
            return
