"""Scenarios in which everything is switched on and everything fails, made from a seed, and what must hold after each.

A `World` is a duck over three providers that keep a log of their own. Every answer, and every word of it, bears the
serial number of its request, and so does its usage: what was delivered, booked and billed can be told apart by it.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import random
import re
import threading
import time
from collections import Counter
from collections.abc import AsyncGenerator, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

from tests_upstreams_rig import is_at_rest, wait_until

from rubberduck import RubberDuck, errors, telemetry
from rubberduck.actors import jobs
from rubberduck.config import ProviderConfig
from rubberduck.core.ledger import AttemptRecord, State
from rubberduck.errors import CallInterrupted, RubberDuckError, StreamInterrupted
from rubberduck.providers.base import Provider
from rubberduck.storage.sqlite import SqliteLedger
from rubberduck.telemetry import names as events
from rubberduck.testing import Call, FaultServer, Reply, dialects
from rubberduck.types import Choice, Chunk, Delta, FinishReason, Message, Request, Response, Usage
from supervision.testing import InjectedFault, fault

NAMES = ("p", "q", "r")
KEYS = ("key-0", "key-1", "key-2")
WORD = re.compile(r"([pqr])(\d+)\.(\d+)")
UNLIMITED = {"max_restarts": 1_000_000, "max_seconds": 1}
LATENESS = 3.0
"""Seconds that a busy machine may add to a deadline."""

KINDS = ("complete", "thread", "stream", "stream", "stream", "slow reader", "close", "forget", "cancel", "job")
HARMLESS = ("ok", "ok", "ok", "slow", "drip")
FAULTS = ("hang", "cut", "cut", "told", "stall", "429", "429 hint", "529", "500", "400", "filter", "bug", "unsent")
BAD_KEY = ("401", "402")


@dataclass
class Entry:
    """One request as its provider saw it; `ended` is answered, refused or broken."""

    provider: str
    serial: int
    text: str
    key: str
    fault: str
    is_stream: bool
    started: float
    given: str = ""
    count: int = 4
    usage: tuple[int, int] | None = None
    ended: str = "open"
    spoke_at: float | None = None

    @property
    def words(self) -> list[str]:
        head = f"{self.provider}{self.serial}"
        return [f"{' ' if number else ''}{head}.{number}" for number in range(self.count)]

    @property
    def whole(self) -> tuple[int, int]:
        """The usage of the whole answer, which no other one has."""
        return 1000 + self.serial, self.count

    @property
    def is_refused(self) -> bool:
        return self.ended == "refused"


class Script:
    """Decides how each request is answered, and keeps the log."""

    def __init__(self, rng: random.Random, badness: float) -> None:
        self.log: list[Entry] = []
        self._rng = rng
        self._badness = badness
        self._lock = threading.Lock()

    def enter(self, provider: str, text: str, key: str, is_stream: bool, given: str) -> Entry:
        with self._lock:
            serial, rng = len(self.log), self._rng
            how = rng.choice(FAULTS if rng.random() < self._badness else HARMLESS)
            if key not in ("", KEYS[0]) and rng.random() < 0.05:
                how = rng.choice(BAD_KEY)
            if given and rng.random() < 0.2:
                how = "400"
            entry = Entry(provider, serial, text, key, how, is_stream, time.monotonic(), given, rng.randint(2, 7))
            self.log.append(entry)
            return entry


FAILURES: dict[str, Any] = {
    "429": lambda: errors.RateLimited("slowly", status=429),
    "429 hint": lambda: errors.RateLimited("slowly", status=429, retry_after=0.03),
    "529": lambda: errors.Overloaded("busy", status=529),
    "500": lambda: errors.ServiceUnavailable("broken", status=500),
    "400": lambda: errors.InvalidRequest("no"),
    "401": lambda: errors.AuthenticationFailed("who", status=401),
    "402": lambda: errors.QuotaExceeded("poor", status=402),
    "filter": lambda: errors.ContentFiltered("shame"),
    "unsent": lambda: errors.ServiceUnavailable("unreachable", phase="not_sent"),
}


class Wild(Provider):
    """Answers as the script says, in this process."""

    script: Script

    def __init__(self, config: ProviderConfig) -> None:
        self.script = config.options["script"]
        self.name = config.name
        self._keys = tuple(key.get_secret_value() for key in config.api_keys) or ("",)
        self.key_names = tuple(f"key {number}" for number in range(1, len(self._keys) + 1))
        self._key = self._keys[0]

    @classmethod
    def init(cls, config: ProviderConfig) -> Wild:
        return cls(config)

    def for_key(self, index: int) -> Wild:
        view = copy.copy(self)
        view._key = self._keys[index]
        return view

    def supports_model(self, model: str) -> bool:
        return True

    def accepts_prefill(self, model: str) -> bool:
        return self.name != "r"

    async def complete(self, request: Request) -> Response:
        entry = self._enter(request, is_stream=False)
        try:
            words = [word async for word in self._say(entry)]
        except BaseException:
            _broke(entry)
            raise
        entry.ended, entry.usage = "answered", entry.whole
        choice = Choice(0, Message(role="assistant", content="".join(words)), FinishReason.STOP)
        return Response("id", request.model, (choice,), Usage(*entry.whole), provider=self.name)

    async def stream(self, request: Request) -> AsyncGenerator[Chunk]:
        entry = self._enter(request, is_stream=True)
        try:
            async for word in self._say(entry):
                entry.spoke_at = entry.spoke_at or time.monotonic()
                yield Chunk(delta=Delta(content=word))
            entry.usage = entry.whole
            yield Chunk(finish_reason=FinishReason.STOP, usage=Usage(*entry.whole))
            entry.ended = "answered"
        except BaseException:
            _broke(entry)
            raise

    def _enter(self, request: Request, *, is_stream: bool) -> Entry:
        last = request.messages[-1]
        given = last.text if last.role == "assistant" else ""
        asked = next(each.text for each in reversed(request.messages) if each.role == "user")
        return self.script.enter(self.name, asked, self._key, is_stream, given)

    async def _say(self, entry: Entry) -> AsyncGenerator[str]:
        how = entry.fault
        if how in FAILURES:
            await asyncio.sleep(0.001)
            entry.ended = "refused"
            raise failure_of(how)
        if how in ("hang", "slow"):
            await asyncio.sleep(30 if how == "hang" else 0.05)
        for number, word in enumerate(entry.words):
            if number == entry.count // 2:
                await self._fail_inside(entry)
            await asyncio.sleep(0.01 if how == "drip" else 0)
            yield word

    async def _fail_inside(self, entry: Entry) -> None:
        match entry.fault:
            case "cut":
                raise errors.ServiceUnavailable("gone", phase="uncertain", spent=None)
            case "told":
                entry.usage = (entry.whole[0], entry.count // 2)
                raise StreamInterrupted("gone", usage=Usage(*entry.usage), spent=None)
            case "stall":
                await asyncio.sleep(30)
            case "bug":
                raise ValueError("a bug of the provider")


def failure_of(how: str) -> BaseException:
    failure: BaseException = FAILURES[how]()
    return failure


def _broke(entry: Entry) -> None:
    if entry.ended == "open":
        entry.ended = "broken"


class WildServer:
    """The same on a socket: a behaviour of a fault server."""

    def __init__(self, name: str, script: Script) -> None:
        self._name = name
        self._script = script

    async def answer(self, call: Call, reply: Reply) -> None:
        messages = call.json["messages"]
        given = _plain(messages[-1]) if messages[-1]["role"] == "assistant" else ""
        asked = next(_plain(each) for each in reversed(messages) if each["role"] == "user")
        entry = self._script.enter(self._name, asked, call.key, bool(call.json.get("stream")), given)
        try:
            await self._play(entry, call, reply)
        finally:
            _broke(entry)

    async def _play(self, entry: Entry, call: Call, reply: Reply) -> None:
        statuses = {"429": 429, "429 hint": 429, "529": 529, "500": 500, "400": 400, "401": 401, "402": 402}
        if entry.fault in statuses:
            status = statuses[entry.fault]
            hint = {"retry-after": "0.03"} if entry.fault == "429 hint" else {}
            body = dialects.error(call.path, status)
            await reply.whole(status, {"content-type": "application/json", **hint}, body)
            entry.ended = "refused"
            return
        if entry.fault == "unsent":
            reply.reset()
            return
        if entry.fault in ("hang", "slow"):
            await reply.wait(30 if entry.fault == "hang" else 0.05)
        blocks = self._blocks(entry, call)
        kind = "text/event-stream" if entry.is_stream else "application/json"
        await reply.head(200, {"content-type": kind})
        for number, block in enumerate(blocks):
            if number == len(blocks) // 2:
                if entry.fault in ("cut", "told"):
                    reply.reset() if entry.fault == "cut" else reply.hang_up()
                    return
                if entry.fault == "stall":
                    await reply.wait()
                if entry.fault == "bug":
                    await reply.body(b"data: {\n\n")
                    return
            if number:
                await reply.wait(0.01 if entry.fault == "drip" else 0)
            await reply.body(block)
            if number:
                entry.spoke_at = entry.spoke_at or time.monotonic()
            entry.usage = call.usage
        await reply.end()
        entry.ended = "answered"

    def _blocks(self, entry: Entry, call: Call) -> list[bytes]:
        text = "".join(entry.words)
        if entry.is_stream:
            blocks = dialects.events(call.path, "m", text)
        else:
            body = dialects.answer(call.path, "m", text)
            blocks = [body[: len(body) // 2], body[len(body) // 2 :]]
        read = str(entry.whole[0]).encode()
        count = re.compile(rb'("(?:prompt|input)_tokens": ?)12\b')
        if entry.is_stream:
            return [count.sub(rb"\g<1>" + read, block) for block in blocks]
        whole = count.sub(rb"\g<1>" + read, b"".join(blocks))
        return [whole[: len(whole) // 2], whole[len(whole) // 2 :]]


def _plain(message: dict[str, Any]) -> str:
    content = message["content"]
    return content if isinstance(content, str) else "".join(part["text"] for part in content)


# -- the duck ---------------------------------------------------------------------------------------------------------


@dataclass
class Ended:
    """How one caller was answered."""

    number: int
    kind: str
    text: str
    options: dict[str, Any]
    delivered: str = ""
    outcome: Any = None
    first_at: float | None = None
    took: float = 0.0
    timeout: float = 0.0
    job: str | None = None


@dataclass
class World:
    seed: int
    chaos: str
    over_http: bool
    folder: Path
    script: Script = field(init=False)
    rng: random.Random = field(init=False)
    ended: list[Ended] = field(default_factory=list)
    servers: dict[str, FaultServer] = field(default_factory=dict)
    hedges: int = 0
    kills: Counter[str] = field(default_factory=Counter)
    crashes: float = 0.0

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)
        self.crashes = self.rng.choice([0.01, 0.05])
        self.script = Script(random.Random(self.seed + 1), self.rng.choice([0.0, 0.15, 0.3, 0.6]))

    # -- its configuration

    def config(self) -> dict[str, Any]:
        rng = self.rng
        providers = {name: self._provider(name, number) for number, name in enumerate(NAMES)}
        limits = {name: self._limits(name) for name in NAMES if rng.random() < 0.5}
        config: dict[str, Any] = {
            "providers": providers,
            "models": {"smart": [f"{name}/m" for name in NAMES], "lone": ["p/m"]},
            "prices": {"m": {"input": 1, "output": 0}},  # so that no two requests cost the same
            "rate_limits": limits,
            "ledger": {"path": str(self.folder / f"ledger-{self.seed}-{self.over_http}"), "synchronous": "normal"},
            "supervision": UNLIMITED,
            "timeout": "1500ms",
            "retry": {"base_delay": "2ms", "max_delay": "10ms", "max_wait_for_preferred": rng.choice(["5ms", "3s"])},
            "circuit_breaker": {"failure_threshold": rng.choice([2, 5]), "reset_timeout": "40ms"},
            "choice": {
                "panic": rng.choice(["fail_fast", "wait", "probe_best"]),
                "sticky": rng.choice(["session", "prefix", "off"]),
            },
            "jobs": {"lease": "300ms", "max_deliveries": 6, "max_running": rng.choice([2, 10])},
            "stream": {"policy": rng.choice(["error", "buffer", "continue"])},
            "single_flight": rng.random() < 0.5,
            "queue": {"when_full": rng.choice(["reject", "evict_lower"])},
            "max_queue_size": rng.choice([5, 1000]),
        }
        if rng.random() < 0.5:
            config["hedge"] = {"share": rng.choice([0.1, 1.0]), "least_delay": "5ms"}
        if rng.random() < 0.4:
            config["cache"] = {"ttl": "100ms"}
        if rng.random() < 0.3:
            config["budgets"] = {"a": {"limit": rng.choice([0.01, 0.2])}, "all": {"limit": 0.5}}
        return config

    def _provider(self, name: str, number: int) -> dict[str, Any]:
        rng = self.rng
        options: dict[str, Any] = {
            "priority": rng.choice([1, 1, number]),
            "api_keys": list(KEYS[: rng.choice([1, 1, 2, 3])]),
            "models": ["m"],
            "first_token_timeout": "120ms",
            "idle_timeout": "80ms",
            "timeout": rng.choice(["150ms", "400ms"]),
        }
        if not self.over_http:
            return {"module": Wild, "options": {"script": self.script}, **options}
        module = rng.choice(["openai", "anthropic"])
        url = self.servers[name].base_url + ("/v1" if module == "openai" else "")
        return {"module": module, "base_url": url, "prefill": name != "r", **options}

    def _limits(self, name: str) -> dict[str, Any]:
        rng = self.rng
        some: list[dict[str, Any]] = [
            {"max_concurrency": rng.choice([1, 2, 8])},
            {"capacity": rng.choice([2, 10]), "refill_rate": 50},
        ]
        if name == "p":  # only one of them, for a limiter that comes back without its books waits for a minute
            some += [{"requests_per_min": rng.choice([10, 30])}, {"output_tokens_per_min": 400, "max_concurrency": 4}]
        return rng.choice(some)

    # -- its life

    @contextmanager
    def duck(self) -> Iterator[RubberDuck]:
        with ExitStack() as stack:
            if self.over_http:
                for name in NAMES:
                    self.servers[name] = stack.enter_context(FaultServer(WildServer(name, self.script)))
            self._config = self.config()
            self._duck = RubberDuck.start(self._config)
            handler = f"everything-{self.seed}-{id(self)}"
            telemetry.attach(handler, [events.HEDGE], self._hedged)
            stack.callback(telemetry.detach, handler)
            try:
                yield self._duck
            finally:
                began = time.monotonic()
                stopped = self._duck.stop(10)
                took = time.monotonic() - began
            assert stopped, self._duck.system.unstopped_report()
            assert took < 10, f"stop took {took:.1f} s"
            for server in self.servers.values():
                wait_until(lambda server=server: server.open_connections == 0)

    def _hedged(self, event: Any, measurements: Any, metadata: Any, config: Any) -> None:
        if metadata["system"] == self._duck.system.name:
            self.hedges += 1

    # -- its callers

    async def play(self, duck: RubberDuck, calls: int) -> None:
        rng, tasks = self.rng, []
        for number in range(calls):
            kind = rng.choice(KINDS)
            text = rng.choice(["same", "alike"]) if rng.random() < 0.4 and kind != "job" else f"n{number}"
            tasks.append(asyncio.create_task(self._call(duck, Ended(number, kind, text, self._options(kind)))))
            await asyncio.sleep(rng.choice([0, 0, 0, 0.002, 0.01]))
        async with asyncio.timeout(40):
            await asyncio.gather(*tasks)

    def _options(self, kind: str) -> dict[str, Any]:
        rng = self.rng
        options: dict[str, Any] = {"timeout": rng.choice([0.03, 0.3, 1.5, 1.5, 1.5])}
        options["priority"] = rng.choice(["high", "normal", "low"])
        if rng.random() < 0.4:
            options["tenant"] = rng.choice("ab")
        if rng.random() < 0.3:
            options["session"] = rng.choice("xy")
        if rng.random() < 0.1:
            options["max_cost"] = 0.02
        if rng.random() < 0.1:
            options["replayable"] = False
        if kind == "job":
            options["timeout"] = 1.5
            options["safety"] = rng.choice(["at_most_once", "at_least_once"])
            if rng.random() < 0.5:
                options["key"] = f"key-{rng.random()}"
        elif rng.random() < 0.5:
            options["stream_policy"] = rng.choice(
                ["error", "buffer", "continue", {"buffer": "20ms"}, {"buffer": "3 tokens"}]
            )
        return options

    async def _call(self, duck: RubberDuck, ended: Ended) -> None:
        began = time.monotonic()
        ended.timeout = ended.options["timeout"]
        model = "lone" if ended.number % 7 == 0 and ended.kind != "job" else "smart"
        request = {"model": model, "messages": [{"role": "user", "content": ended.text}], "max_tokens": 20}
        options = {**ended.options, "tags": {"n": str(ended.number)}}
        self.ended.append(ended)
        try:
            ended.outcome = await self._verb(duck, ended, request, options)
        except (RubberDuckError, asyncio.CancelledError) as error:
            ended.outcome = error
        ended.took = time.monotonic() - began

    async def _verb(self, duck: RubberDuck, ended: Ended, request: dict[str, Any], options: dict[str, Any]) -> Any:
        match ended.kind:
            case "complete":
                response = await duck.acomplete(request, **options)
                ended.delivered = response.text
                return response
            case "thread":
                response = await asyncio.to_thread(duck.complete, request, **options)
                ended.delivered = response.text
                return response
            case "cancel":
                task = asyncio.create_task(duck.acomplete(request, **options))
                await asyncio.wait([task], timeout=self.rng.choice([0, 0.005, 0.02]))
                task.cancel()
                await asyncio.wait([task])
                return None
            case "job":
                del options["tags"]
                ended.job = await duck.asubmit(request, **options)
                return await duck.aresult(ended.job, timeout=20)
            case "forget":
                stream = await duck.astream(request, **options).__aenter__()
                if self.rng.random() < 0.5:
                    await anext(stream, None)
                del stream
                return None
        return await self._read(duck, ended, request, options)

    async def _read(self, duck: RubberDuck, ended: Ended, request: Any, options: Any) -> Any:
        most = self.rng.randint(1, 3) if ended.kind == "close" else 1000
        async with duck.astream(request, **options) as stream:
            async for chunk in stream:
                if chunk.delta.content:
                    ended.first_at = ended.first_at or time.monotonic()
                    ended.delivered += chunk.delta.content
                most -= 1
                if not most:
                    return None
                if ended.kind == "slow reader":
                    await asyncio.sleep(0.01)
        return stream.response

    # -- its misfortunes

    @contextmanager
    def misfortune(self, duck: RubberDuck) -> Iterator[None]:
        """Actors die every few milliseconds, and crash over their messages."""
        if self.chaos == "calm":
            yield
            return
        rng, over = random.Random(self.seed + 2), threading.Event()
        victims = ["service", "request_queue", "cost_tracker", "jobs", "deliveries"]
        victims += [f"{what}:{name}" for what in ("rate_limiter", "circuit_breaker") for name in NAMES]
        if self.chaos == "all":
            victims += ["calls", "task", "task", "task", "providers", *[f"provider:{name}" for name in NAMES]]
        if self.chaos == "tasks":
            victims = ["task"]

        def hunt() -> None:
            # Jobs are delivered until they have ended: who keeps ending their calls waits for ever.
            until = time.monotonic() + 1.0
            while not over.wait(rng.uniform(0.001, 0.012)) and time.monotonic() < until:
                self._kill(duck, rng.choice(victims))

        def sometimes(path: str) -> None:
            if (
                not over.is_set()
                and rng.random() < self.crashes
                and (self.chaos == "all" or not path.endswith("/calls"))
            ):
                self.kills["crash"] += 1
                raise InjectedFault(path)

        hunter = threading.Thread(target=hunt, name="hunter", daemon=True)
        hunter.start()
        try:
            if self.chaos == "tasks":
                yield
            else:
                with fault("before_handle", sometimes), fault("after_handle_before_reply", sometimes):
                    yield
        finally:
            over.set()
            hunter.join()

    def _kill(self, duck: RubberDuck, victim: str) -> None:
        self.kills[victim] += 1
        if victim == "task":
            flying = list(duck._runner._in_flight.copy().values())
            if flying:
                task, _ = flying[self.kills["task"] % len(flying)]
                task.get_loop().call_soon_threadsafe(task.cancel)
            return
        with contextlib.suppress(RubberDuckError, KeyError):
            duck.system.kill(duck.actor(victim))

    # -- what must hold

    def judge(self, duck: RubberDuck) -> None:
        wait_until(lambda: all(each.ended != "open" for each in self.script.log) or self.over_http, 10)
        wait_until(lambda: is_at_rest(duck), 10)
        self._jobs_are_done(duck)
        self._nothing_is_held(duck)
        rows = self._rows(duck)
        self._all_are_answered()
        self._texts_are_right()
        self._nothing_follows_output()
        self._attempts_are_few(rows)
        self._repeats_are_few()
        self._books_agree(rows)
        self._bills_agree(rows)
        self._jobs_are_sent_safely(rows)
        findings = duck.system.audit()
        assert findings == [], findings

    def _nothing_is_held(self, duck: RubberDuck) -> None:
        runner = duck._runner
        assert not runner._in_flight
        if runner._flights is not None:
            assert len(runner._flights) == 0
        wait_until(lambda: len(runner.arrears) == 0)
        for name in NAMES:
            for term in duck._board.desks[name].keys._terms.values():
                assert term.probe is None, (name, term)

    def _jobs_are_done(self, duck: RubberDuck) -> None:
        def none_is_out() -> bool:
            counts = duck.actor("jobs").ask(jobs.CountJobs())
            return not counts.get("leased") and not counts.get("ready")

        wait_until(none_is_out, 20)

    def _rows(self, duck: RubberDuck) -> list[AttemptRecord]:
        wait_until(lambda: len(duck._runner.arrears) == 0)
        duck.costs()
        with closing(SqliteLedger(duck.config.ledger.path or "")) as ledger:
            return list(ledger.rows())

    def _all_are_answered(self) -> None:
        for each in self.ended:
            assert each.took < each.timeout + LATENESS or each.job, each
            if each.kind not in ("close", "forget", "cancel"):
                assert isinstance(each.outcome, Response | RubberDuckError), each
            if isinstance(each.outcome, Exception):
                assert "RubberDuck failed in its own code" not in str(each.outcome), each

    def _texts_are_right(self) -> None:
        for each in self.ended:
            found = [(name, int(serial), int(place)) for name, serial, place in WORD.findall(each.delivered)]
            parts: list[list[int]] = []
            last: Any = None
            for name, serial, place in found:
                if (name, serial) != last:
                    parts.append([serial, -1])
                    last = (name, serial)
                assert place == parts[-1][1] + 1, each
                parts[-1][1] = place
            assert WORD.sub("", each.delivered).strip() == "", each
            outcome = each.outcome
            if isinstance(outcome, Response):
                if each.job:
                    continue
                assert outcome.text == each.delivered, each
                assert parts, each
                entry = self.script.log[parts[-1][0]]
                assert parts[-1][1] == entry.count - 1, (each, entry)
                assert outcome.spliced or len(parts) == 1, each
            if len(parts) > 1:
                policy = each.options.get("stream_policy") or self._config["stream"]["policy"]
                assert policy == "continue", each
            if isinstance(outcome, StreamInterrupted):
                assert outcome.text == each.delivered or not each.delivered, (each, outcome.text)

    def _nothing_follows_output(self) -> None:
        by_text: dict[str, list[Entry]] = {}
        for entry in self.script.log:
            by_text.setdefault(entry.text, []).append(entry)
        for each in self.ended:
            policy = each.options.get("stream_policy") or self._config["stream"]["policy"]
            if each.first_at is None or policy == "continue" or not each.text.startswith("n"):
                continue
            for entry in by_text[each.text]:
                assert entry.started < each.first_at, (each, entry)

    def _attempts_are_few(self, rows: list[AttemptRecord]) -> None:
        per_call = Counter(row.call_id for row in rows if row.state is not State.VOID)
        assert max(per_call.values(), default=0) <= 6, per_call.most_common(3)

    def _repeats_are_few(self) -> None:
        """Unless with another key, where it is no repeat."""
        if any(len(each["api_keys"]) > 1 for each in self._config["providers"].values()):
            return
        for name in NAMES:
            asked = Counter(entry.text for entry in self.script.log if entry.provider == name)
            if self._config["single_flight"] or any(each.job for each in self.ended):
                continue
            own = {text: count for text, count in asked.items() if text.startswith("n")}
            extras = sum(own.values()) - len(own)
            assert extras <= 3 + 0.2 * len(asked) + 0.2 * asked["same"] + 0.2 * asked["alike"] + 1, (name, asked)
        share = self._config.get("hedge", {}).get("share", 0)
        assert self.hedges <= share * len(self.ended) * 1.3 + 1, self.hedges

    def _books_agree(self, rows: list[AttemptRecord]) -> None:
        states = Counter(row.state for row in rows)
        assert states[State.INTENT] == 0, states
        paid_for = [row for row in rows if row.state is State.SETTLED]
        settled = Counter((row.provider, row.prompt_tokens, row.completion_tokens) for row in paid_for)
        assert max(settled.values(), default=0) <= 1, settled.most_common(3)
        told = {(entry.provider, *entry.usage): entry for entry in self.script.log if entry.usage is not None}
        if not self.over_http:
            for key in settled:
                assert key in told, (key, "was never told")
        missing = [entry for key, entry in told.items() if key not in settled and entry.ended == "answered"]
        if self.chaos in ("calm", "actors") and not self.over_http:
            assert not missing, missing
        refused = sum(entry.is_refused for entry in self.script.log)
        unknown = len(self.script.log) - refused
        paid = states[State.SETTLED] + states[State.UNCERTAIN]
        if self.over_http:
            unsent = sum(entry.fault == "unsent" for entry in self.script.log)
            assert paid >= unknown - unsent, (states, unknown)
            assert paid <= len(self.script.log) + len(self.ended), states
        else:
            assert paid == unknown, (states, unknown, refused)
            assert states[State.VOID] >= refused

    def _bills_agree(self, rows: list[AttemptRecord]) -> None:
        """What callers were told adds up to what is settled, where nobody was lost or gave up."""
        settled = Counter(row.cost for row in rows if row.state is State.SETTLED)
        told: Counter[Decimal | None] = Counter()
        for each in self.ended:
            told.update(attempt.cost for attempt in getattr(each.outcome, "attempts", ()) if attempt.cost)
            if isinstance(each.outcome, Response) and (each.outcome.cached or each.outcome.shared):
                assert each.outcome.usage.cost == 0, each
        assert told <= settled, told - settled
        lost = any(isinstance(each.outcome, CallInterrupted) for each in self.ended)
        gone = any(each.kind in ("close", "forget", "cancel") or each.job for each in self.ended)
        if not lost and not gone:
            assert told == settled

    def _jobs_are_sent_safely(self, rows: list[AttemptRecord]) -> None:
        """A job that may not be sent twice is delivered again only if its last delivery sent nothing."""
        for each in self.ended:
            if each.kind != "job":
                continue
            own = [entry for entry in self.script.log if entry.text == each.text]
            if each.job is None or each.options["safety"] != "at_most_once":
                continue
            deliveries: dict[str, list[AttemptRecord]] = {}
            for row in rows:
                if row.call_id.startswith(f"{each.job}."):
                    deliveries.setdefault(row.call_id, []).append(row)
            sent = [call for call, those in deliveries.items() if any(row.state is not State.VOID for row in those)]
            assert len(sent) <= 1, (each, deliveries)
            attempts = sum(row.state is not State.VOID for those in deliveries.values() for row in those)
            seen = sum(not entry.is_refused for entry in own)
            assert self.over_http or attempts == seen, (each, deliveries, own)


def run(seed: int, chaos: str, folder: Path, *, over_http: bool = False, calls: int = 40) -> World:
    """Play one scenario and judge it."""
    world = World(seed, chaos, over_http, folder)
    with world.duck() as duck:
        with world.misfortune(duck):
            asyncio.run(world.play(duck, calls))
        world.judge(duck)
    return world
