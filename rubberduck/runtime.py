"""RubberDuck as a user holds it: starts the tree, takes calls, stops in order."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import logging
import random
import threading
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar, cast, overload

import pykka

import supervision as sup
from rubberduck import prices as prices_list
from rubberduck import telemetry
from rubberduck.actors import components, cost_tracker, deliveries, jobs, outcomes, request_queue, service, tree
from rubberduck.actors.board import Board
from rubberduck.actors.calls.runner import CallRunner
from rubberduck.actors.calls.trace import Trace
from rubberduck.actors.office import Office
from rubberduck.actors.status import ProviderStatus, Status
from rubberduck.config import Config
from rubberduck.core.breaker import Event, State
from rubberduck.core.budget import BudgetStatus
from rubberduck.core.jobs import Job, JobState
from rubberduck.core.ledger import Summary
from rubberduck.errors import CallInterrupted, ConfigError, InvalidRequest, QueueFull, RubberDuckError
from rubberduck.prices import PriceBook
from rubberduck.providers.base import Provider
from rubberduck.storage import Ledger
from rubberduck.storage.jobs import SqliteJobs
from rubberduck.stream import OpeningStream, Stream
from rubberduck.telemetry import names as events
from rubberduck.types import EmbeddingRequest, Embeddings, Request, Response, TokenCount
from rubberduck.wiring import desk_of, jobs_of, leases_of, ledger_of, prices_of, provider_of

logger = logging.getLogger("rubberduck")
_numbers = itertools.count(1)
T = TypeVar("T")


class RubberDuck:
    """A running RubberDuck.

        with RubberDuck.start(config) as duck:
            response = duck.complete({"model": "smart", "messages": [{"role": "user", "content": "Hi"}]})

    Its methods may be called from any thread. In a coroutine use those that begin with `a`.
    """

    def __init__(self, config: Config, office: Office) -> None:
        self.config = config
        self.system = office.system
        self._board = office.board
        self._office = office
        self._runner = CallRunner(config, office)
        self._closed = False
        self._stopping = threading.Lock()

    def __repr__(self) -> str:
        state = "stopped" if self._closed else "running"
        return f"<RubberDuck {self.system.name}, {state}: {', '.join(self._board.desks)}>"

    @classmethod
    def start(
        cls,
        config: Config | Mapping[str, Any] | str | Path | None = None,
        *,
        clock: sup.Clock | None = None,
        transport: Any = None,
    ) -> RubberDuck:
        """Start a tree by a configuration: a dict, a Config, or a path to YAML or TOML. None is the mock provider.

        `clock` measures every delay and deadline. `transport` is an httpx transport for all providers.

        Raises:
            ConfigError: with all faults found; nothing is left running.
        """
        loaded = Config.load(config)
        open_ledger = ledger_of(loaded)
        prices = PriceBook(prices_of(loaded))
        peers = frozenset(loaded.providers)
        desks = {name: desk_of(provider_of(each, transport, peers), loaded) for name, each in loaded.providers.items()}
        if any(prices_list.is_listed(desk.vendor) for desk in desks.values()):
            prices_list.preload()
        board = Board(desks, loaded.models, random.Random())
        system = sup.System(f"rubberduck-{next(_numbers)}", clock=clock, loop_limit=loaded.supervision.loop_limit)
        try:
            duck = cls(loaded, Office(system, board, prices, leases_of(loaded)))
            duck._supervise(open_ledger, jobs_of(loaded))
        except BaseException:
            system.stop(5.0)
            raise
        return duck

    def _supervise(self, open_ledger: Callable[[], Ledger], open_jobs: Callable[[], SqliteJobs]) -> None:
        children = tree.children(self.config, self._office, self._runner, open_ledger, self._breaker_event, open_jobs)
        limits = self.config.supervision
        try:
            self.system.supervise(*children, max_restarts=limits.max_restarts, max_seconds=limits.max_seconds)
        except sup.StartFailedError as error:
            reason = error.reason
            if isinstance(reason, sup.Crash) and reason.type == ConfigError.__name__:
                raise ConfigError(reason.message) from None  # an actor's own word about what it was given
            raise ConfigError(f"RubberDuck could not start: {error}") from None
        self._office.open()
        if self.config.jobs is not None:
            self._office.deliveries().tell(deliveries.Go())

    # -- calls -------------------------------------------------------------------------------------

    @property
    def service(self) -> sup.ActorRef:
        """The ServiceActor's ref: `duck.service.ask({"complete": request})`."""
        return cast("sup.ActorRef", self.actor("service"))

    @overload
    def complete(
        self, request: Request | dict[str, Any], *, response_model: None = None, **options: Any
    ) -> Response: ...
    @overload
    def complete(
        self, request: Request | dict[str, Any], *, response_model: type[T], repair: bool = False, **options: Any
    ) -> T: ...
    def complete(self, request: Request | dict[str, Any], **options: Any) -> Any:
        """Ask a model and wait for the whole answer.

        Options, all by name: `priority` ("high", "normal", "low"), `timeout` (seconds, for all of it), `providers`
        (names; only these are asked), `tenant` and `tags` (texts, kept in the ledger; budgets, queue and cache know
        tenants), `session` (a conversation that had better stay on its route), `replayable` (False: to send it twice
        could do something twice), `max_cost` (USD, for all attempts), `stream_policy` (see `stream`).

        With `response_model` (a pydantic model, a dataclass, or whatever pydantic can check) the answer is asked for
        in that form, and is a value of that type. With `repair=True` the model may mend an answer that does not fit,
        once, within the same call. Who wants the Response too has `schema_of` and `read` in `rubberduck.structured`.

        Raises:
            OutputInvalid: the answer is no value of the type; it has been paid for, and is in `error.response`.
            RubberDuckError: see `rubberduck.errors`.
        """
        return self._blocking({"complete": request, **options})

    @overload
    async def acomplete(
        self, request: Request | dict[str, Any], *, response_model: None = None, **options: Any
    ) -> Response: ...
    @overload
    async def acomplete(
        self, request: Request | dict[str, Any], *, response_model: type[T], repair: bool = False, **options: Any
    ) -> T: ...
    async def acomplete(self, request: Request | dict[str, Any], **options: Any) -> Any:
        """As `complete`, on any event loop. Cancelling the awaiting task cancels the call."""
        return await self._asking({"complete": request, **options})

    def embed(self, request: EmbeddingRequest | dict[str, Any], **options: Any) -> Embeddings:
        """Turn texts into vectors, in their order: `{"model": ..., "input": ["one text", "another"]}`.

        Any number of texts may be given: they are sent in as many requests as they need within one call: the first
        alone, the others side by side, four at a time. All vectors are of one model: once some have come, others are
        asked for on routes of that model only. Options as of `complete`, but for `session`, `stream_policy` and those
        that read an answer.

        Raises:
            RubberDuckError: one request of several may have failed; `spent` is what all of them have cost.
        """
        return cast("Embeddings", self._blocking({"embed": request, **options}))

    async def aembed(self, request: EmbeddingRequest | dict[str, Any], **options: Any) -> Embeddings:
        """As `embed`, on any event loop."""
        return cast("Embeddings", await self._asking({"embed": request, **options}))

    def count_tokens(self, request: Request | dict[str, Any], **options: Any) -> TokenCount:
        """How many input tokens a request is, for the route that comes first.

        A provider that counts is asked, for nothing; else it is counted here, `estimated` unless that is exact. Where
        the provider fails, the number is an estimate too. Options: `priority`, `timeout`, `providers`, `tenant`,
        `tags`, `replayable`.

        Raises:
            InvalidRequest, AuthenticationFailed: the provider's word, as it would be on an answer.
            RubberDuckError: nobody serves the model, or there was no time.
        """
        return cast("TokenCount", self._blocking({"count": request, **options}))

    async def acount_tokens(self, request: Request | dict[str, Any], **options: Any) -> TokenCount:
        """As `count_tokens`, on any event loop."""
        return cast("TokenCount", await self._asking({"count": request, **options}))

    def stream(self, request: Request | dict[str, Any], **options: Any) -> Stream:
        """Ask a model and get the answer piece by piece; returns when its first piece is there.

        Options as of `complete`. `stream_policy` says what becomes of it if it breaks: "error" (raise), "buffer" (hold
        it back to its end, {"buffer": "2s"} or {"buffer": "20 tokens"} its beginning), "continue" (elsewhere).
        """
        return cast("Stream", self._blocking({"stream": request, **options}))

    def astream(self, request: Request | dict[str, Any], **options: Any) -> OpeningStream:
        """As `stream`, on any event loop: `async with duck.astream(request) as stream: async for chunk in stream`."""
        return OpeningStream(functools.partial(self._asking, {"stream": request, **options}))

    # -- durable jobs ------------------------------------------------------------------------------

    def submit(self, request: Request | dict[str, Any], **options: Any) -> str:
        """Accept a request as a durable job; its id. It is on the disk, and is answered whatever ends in between.

        Options as of `complete`, and `key` (the submitter's own: the same key is the same job), `safety`
        ("at_most_once": what may have been executed is not sent again; "at_least_once": it is).

        Raises:
            ConfigError: the configuration has no section `jobs`.
        """
        return cast("Job", self._blocking({"submit": request, **options})).id

    async def asubmit(self, request: Request | dict[str, Any], **options: Any) -> str:
        """As `submit`, on any event loop."""
        return cast("Job", await self._asking({"submit": request, **options})).id

    def result(self, job_id: str, timeout: float | None = None) -> Response:
        """Wait for the answer of a durable job, whichever process gives it, for `timeout` seconds (None: until then).

        Raises:
            RubberDuckError: how the job failed.
            ConfigError: the configuration has no section `jobs`.
            KeyError: there is no job of this id, or it ended so long ago that it has been forgotten.
            TimeoutError: it has not ended yet.
        """
        if asyncio._get_running_loop() is not None:
            raise RuntimeError("this would block the event loop: use `duck.aresult` in a coroutine")
        wanted, until = jobs.WaitFor(_job_id(job_id)), _until(timeout)
        while True:
            future = self._keeper.ask(wanted, block=False)
            try:
                job = future.get(timeout=None if until is None else max(0.0, until - time.monotonic()))
            except pykka.Timeout:
                _give_up(future)
                raise TimeoutError(f"the job {job_id} has not ended within {timeout} s") from None
            except sup.ActorDeadError as died:
                self._require_keeper(died)
            else:
                return _result(job_id, job)

    async def aresult(self, job_id: str, timeout: float | None = None) -> Response:
        """As `result`, on any event loop."""
        wanted = jobs.WaitFor(_job_id(job_id))
        async with asyncio.timeout(None if _until(timeout) is None else timeout):
            while True:
                try:
                    job = await self._keeper.ask(wanted, block=False)
                except sup.ActorDeadError as died:
                    self._require_keeper(died)
                else:
                    return _result(job_id, job)

    def job(self, job_id: str) -> Job:
        """A durable job as it stands now. Raises KeyError if there is none of this id."""
        found = self._ask(self._keeper, jobs.Find(_job_id(job_id)))
        if found is None:
            raise KeyError(f"there is no job {job_id!r}")
        return cast("Job", found)

    @property
    def _keeper(self) -> sup.ActorRef:
        if self.config.jobs is None:
            raise ConfigError(service.NO_JOBS)
        if self._closed:
            raise _stopped()
        return self._office.jobs()

    def _require_keeper(self, died: sup.ActorDeadError) -> None:
        """Whoever waits for a job's end asks the next incarnation; raises if there will be none."""
        if self._closed or not self._keeper.is_alive():
            raise _interrupted(died) from died

    def _blocking(self, message: dict[str, Any]) -> Any:
        if asyncio._get_running_loop() is not None:
            raise RuntimeError("this would block the event loop: use `duck.acomplete` or `duck.astream` in a coroutine")
        future = self._asked(message)
        try:
            return future.get()
        except RubberDuckError:
            raise
        except Exception as error:  # the crash of an actor on the call's way
            raise _interrupted(error) from error
        except BaseException:  # Ctrl-C: nobody waits for the answer any more
            _give_up(future)
            raise

    async def _asking(self, message: dict[str, Any]) -> Any:
        future = self._asked(message)
        try:
            return await future
        except RubberDuckError:
            raise
        except Exception as error:  # the crash of an actor on the call's way
            raise _interrupted(error) from error
        except BaseException:  # the awaiting task was cancelled
            _give_up(future)
            raise

    def _asked(self, message: dict[str, Any]) -> sup.AskFuture[Any]:
        if self._closed:
            raise _stopped()
        return cast("sup.AskFuture[Any]", self.service.ask(message, block=False))

    # -- looking -----------------------------------------------------------------------------------

    def actor(self, name: str) -> Any:
        """The ref of an actor or supervisor of the tree, such as "circuit_breaker:openai"; it survives restarts."""
        for path in (name, f"providers/{name}", f"providers/provider:{name.partition(':')[2]}/{name}"):
            if (ref := self.system.whereis(path)) is not None:
                return ref
        if self._closed:
            raise _stopped()
        names = self._office.actor_names()
        if name in names:
            raise CallInterrupted(f"{name} is not there: it failed so often that it was given up, or rests for a while")
        known = ", ".join(names)
        raise KeyError(f"there is no actor {name!r}; there are {known}")

    def explain(self, request_id: str) -> Trace:
        """Why a call goes or went its way: every candidate with its score, waits, attempts, the bill; `str()` tells it.

        Calls that run are known, and the last 1,000 that ended. Ids are in `response.request_id`, in an error's and a
        stream's `request_id`, and in telemetry.

        Raises:
            KeyError: the call is not known, or not any more.
        """
        return self._runner.explain(request_id)

    def provider(self, name: str) -> Provider:
        """The provider of this name in the configuration."""
        try:
            return self._board.desks[name].provider
        except KeyError:
            raise KeyError(f"there is no provider {name!r}; there are {', '.join(self._board.desks)}") from None

    def costs(self, timeframe: str | tuple[datetime, datetime] = "all") -> Summary:
        """What was spent: "all", "day", "hour" (the present ones, UTC), or (since, until) as aware datetimes.

        `print` shows it as a table.
        """
        tracker, message = self.actor("cost_tracker"), cost_tracker.GetSummary(cast("Any", timeframe))
        return cast("Summary", self._ask(tracker, message))

    def budgets(self) -> Mapping[str, BudgetStatus]:
        """How the configured budgets stand, by tenant; "all" is that of all together."""
        return cast("Mapping[str, BudgetStatus]", self._ask(self.actor("cost_tracker"), cost_tracker.GetBudgets()))

    def status(self) -> Status:
        """The health of providers, queue and ledger; `print` shows it."""
        providers = {name: self._provider_status(name) for name in self._board.desks}
        ledger = self._ask(self.actor("cost_tracker"), cost_tracker.Health())
        is_callable = any(each.state not in ("open", "forced_open") for each in providers.values())
        return Status(
            ok=is_callable and ledger.is_writable,
            providers=providers,
            queue=self._ask(self.actor("request_queue"), request_queue.Stats()),
            ledger=ledger,
            calls=self.actor("calls").count().get(),
        )

    def _provider_status(self, name: str) -> ProviderStatus:
        from rubberduck.actors import circuit_breaker, rate_limiter

        breaker, limiter = self.actor(f"circuit_breaker:{name}"), self.actor(f"rate_limiter:{name}")
        keys = self._board.desks[name].keys
        return ProviderStatus(
            state=str(self._ask(breaker, circuit_breaker.GetState())),
            breakers=self._ask(breaker, circuit_breaker.GetStats()),
            limiter=self._ask(limiter, rate_limiter.GetStats()),
            inflight=self._board.desks[name].inflight,
            keys={key: self._ask(limiter, rate_limiter.GetStats(number)) for number, key in enumerate(keys.names)},
            quarantines=keys.stats(self._office.now()),
        )

    def _ask(self, ref: Any, message: sup.Ask[Any]) -> Any:
        """What an actor knows: of its next life, if it dies over the question."""
        left = components.MOST_ASKED
        while True:
            try:
                return ref.ask(message)
            except sup.ActorDeadError as died:
                left -= 1
                if self._closed or not left or not ref.is_alive():
                    raise _interrupted(died) from died

    def readmit_keys(self, name: str) -> int:
        """Use what was left alone of a provider again, as after a bill was paid. How many keys and models it was."""
        self.provider(name)

        async def readmit() -> int:  # on the actors' loop, which the board belongs to
            return self._board.desks[name].keys.readmit()

        return cast("int", self.actor("calls").run(readmit).get())

    def tree(self) -> sup.Tree:
        """The live tree as data; `str()` draws it."""
        return self.system.tree()

    # -- the end -----------------------------------------------------------------------------------

    def stop(self, timeout: float = 30.0) -> bool:
        """Take no further calls, give those in flight `timeout` seconds, cancel the rest, close everything.

        Idempotent, from any thread. False if something could not be stopped: see `duck.system.unstopped_report()`.
        """
        with self._stopping:
            if not self._closed:
                self._closed = True
                self._drain(time.monotonic() + timeout)
            return self.system.stop(max(5.0, timeout))

    def _drain(self, until: float) -> None:
        """Let everybody finish. What fails here has ended already, and must not keep the rest from being stopped."""
        rests = self._rest()
        steps: list[tuple[str, Callable[[], Any], float]] = [
            ("service", lambda: self.actor("service").ask(service.Drain(), block=False), 5.0),
            ("calls", lambda: self.actor("calls").run(self._runner.drain, until), until - time.monotonic() + 10.0),
            *([] if rests is None else [("deliveries", lambda: rests, 5.0)]),
            *[(name, functools.partial(self._close_provider, name), 5.0) for name in self._board.desks],
            ("cost_tracker", self._settle_books, 5.0),
        ]
        for name, step, limit in steps:
            try:
                step().get(timeout=limit)
            except Exception as error:  # noqa: BLE001  (a third party's provider, or an actor that is gone)
                logger.warning("%s: %s could not be brought to its end: %r", self.system.name, name, error)

    def _rest(self) -> Any:
        """Begin no further deliveries; done when those under way have ended, and their jobs are told how."""
        if self.config.jobs is None:
            return None
        return self._office.deliveries().ask(deliveries.Rest(), block=False)

    def _close_provider(self, name: str) -> Any:
        return self.actor("calls").run(self._board.desks[name].provider.aclose)

    def _settle_books(self) -> Any:
        """What was told to the ledger before this is on the disk after it."""
        self._runner.arrears.settle()
        return self.actor("cost_tracker").ask(cost_tracker.Health(), block=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    async def astop(self, timeout: float = 30.0) -> bool:
        """As `stop`, without blocking the event loop."""
        return await asyncio.to_thread(self.stop, timeout)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.astop()

    def _breaker_event(self, provider: str, model: str, event: Event) -> None:
        if event.after is State.CLOSED:
            desk = self._board.desks[provider]
            desk.stats_of(model, event.at).reclosed(event.at)
        telemetry.execute(
            events.BREAKER_TRANSITION,
            {},
            {"system": self.system.name, "provider": provider, "model": model, "event": event},
        )


def _job_id(value: Any) -> str:
    """An id that the jobs' file can be asked for. Raises KeyError: no job has any other."""
    if not isinstance(value, str) or not value.isascii() or len(value) > service.LONGEST_TEXT:
        raise KeyError(f"there is no job {str(value)[:100]!r}")
    return value


def _until(timeout: Any) -> float | None:
    """When a wait of so many seconds is over, in real monotonic time; None if never. Raises InvalidRequest."""
    if timeout is None:
        return None
    if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not 0 <= timeout <= threading.TIMEOUT_MAX:
        raise InvalidRequest(f"timeout is a number of seconds from 0 on, or None, not {timeout!r}", field="timeout")
    return time.monotonic() + timeout


def _result(job_id: str, job: Job | None) -> Response:
    if job is None:
        raise KeyError(f"there is no job {job_id!r}")
    assert job.outcome is not None  # it has ended
    if job.state is JobState.DONE:
        return outcomes.response_in(job.outcome)
    raise outcomes.error_in(job.outcome)


def _interrupted(error: Exception) -> RubberDuckError:
    if isinstance(error, sup.MailboxFull):
        return QueueFull("too many calls wait already (full)", retry_after=None)
    return CallInterrupted(f"RubberDuck lost the call: {error}", spent=None)


def _stopped() -> CallInterrupted:
    return CallInterrupted("this RubberDuck has been stopped; start another one")


def _give_up(future: sup.AskFuture[Any]) -> None:
    """Nobody will take the answer. Had it come as a stream just now, the stream is closed."""
    future.abandon()
    if future.done:
        with contextlib.suppress(Exception):  # an error needs no closing
            answer = future.get(timeout=0)
            if isinstance(answer, Stream):
                answer.close()


__all__ = ["OpeningStream", "ProviderStatus", "RubberDuck", "RubberDuckError", "Status"]
