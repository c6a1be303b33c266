"""The scenarios of a public benchmark of failover, in our own words and at a tenth of its times or less.

A scenario is passed where the caller was rescued and every check of conduct is clean. Rescued: the caller got the
whole answer, word for word (for a refusal by content policy: a clean error). The checks, on the log of the provider:
how often it was asked, how soon again, whether a hint was kept, whether the fallback was used and named, whether usage
came along, whether the process was alive afterwards. What the benchmark calls advisory is required here as well.

Source: Failover Bench, scenarios/catalogue.yaml and METHODOLOGY.md, v0.1 (github.com/failoverbench/failoverbench).
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import pytest
from tests_upstreams_rig import BOTH_DIALECTS, LATENESS, LIMIT, PRICE, Pair, Upstreams, attempts, wait_until

from rubberduck.errors import ContentFiltered
from rubberduck.testing import Behaviour
from rubberduck.testing.faults import (
    BadChunk,
    ContextExceeded,
    Cut,
    HangUp,
    NoDone,
    NoPrefill,
    Ok,
    PolicyRefusal,
    Silence,
    Stall,
    Status,
)

ANSWER = " ".join(f"word{number}" for number in range(60))
"""Sixty words, as each healthy answer has."""
NEVER = 60.0
"""Seconds until something that nobody waits for."""


@dataclass(frozen=True)
class Scenario:
    """What goes wrong, and the checks of conduct. Times are seconds.

    `primary` and `fallback` are the least and the most requests that each may get. `gap` is the least time between the
    first two, `burst` how many may come within what time. `longest` is for the whole call, on a machine at rest. A
    `hasty` primary has to begin, and to go on, soon.
    """

    script: tuple[Behaviour, ...]
    primary: tuple[int, int]
    fallback: tuple[int, int]
    longest: float
    hasty: bool = False
    gap: float = 0.0
    burst: tuple[int, float] = (6, 60.0)
    second: Behaviour = field(default_factory=lambda: Ok(ANSWER))


WHOLE = Ok(ANSWER)
SCENARIOS = {
    "S01 429 once, with a hint": Scenario(
        (Status(429, retry_after=0.2), WHOLE), (2, 2), (0, 0), 1, gap=0.2, burst=(1, 0.15)
    ),
    "S02 429 for ever, without a hint": Scenario((Status(429),), (1, 6), (1, 1), 4, burst=(4, 3.0)),
    "S03 500 once": Scenario((Status(500), WHOLE), (2, 2), (0, 0), 2),
    "S04 503 for ever": Scenario((Status(503),), (1, 6), (1, 1), 4),
    "S05 reset before the headers": Scenario((HangUp(), WHOLE), (1, 2), (0, 1), 2),
    "S06 no response": Scenario((Silence(),), (1, 1), (1, 1), LIMIT, hasty=True),
    "S07 slow first token": Scenario((Ok(ANSWER, first_token_after=NEVER),), (1, 1), (1, 1), LIMIT, hasty=True),
    "S08 cut after 40 of 60 words": Scenario((Cut(after=41),), (1, 1), (1, 1), 4),
    "S09 stall after 20 words": Scenario((Stall(after=21),), (1, 1), (1, 1), LIMIT, hasty=True),
    "S10 malformed tenth event": Scenario((BadChunk(after=9),), (1, 1), (1, 1), 3),
    "S11 no end mark": Scenario((NoDone(),), (1, 1), (0, 0), 1),
    "S12 context exceeded": Scenario((ContextExceeded(),), (1, 1), (1, 1), 2),
    "S14 cut, and a fallback that refuses prefill": Scenario(
        (Cut(after=41),), (1, 1), (1, 2), 4, second=NoPrefill(WHOLE)
    ),
    "S16 503 for ever: whose answer it is": Scenario((Status(503),), (1, 6), (1, 1), 4),
}


@pytest.fixture(autouse=True)
def sixty_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """The damaged streams of the fault server are parts of the same answer."""
    monkeypatch.setattr("rubberduck.testing.faults.TEXT", ANSWER)


def start(upstreams: Upstreams, scenario: Scenario, module: str) -> Pair:
    """Two models behind one name; all else is as it comes, but for shorter times."""
    return upstreams(
        *scenario.script,
        fallback=scenario.second,
        hasty=scenario.hasty,
        dialects=(module, "openai" if module == "anthropic" else "anthropic"),
        models={"smart": ["primary/m", "fallback/spare"]},
        prices={"m": PRICE, "spare": PRICE},
    )


def is_beyond_the_dialect(name: str, module: str) -> bool:
    """Without its end mark a stream of Anthropic is not whole: that is another scenario, S08."""
    return name.startswith("S11") and module == "anthropic"


CASES = [
    (name, module)
    for name in SCENARIOS
    for module in ("openai", "anthropic")
    if not is_beyond_the_dialect(name, module)
]


@pytest.mark.parametrize(("name", "module"), CASES)
def test_the_caller_is_rescued_and_the_conduct_clean(upstreams: Upstreams, name: str, module: str) -> None:
    scenario = SCENARIOS[name]
    pair = start(upstreams, scenario, module)
    began = time.monotonic()
    response = ask(pair)
    assert time.monotonic() - began <= scenario.longest + LATENESS
    assert_conduct(pair, scenario)
    is_fallbacks = bool(pair.fallback.calls)
    assert (response.provider, response.model) == (("fallback", "spare") if is_fallbacks else ("primary", "m"))
    assert (response.usage.prompt_tokens, response.usage.completion_tokens) == (12, 60)
    assert not any(
        attempt.cost for attempt in response.attempts[:-1] if attempt.outcome in ("Overloaded", "RateLimited")
    )


def ask(pair: Pair) -> Any:
    """The benchmark streams, and wants the whole answer: so nothing is let go before it is there."""
    return pair.ask("stream", text=ANSWER, stream_policy="buffer")


def assert_conduct(pair: Pair, scenario: Scenario) -> None:
    times = [call.arrived_at for call in pair.primary.calls]
    assert scenario.primary[0] <= len(times) <= scenario.primary[1]
    assert scenario.fallback[0] <= len(pair.fallback.calls) <= scenario.fallback[1]
    if scenario.gap:
        assert times[1] - times[0] >= scenario.gap
    count, window = scenario.burst
    assert sum(each - times[0] < window for each in times) <= count


@BOTH_DIALECTS
def test_s13_a_refusal_by_content_policy_is_a_clean_error_after_one_request(upstreams: Upstreams, module: str) -> None:
    pair = start(upstreams, Scenario((PolicyRefusal(),), (1, 1), (0, 0), 1), module)
    error = pair.failure("stream", ContentFiltered)
    assert "content filtering policy" in str(error)
    assert (len(pair.primary.calls), len(pair.fallback.calls)) == (1, 0)
    assert error.spent == 0


@BOTH_DIALECTS
def test_s15_a_flapping_primary_is_probed_left_alone_and_taken_back(upstreams: Upstreams, module: str) -> None:
    """Requests over an outage of two probes and its end: 4 s and 15 s between them at a hundredth."""
    reset, pause = 0.15, 0.04
    pair = upstreams(
        Status(503),
        fallback=Ok(ANSWER),
        dialects=(module, "openai"),
        circuit_breaker={"failure_threshold": 2, "reset_timeout": f"{reset}s"},
    )
    began = time.monotonic()
    during: list[Any] = []
    while len(pair.primary.calls) < 2 + 2:
        during.append(ask(pair))
        time.sleep(pause)
    assert {response.provider for response in during} == {"fallback"}
    asked = len(pair.primary.calls)
    assert asked <= len(during)
    assert asked <= 2 + 1 + (time.monotonic() - began) / reset
    pair.primary.play(WHOLE)
    wait_until(lambda: ask(pair).provider == "primary")
    assert len(pair.primary.calls) == asked + 1
    assert attempts(ask(pair)) == [("primary", "success")]
