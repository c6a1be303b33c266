"""A duck over two fault servers on real sockets, and what must hold of it whatever they did.

No call of a `Pair` may take longer than it has, and no part of an answer may pass for the whole. When its test is over,
`Pair.conduct` looks at what is left: a plain call is answered, nothing is held by anybody, and the ledger has one row
for each request that the servers saw, with what they say that it cost.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import pytest
from tests_system_rig import StartDuck

from rubberduck import RubberDuck
from rubberduck.core.ledger import AttemptRecord, State
from rubberduck.errors import RubberDuckError
from rubberduck.storage.sqlite import SqliteLedger
from rubberduck.testing import Behaviour, Call, FaultServer
from rubberduck.testing.faults import TEXT, BadChunk, ErrorInside, Gzip, NoDone, Ok, Raw

REQUEST: dict[str, Any] = {"model": "smart", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}
USAGE = (12, 6)
"""Tokens in and out of every whole answer of a fault server."""
PRICE = {"input": 1, "output": 2}
COST = Decimal("0.000024")
BOTH_VERBS = pytest.mark.parametrize("verb", ["complete", "stream"])
BOTH_DIALECTS = pytest.mark.parametrize("module", ["openai", "anthropic"])
LIMIT = 0.3
"""The limits of first token and idleness of a primary, in seconds: 1/33 and 1/50 of the defaults."""
LATENESS = 10.0
"""Seconds that a busy machine may add to whatever is to happen in time. What is not to be in time takes longer."""

Tokens = tuple[int, int]


@dataclass
class Pair:
    """A duck over a primary and a fallback, both of which may fail, and a third, `plain`, which does not.

    `asked` is how each call ended that was made by `ask` or `failure`. `unsent` is how many attempts never reached
    a server, for tests in which some do not.
    """

    duck: RubberDuck
    primary: FaultServer
    fallback: FaultServer
    plain: FaultServer
    timeout: float
    asked: list[Any] = field(default_factory=list)
    unsent: int = 0

    def ask(self, verb: str, text: str = TEXT, **options: Any) -> Any:
        """The whole answer, streamed or not, which must be `text`."""
        began = time.monotonic()
        try:
            response = self.duck.complete(REQUEST, **options) if verb == "complete" else self._read(options)
        except RubberDuckError as error:
            self.asked.append(error)
            raise
        finally:
            assert time.monotonic() - began < options.get("timeout", self.timeout) + LATENESS
        assert response.text == text
        self.asked.append(response)
        return response

    def failure(self, verb: str, expected: type[RubberDuckError], **options: Any) -> Any:
        """The error that a call must end with."""
        with pytest.raises(expected) as caught:
            self.ask(verb, **options)
        assert type(caught.value) is expected
        return caught.value

    def _read(self, options: dict[str, Any]) -> Any:
        with self.duck.stream(REQUEST, **options) as stream:
            text = "".join(chunk.delta.content for chunk in stream)
        assert stream.text == text
        return stream.response

    @property
    def servers(self) -> dict[str, FaultServer]:
        return {"primary": self.primary, "fallback": self.fallback, "plain": self.plain}

    def rows(self) -> list[AttemptRecord]:
        """The ledger as it is on the disk."""
        self.duck.costs()  # what was told to the ledger before is written after it
        with closing(SqliteLedger(self.duck.config.ledger.path or "")) as ledger:
            return list(ledger.rows())

    # -- what always holds -------------------------------------------------------------------------

    def conduct(self) -> None:
        """Fails for a duck that is worn out, holds something, or keeps other books than the servers."""
        wait_until(lambda: is_at_rest(self.duck))
        self._is_alive()
        rows = self.rows()
        for name, server in self.servers.items():
            own = [row for row in rows if row.provider == name]
            given_up = sum(told[0] == name and told[1] in GIVEN_UP for each in self.asked for told in attempts(each))
            agree(own, server.calls, self.unsent if name == "primary" else 0, given_up)
        settled = [row.cost or 0 for row in rows if row.state is State.SETTLED]
        assert self.duck.costs().cost == sum(settled)
        if self.asked:
            assert_told_of_all_attempts(self)

    def _is_alive(self) -> None:
        request = {**REQUEST, "model": "plain/m"}
        assert self.duck.complete(request, timeout=20).text == TEXT
        with self.duck.stream(request, timeout=20) as stream:
            assert "".join(chunk.delta.content for chunk in stream) == TEXT


GIVEN_UP = ("ProviderTimeout", "Cancelled")
"""How attempts end whose answer is no longer waited for."""


def agree(rows: list[AttemptRecord], calls: list[Call], unsent: int = 0, given_up: int = 0) -> None:
    """One provider's part of the ledger, row by row, against the log of its server.

    A whole answer is settled with its usage to the token; a refusal costs nothing; of what broke off, what the server
    had told is settled, and where it had told nothing the row is uncertain. A whole answer that does not tell its usage
    is settled with a guess. Of `given_up` attempts the answer may have been on its way, whole: nobody here has seen it.
    """
    whole = Counter(call.usage for call in calls if is_billed(call))
    broken = [call for call in calls if not is_billed(call) and not is_refusal(call)]
    settled = Counter(tokens_of(row) for row in rows if row.state is State.SETTLED)
    partly = settled - whole
    guessed = sum(is_billed(call) and call.usage is None for call in calls)
    whole.pop(None, None)
    unseen = (whole - settled).total()
    assert unseen <= given_up, f"not booked: {whole - settled}"
    told = [call.usage for call in broken if call.usage is not None]
    for read, written in list(partly.elements())[guessed:]:
        assert any(read == usage[0] and written <= usage[1] for usage in told), (read, written, told)
    states = Counter(row.state for row in rows)
    assert states[State.VOID] == sum(is_refusal(call) for call in calls) + unsent
    assert states[State.UNCERTAIN] == len(broken) + guessed - partly.total() + unseen
    assert states[State.INTENT] == 0
    assert len(rows) == len(calls) + unsent


def is_billed(call: Call) -> bool:
    """Whether a whole answer was sent, for which a provider takes money."""
    lingers = isinstance(call.behaviour, NoDone) and call.behaviour.lingers
    if call.status != 200 or (call.finished_at is None and not lingers):
        return False
    match call.behaviour:
        case NoDone():
            return "/messages" not in call.path
        case Gzip(keep=keep, bomb=bomb):
            return keep == 1 and not bomb
        case BadChunk() | ErrorInside():
            return False
        case Raw(headers=headers):
            return "content-encoding" not in headers
    return not getattr(call.behaviour, "is_broken", False)


def is_refusal(call: Call) -> bool:
    """Whether the server said, instead of an answer, that there is none."""
    if isinstance(call.behaviour, ErrorInside):
        return not (call.json or {}).get("stream") or call.behaviour.after == 0
    return call.status is not None and call.status != 200


def tokens_of(row: AttemptRecord) -> Tokens:
    return (row.prompt_tokens or 0, row.completion_tokens or 0)


def is_at_rest(duck: RubberDuck) -> bool:
    """Whether no call, slot, permit, reservation or place in the queue is out."""
    status = duck.status()
    held = status.calls + status.queue.in_process + sum(status.queue.depth.values())
    for each in status.providers.values():
        held += each.inflight + each.limiter.in_flight + each.limiter.waiting
        held += sum(breaker.permits_out for breaker in each.breakers.values())
    return held == 0


def assert_told_of_all_attempts(pair: Pair) -> None:
    """Answers and errors name every request that was made for them, and no other."""
    told = Counter(attempt.provider for ended in pair.asked for attempt in ended.attempts)
    seen = Counter({"primary": len(pair.primary.calls) + pair.unsent, "fallback": len(pair.fallback.calls)})
    assert +told == +seen


def wait_until(condition: Any, timeout: float = 30.0) -> None:
    until = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < until, f"not within {timeout} s: {condition}"
        time.sleep(0.002)


class Upstreams:
    """Starts pairs; `dialects` are the modules of primary and fallback."""

    def __init__(self, start_duck: StartDuck, servers: ExitStack) -> None:
        self._start_duck = start_duck
        self._servers = servers
        self.pairs: list[Pair] = []

    def __call__(
        self,
        *script: Behaviour,
        fallback: Behaviour | None = None,
        alone: bool = False,
        dialects: tuple[str, str] = ("openai", "anthropic"),
        timeout: float = 20.0,
        primary: dict[str, Any] | None = None,
        secondary: dict[str, Any] | None = None,
        unsent: int = 0,
        hasty: bool = False,
        retry: dict[str, Any] | None = None,
        **sections: Any,
    ) -> Pair:
        """A pair. `primary` and `secondary` are further options of the two providers, `unsent` is as in `Pair`.

        `hasty`: the primary has to begin, and to go on, within LIMIT.
        """
        modules = {"primary": dialects[0], "fallback": dialects[1], "plain": dialects[0]}
        scripts = {"primary": script, "fallback": (fallback or Ok(),), "plain": (Ok(),)}
        servers = {name: self._servers.enter_context(FaultServer(*scripts[name])) for name in modules}
        providers = {
            name: {**QUICK, "module": module, "base_url": address(servers[name], module), "priority": number}
            for number, (name, module) in enumerate(modules.items(), 1)
        }
        limits = {"first_token_timeout": f"{LIMIT}s", "idle_timeout": f"{LIMIT}s"} if hasty else {}
        providers["primary"] |= {**limits, **(primary or {})}
        providers["fallback"] |= secondary or {}
        providers = {name: {k: v for k, v in each.items() if v is not None} for name, each in providers.items()}
        sections = {
            "models": {"smart": ["primary/m"] if alone else ["primary/m", "fallback/m"]},
            "retry": {"base_delay": "20ms", "max_delay": "40ms", **(retry or {})},
            "prices": {"m": PRICE},
            "timeout": f"{timeout}s",
            **sections,
        }
        self.pairs.append(Pair(self._start_duck(providers, **sections), **servers, timeout=timeout, unsent=unsent))
        return self.pairs[-1]


QUICK = {"api_key": "key-of-a-test", "models": ["m"], "first_token_timeout": "15s", "idle_timeout": "15s"}


def address(server: FaultServer, module: str) -> str:
    return server.base_url + ("/v1" if module == "openai" else "")


@pytest.fixture
def upstreams(start_duck: StartDuck) -> Iterator[Upstreams]:
    """`upstreams(*script, fallback=..., ...)` starts a pair, whose conduct is looked at when the test is over."""
    with ExitStack() as servers:
        yield (made := Upstreams(start_duck, servers))
        for pair in made.pairs:
            pair.conduct()


def attempts(ended: Any) -> list[tuple[str, str]]:
    """Who was asked, and with what outcome."""
    return [(attempt.provider, attempt.outcome) for attempt in ended.attempts]
