"""The models of a server: loading them, their states, inference, statistics."""

import asyncio
import concurrent.futures
import logging
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TypeVar

import numpy as np

from sefa_runtime.editor import Editor
from sefa_runtime.errors import InputError, RunError, SefaRuntimeError
from sefa_runtime.inputs.batches import Feeds, split
from sefa_runtime.instances import load_instances, warm_up
from sefa_runtime.machine.packages import onnxruntime_wheels
from sefa_runtime.model.info import ModelInfo
from sefa_runtime.server.batching import Answer, Batcher, RunRecord
from sefa_runtime.server.errors import DeadlineError, UnavailableError, UnknownModelError
from sefa_runtime.server.settings import Settings
from sefa_runtime.session.session import stop_run

Result = TypeVar("Result")

faults = logging.getLogger("sefa.error")

# Every model has just this version.
VERSION = "1"
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,127}")
# The protocol's own paths in the place of a model's name.
RESERVED_NAMES = ("stats",)
# How long a model's first run may take, unless requests may take longer: it also brings in memory and code.
FIRST_RUN_S = 60.0


class State(StrEnum):
    """The state of a model."""

    LOADING = "loading"
    READY = "ready"
    HANGING = "hanging"  # until one of its runs ends
    FAILED = "failed"
    DRAINING = "draining"


@dataclass
class Statistics:
    """What a model has done since the start. Times are in nanoseconds unless their names say otherwise."""

    requests: int = 0  # answered with images
    failures: int = 0  # refused or failed
    request_ns: int = 0  # of the answered requests
    failure_ns: int = 0
    images: int = 0
    runs: int = 0
    queue_ns: int = 0  # summed over requests
    queued: int = 0  # requests that reached a run
    run_ns: int = 0
    last_request_ms: int = 0  # since 1970; 0: none yet
    runs_by_images: dict[int, tuple[int, int]] = field(default_factory=dict)  # images -> runs, their run_ns


class HostedModel:
    """One model of a server.

    Attributes:
        name: Its name in requests.
        statistics: What it has done.
        active: How many calls of `infer` are under way.
        fingerprint: Everything besides the inputs that determines the image; set once the model is loaded.
        observers: Called after each run of the graph, in the event loop.
    """

    def __init__(self, name: str, path: Path, settings: Settings) -> None:
        self.name = name
        self.path = path
        self.settings = settings
        self._state = State.LOADING
        self._failure = ""
        self.statistics = Statistics()
        self.active = 0
        self.fingerprint: tuple[object, ...] = ()
        self.observers: list[Callable[[RunRecord], None]] = []
        self._loading: threading.Thread | None = None
        self._editor: Editor | None = None
        self._batcher: Batcher | None = None

    @property
    def state(self) -> State:
        """The current state; `READY` means that it can answer."""
        if self._state is State.READY and self._batcher:
            if self._batcher.left_behind:
                return State.FAILED
            if self._batcher.hanging:
                return State.HANGING
        return self._state

    @property
    def reason(self) -> str:
        """Why it failed or hangs; otherwise empty."""
        if self.state is State.HANGING:
            return f"a run has not ended within {self.settings.timeout_s:g} s"
        if self._batcher and self._batcher.left_behind:
            return "it was loaded before this process was forked: load it in each process"
        return self._failure

    @property
    def ready(self) -> bool:
        """Whether it can answer."""
        return self.state is State.READY

    @property
    def loaded(self) -> bool:
        """Whether `editor` and `info` are available."""
        return self._editor is not None

    @property
    def at_work(self) -> bool:
        """Whether any of its threads is still running."""
        return (self._loading is not None and self._loading.is_alive()) or (
            self._batcher is not None and self._batcher.at_work
        )

    @property
    def editor(self) -> Editor:
        """The loaded model.

        Raises:
            UnavailableError: If it is still loading or failed to load.
        """
        if self._editor is None:
            raise self._unavailable()
        return self._editor

    @property
    def info(self) -> ModelInfo:
        """What the loaded model says about itself. Raises as `editor`."""
        return self.editor.info

    @property
    def max_edits(self) -> int:
        """Edits of one image: the server's limit, or the model's own."""
        own = self.info.num_edits
        return self.settings.max_edits if own is None else min(own, self.settings.max_edits)

    @property
    def run_batch(self) -> int:
        """Images in one run: the server's limit, or the model's own batch."""
        return self.info.batch or self.settings.max_batch

    @property
    def waiting_images(self) -> int:
        """How many images are waiting for a run."""
        return self._batcher.waiting_images if self._batcher else 0

    async def load(self, turn: asyncio.Lock | None = None) -> None:
        """Load the model and generate one image; afterwards it is ready or failed.

        Args:
            turn: Held during loading, but not during the first run.
        """
        try:
            async with turn or asyncio.Lock():
                if self._state is State.DRAINING:
                    return
                self._loading, loaded = _in_thread(self._load)
                editors = await loaded
            await self._warm_up(editors)
        except (SefaRuntimeError, OSError) as error:
            # Clients need not know where the file is.
            self._state, self._failure = State.FAILED, " ".join(str(error).split()).removeprefix(f"{self.path}: ")
            return
        except Exception:  # A fault of ours must not leave the other models without an answer.
            faults.exception("model %s", self.name)
            self._state, self._failure = State.FAILED, "a fault of the server; its log has more"
            return
        self._editor = editors[0]
        self.fingerprint = self._editor.info.payload, self._editor.provider, onnxruntime_wheels()
        self._batcher = Batcher(
            [editor.infer for editor in editors],
            max_batch=self.run_batch,
            max_delay_ms=self.settings.max_delay_ms,
            max_queue=self.settings.max_queue,
            timeout_s=self.settings.timeout_s,
            observe=self._observe,
            name=self.name,
        )
        if self._state is State.LOADING:  # Unless the server was asked to stop meanwhile.
            self._state = State.READY

    async def infer(self, feeds: Feeds) -> Answer:
        """Run checked inputs, sharing runs with concurrent requests.

        Args:
            feeds: From `Editor.prepare`. More images than fit into one run are run in parts, one after another.

        Returns:
            The images of all parts, and the largest of each of their other figures.

        Raises:
            UnavailableError: If the model is not ready; `QueueFullError` if too many images are waiting.
            DeadlineError: If it takes longer than the server's `timeout_s`.
            InputError: If there are more edits than the model takes.
            RunError: If onnxruntime fails.
        """
        if not self.ready or self._batcher is None:
            raise self._unavailable()
        if feeds["direction"].shape[1] > self.max_edits:
            raise InputError(f"at most {self.max_edits} edits of an image, got {feeds['direction'].shape[1]}")
        end_s = asyncio.get_running_loop().time() + self.settings.timeout_s
        self.active += 1
        try:
            if len(feeds["direction"]) <= self._batcher.max_batch:
                return await self._run(feeds, end_s)
            answers = [await self._run(part, end_s) for part in split(feeds, self._batcher.max_batch)]
        except TimeoutError:
            self._stop_runs()
            raise DeadlineError(f"no answer within {self.settings.timeout_s:g} s") from None
        finally:
            self.active -= 1
        return Answer(
            np.concatenate([answer.image for answer in answers]),
            queue_ns=max(answer.queue_ns for answer in answers),
            run_ns=max(answer.run_ns for answer in answers),
            run_images=max(answer.run_images for answer in answers),
        )

    async def drain(self) -> None:
        """Take no more requests, and answer those that are waiting."""
        if self._state is not State.FAILED:
            self._state = State.DRAINING
        end = time.monotonic() + self.settings.timeout_s
        while self.active:  # Each ends within `timeout_s`. A request in parts still has some to submit.
            await asyncio.sleep(0.005)
        if self._batcher:
            await self._batcher.drain(max(0.0, end - time.monotonic()))

    def count(self, answered: bool, elapsed_ns: int) -> None:
        """Count a finished request for images.

        Args:
            answered: Whether it got images.
            elapsed_ns: From its headers to the end of its answer.
        """
        statistics = self.statistics
        if not answered:
            statistics.failures += 1
            statistics.failure_ns += elapsed_ns
            return
        statistics.requests += 1
        statistics.request_ns += elapsed_ns
        statistics.last_request_ms = time.time_ns() // 1_000_000

    async def _run(self, feeds: Feeds, end_s: float) -> Answer:
        """Run inputs that fit into one run; raise `TimeoutError` once the loop's clock says `end_s`.

        `asyncio.timeout` does the same with several times the calls.
        """
        assert self._batcher is not None
        future = self._batcher.submit(feeds)
        timer = future.get_loop().call_at(end_s, _time_out, future)
        try:
            return await future
        finally:
            timer.cancel()

    def _load(self) -> list[Editor]:
        settings = self.settings
        return load_instances(
            self.path,
            settings.instances,
            settings.provider,
            settings.provider_options or None,
            settings.threads,
            allow_cpu_fallback=settings.allow_cpu_fallback,
            prefix_mb=settings.prefix_mb,
            warm=False,
            batch=settings.batch,
            styles_on_cpu=settings.styles_on_cpu,
            convolutions_on_cpu=settings.convolutions_on_cpu,
        )

    async def _warm_up(self, editors: list[Editor]) -> None:
        limit_s = max(FIRST_RUN_S, self.settings.timeout_s)
        self._loading, warm = _in_thread(lambda: warm_up(editors))
        done, _ = await asyncio.wait([warm], timeout=limit_s)
        if not done:
            assert self._loading.ident is not None
            stop_run(self._loading.ident)
            warm.add_done_callback(lambda warm: warm.cancelled() or warm.exception())  # Or asyncio complains.
            raise RunError(f"its first run did not end within {limit_s:g} s; a longer timeout-s waits longer")
        await warm

    def _stop_runs(self) -> None:
        """Stop runs that have lasted longer than requests may wait: nobody is waiting for them any more."""
        assert self._batcher is not None
        next_s = self._batcher.stop_runs()
        if next_s is not None:
            asyncio.get_running_loop().call_later(next_s + 0.01, self._stop_runs)

    def _observe(self, record: RunRecord) -> None:
        statistics = self.statistics
        statistics.runs += 1
        statistics.run_ns += record.run_ns
        statistics.queued += len(record.queue_ns)
        statistics.queue_ns += sum(record.queue_ns)
        runs, run_ns = statistics.runs_by_images.get(record.images, (0, 0))
        statistics.runs_by_images[record.images] = runs + 1, run_ns + record.run_ns
        if not record.failed:
            statistics.images += record.images
        for observer in self.observers:
            observer(record)

    def _unavailable(self) -> UnavailableError:
        if self.state is State.FAILED:
            return UnavailableError(f"model {self.name} failed to load: {self.reason}")
        if self.state is State.HANGING:
            return UnavailableError(f"model {self.name} does not answer: {self.reason}", retry_after_s=1)
        if self.state is State.DRAINING:
            return UnavailableError("the server is about to stop", retry_after_s=1)
        return UnavailableError(f"model {self.name} is loading", retry_after_s=1)


class Models:
    """All models of a server, by name."""

    def __init__(self, models: Sequence[HostedModel]) -> None:
        """Keep the models in the order given.

        Raises:
            InputError: If there are none, or two have the same name.
        """
        if not models:
            raise InputError("at least one model is needed")
        self._models: dict[str, HostedModel] = {}
        for model in models:
            if model.name in self._models:
                other = self._models[model.name].path
                raise InputError(f"{other} and {model.path} are both called {model.name}: give one as NAME=PATH")
            self._models[model.name] = model
        self.draining = False

    def __iter__(self) -> Iterator[HostedModel]:
        return iter(self._models.values())

    def get(self, name: str, version: str = VERSION) -> HostedModel:
        """Return the model with this name.

        Raises:
            UnknownModelError: If there is none, or it has no such version.
        """
        try:
            model = self._models[name]
        except KeyError:
            raise UnknownModelError(f"no model {name[:128]!r} here: {', '.join(self._models)}") from None
        if version != VERSION:
            raise UnknownModelError(f"model {name} has version {VERSION}, not {version[:32]!r}")
        return model

    @property
    def loading(self) -> bool:
        """Whether a model is still being loaded."""
        return any(model.state is State.LOADING for model in self)

    @property
    def ready(self) -> bool:
        """Whether the server should be sent requests: no model is loading, one is ready, and it is not stopping."""
        return not self.draining and not self.loading and any(model.ready for model in self)

    async def load(self, report: Callable[[HostedModel], None] = lambda model: None) -> None:
        """Load the models one at a time, since catching onnxruntime's banners redirects the process's own output.

        Args:
            report: Called with each model once it is ready or has failed.
        """
        turn = asyncio.Lock()

        async def load(model: HostedModel) -> None:
            await model.load(turn)
            report(model)

        await asyncio.gather(*map(load, self))

    async def drain(self) -> None:
        """Take no more requests, and answer those that are waiting."""
        self.draining = True
        await asyncio.gather(*(model.drain() for model in self))


def _time_out(future: "asyncio.Future[Answer]") -> None:
    if not future.done():
        future.set_exception(TimeoutError())


def _in_thread(work: Callable[[], Result]) -> tuple[threading.Thread, "asyncio.Future[Result]"]:
    """Start work in a daemon thread, which does not keep the process from exiting; return thread and result."""
    result: concurrent.futures.Future[Result] = concurrent.futures.Future()

    def run() -> None:
        try:
            result.set_result(work())
        except BaseException as error:
            result.set_exception(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread, asyncio.wrap_future(result)


def parse_model(text: str) -> tuple[str, Path]:
    """Parse `faces.onnx` or `NAME=faces.onnx` into name and path.

    Raises:
        InputError: If the name cannot be used in an address.
    """
    name, equals, rest = text.partition("=")
    if equals and not Path(text).is_file():
        path = Path(rest)
    else:
        name, path = Path(text).stem, Path(text)
    if not NAME.fullmatch(name) or name in RESERVED_NAMES:
        raise InputError(
            f"a model's name has letters of ASCII, digits, _ . + - and is not {', '.join(RESERVED_NAMES)}, got "
            f"{name[:128]!r}; NAME=PATH gives another"
        )
    return name, path
