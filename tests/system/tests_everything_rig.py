"""Scenarios in which everything is switched on and everything fails, made from a seed.

A `World` is a duck over three providers that keep a log of their own, with callers and misfortunes. What must hold
afterwards is in tests_everything_judge.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
import time
from collections import Counter
from collections.abc import Coroutine, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from tests_everything_judge import USD, judge, parts_of
from tests_everything_upstream import KEYS, MODELS, NAMES, Script, Wild, WildServer
from tests_upstreams_rig import wait_until

from rubberduck import RubberDuck, telemetry
from rubberduck.errors import RubberDuckError
from rubberduck.telemetry import names as events
from rubberduck.testing import FaultServer
from rubberduck.types import Embeddings, Response, TokenCount
from supervision.testing import InjectedFault, fault

UNLIMITED = {"max_restarts": 1_000_000, "max_seconds": 1}

KINDS = ("complete", "thread", "stream", "stream", "stream", "slow reader", "close", "forget", "cancel", "job")
KINDS += ("embed", "embed", "cancelled embed", "count", "count", "typed", "typed", "cancelled typed")
EMBEDS, TYPED = ("embed", "cancelled embed"), ("typed", "cancelled typed")
GIVEN_UP = ("close", "forget", "cancel", "cancelled embed", "cancelled typed")
"""Whose caller does not wait for the end."""


class Said(BaseModel):
    """What a typed answer is read as."""

    said: str


@dataclass
class Ended:
    """How one caller was answered."""

    number: int
    kind: str
    text: str
    options: dict[str, Any]
    texts: tuple[str, ...] = ()
    delivered: str = ""
    outcome: Any = None
    first_at: float | None = None
    took: float = 0.0
    timeout: float = 0.0
    job: str | None = None

    @property
    def answer(self) -> type:
        """What it is given if all goes well."""
        if self.kind in EMBEDS:
            return Embeddings
        return {"count": TokenCount, "typed": Said}.get(self.kind, Response)

    @property
    def is_given_up(self) -> bool:
        return self.kind in GIVEN_UP

    @property
    def is_alone(self) -> bool:
        """Whether nobody else asks the same."""
        return self.text.startswith("n")

    @property
    def rounds(self) -> int:
        return parts_of(self.texts) + bool(self.options.get("repair"))


@dataclass
class World:
    seed: int
    chaos: str
    over_http: bool
    folder: Path
    script: Script = field(init=False)
    config: dict[str, Any] = field(init=False)
    rng: random.Random = field(init=False)
    ended: list[Ended] = field(default_factory=list)
    servers: dict[str, FaultServer] = field(default_factory=dict)
    hedges: int = 0
    kills: Counter[str] = field(default_factory=Counter)
    crashes: float = 0.0
    lasted: float = 0.0

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)
        self.crashes = self.rng.choice([0.01, 0.05])
        self.script = Script(random.Random(self.seed + 1), self.rng.choice([0.0, 0.15, 0.3, 0.6]))

    # -- its configuration

    def _configured(self) -> dict[str, Any]:
        rng = self.rng
        providers = {name: self._provider(name, number) for number, name in enumerate(NAMES)}
        limits = {name: self._limits(name) for name in NAMES if rng.random() < 0.5}
        config: dict[str, Any] = {
            "providers": providers,
            "models": {
                "smart": [f"{name}/m" for name in NAMES],
                "lone": ["p/m"],
                "vectors": [f"{name}/{model}" for name, model in MODELS.items()],
            },
            "prices": {name: {"input": usd * 1_000_000, "output": 0} for name, usd in USD.items()},
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
            config["budgets"] = {"a": {"limit": rng.choice([0.01, 0.2])}, "all": {"limit": 1}}
        return config

    def policy_of(self, each: Ended) -> Any:
        """What becomes of a stream that breaks."""
        return each.options.get("stream_policy") or self.config["stream"]["policy"]

    def _provider(self, name: str, number: int) -> dict[str, Any]:
        rng = self.rng
        options: dict[str, Any] = {
            "priority": rng.choice([1, 1, number]),
            "api_keys": list(KEYS[: rng.choice([1, 1, 2, 3])]),
            "models": ["m", "m2"],
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
            self.config = self._configured()
            self._duck = RubberDuck.start(self.config)
            handler = f"everything-{self.seed}-{id(self)}"
            telemetry.attach(handler, [events.HEDGE], self._hedged)
            stack.callback(telemetry.detach, handler)
            try:
                yield self._duck
            finally:
                began = time.monotonic()
                stopped = self._duck.stop(60)
                took = time.monotonic() - began
            assert stopped, self._duck.system.unstopped_report()
            assert took < 30, f"stop took {took:.1f} s"
            for server in self.servers.values():
                wait_until(lambda server=server: server.open_connections == 0)

    def _hedged(self, event: Any, measurements: Any, metadata: Any, config: Any) -> None:
        if metadata["system"] == self._duck.system.name:
            self.hedges += 1

    # -- its callers

    async def play(self, duck: RubberDuck, calls: int) -> None:
        rng, tasks, began = self.rng, [], time.monotonic()
        for number in range(calls):
            kind = rng.choice(KINDS)
            text = rng.choice(["same", "alike"]) if rng.random() < 0.4 and kind != "job" else f"n{number}"
            tasks.append(asyncio.create_task(self._call(duck, Ended(number, kind, text, self._options(kind)))))
            await asyncio.sleep(rng.choice([0, 0, 0, 0.002, 0.01]))
        async with asyncio.timeout(90):
            await asyncio.gather(*tasks)
        self.lasted = time.monotonic() - began

    def _options(self, kind: str) -> dict[str, Any]:
        rng = self.rng
        options: dict[str, Any] = {"timeout": rng.choice([0.03, 0.3, 1.5, 1.5, 1.5])}
        options["priority"] = rng.choice(["high", "normal", "low"])
        if rng.random() < 0.4:
            options["tenant"] = rng.choice("ab")
        if rng.random() < 0.1:
            options["replayable"] = False
        if kind == "count":
            return options
        if rng.random() < 0.1:
            options["max_cost"] = 0.02
        if kind in EMBEDS:
            return options
        if rng.random() < 0.3:
            options["session"] = rng.choice("xy")
        if kind in TYPED:
            return options | {"response_model": Said, "repair": rng.random() < 0.7}
        if kind == "job":
            options["timeout"] = 1.5
            options["tenant"] = "b"  # for a's money may be spent, and then a job waits for tomorrow's
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
        request = self._request(ended)
        options = {**ended.options, "tags": {"n": str(ended.number)}}
        self.ended.append(ended)
        try:
            ended.outcome = await self._verb(duck, ended, request, options)
        except (RubberDuckError, asyncio.CancelledError) as error:
            ended.outcome = error
        ended.took = time.monotonic() - began

    def _request(self, ended: Ended) -> dict[str, Any]:
        model = "lone" if ended.number % 7 == 0 and ended.kind != "job" else "smart"
        if ended.kind in EMBEDS:
            many = self.rng.choice([1, 4, 13]) if ended.is_alone else 7
            ended.texts = tuple([f"{ended.text}.{place}" for place in range(many)])
            return {"model": "vectors" if model == "smart" else model, "input": ended.texts}
        return {"model": model, "messages": [{"role": "user", "content": ended.text}], "max_tokens": 20}

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
            case "typed":
                said = await duck.acomplete(request, **options)
                ended.delivered = said.said
                return said
            case "embed":
                return await duck.aembed(request, **options)
            case "count":
                return await duck.acount_tokens(request, **options)
            case "cancel" | "cancelled typed":
                return await self._given_up(duck.acomplete(request, **options))
            case "cancelled embed":
                return await self._given_up(duck.aembed(request, **options))
            case "job":
                del options["tags"]
                ended.job = await duck.asubmit(request, **options)
                return await duck.aresult(ended.job, timeout=60)
            case "forget":
                stream = await duck.astream(request, **options).__aenter__()
                if self.rng.random() < 0.5:
                    await anext(stream, None)
                del stream
                return None
        return await self._read(duck, ended, request, options)

    async def _given_up(self, call: Coroutine[Any, Any, Any]) -> None:
        task = asyncio.create_task(call)
        await asyncio.wait([task], timeout=self.rng.choice([0, 0.005, 0.02, 0.06]))
        task.cancel()
        await asyncio.wait([task])

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


def run(seed: int, chaos: str, folder: Path, *, over_http: bool = False, calls: int = 40) -> World:
    """Play one scenario and judge it."""
    world = World(seed, chaos, over_http, folder)
    with world.duck() as duck:
        with world.misfortune(duck):
            asyncio.run(world.play(duck, calls))
        judge(world, duck)
    return world
