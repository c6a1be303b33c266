"""Whose answer it was, what it cost, and what becomes of a call and its money when parts of RubberDuck are lost."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from email.utils import format_datetime
from typing import Any

import pytest
from tests_upstreams_rig import BOTH_DIALECTS, BOTH_VERBS, COST, LATENESS, Pair, Upstreams, attempts, wait_until

from rubberduck.core.ledger import State
from rubberduck.errors import BudgetExceeded, CallInterrupted, RubberDuckError
from rubberduck.testing import Behaviour
from rubberduck.testing.faults import Flaky, Hold, Ok, Status

# --- whose answer it was -------------------------------------------------------------------------------------------


@BOTH_VERBS
@BOTH_DIALECTS
def test_an_answer_of_the_fallback_has_its_model_its_usage_and_its_price(
    upstreams: Upstreams, module: str, verb: str
) -> None:
    pair = upstreams(
        Status(503),
        dialects=("anthropic" if module == "openai" else "openai", module),
        models={"smart": ["primary/m", "fallback/other"]},
        prices={"primary/m": {"input": 1000, "output": 1000}, "fallback/other": {"input": 3, "output": 5}},
    )
    response = pair.ask(verb)
    cost = Decimal(12 * 3 + 6 * 5) / 10**6
    assert (response.provider, response.model) == ("fallback", "other")
    assert (response.usage.prompt_tokens, response.usage.completion_tokens) == (12, 6)
    assert response.usage.cost == cost
    assert [attempt.cost for attempt in response.attempts] == [0, 0, cost]
    assert [attempt.model for attempt in response.attempts] == ["m", "m", "other"]
    summary = pair.duck.costs()
    assert (summary.cost, summary.uncertain) == (cost, 0)
    assert {key for key, share in summary.by_model.items() if share.calls} == {("fallback", "other")}


def test_books_agree_where_both_are_flaky_and_some_calls_fail(upstreams: Upstreams) -> None:
    pair = upstreams(Flaky(0.4, seed=3), fallback=Flaky(0.4, seed=4), retry={"base_delay": "1ms", "max_delay": "2ms"})
    failed = 0
    for number in range(40):
        try:
            pair.ask(("complete", "stream")[number % 2])
        except RubberDuckError:
            failed += 1
    assert pair.duck.costs().cost == COST * (40 - failed)
    assert pair.duck.costs().uncertain == 0


# --- budgets -------------------------------------------------------------------------------------------------------

PAID = {
    "model": "smart",
    "messages": [{"role": "user", "content": "Say hello to the duck."}],
    "max_tokens": 10,
}
"""Its worst case is above the 24 micro-dollars that each answer costs, as it should be."""
MOST = 20
"""How many answers the money is enough for."""


@BOTH_VERBS
@pytest.mark.parametrize("fault", [Ok(), Ok(delay=0.02), Flaky(0.3, seed=7)], ids=["at once", "after a while", "flaky"])
def test_a_hundred_calls_at_once_never_spend_a_micro_dollar_more_than_there_is(
    upstreams: Upstreams, fault: Behaviour, verb: str
) -> None:
    limit = MOST * COST
    pair = upstreams(
        fault,
        retry={"base_delay": "1ms", "max_delay": "2ms"},
        budgets={"ducks": {"limit": str(limit), "per": "total"}},
    )
    ended = asyncio.run(ask_a_hundred(pair, verb))
    refused = [each for each in ended if isinstance(each, BudgetExceeded)]
    answered = [each for each in ended if not isinstance(each, RubberDuckError)]
    assert len(answered) + len(refused) == 100
    assert 1 <= len(answered) <= MOST
    assert pair.duck.costs().cost == COST * len(answered) <= limit
    assert pair.duck.costs().uncertain == 0
    assert not any(each.spent for each in refused)
    whole = [call for server in (pair.primary, pair.fallback) for call in server.calls if call.status == 200]
    assert len(whole) == len(answered)
    for _ in range(MOST):  # the rest is spent one by one
        with contextlib.suppress(BudgetExceeded):
            pair.asked.append(pair.duck.complete(PAID, tenant="ducks"))
    assert pair.duck.costs().cost <= limit
    worst_case = max(row.reserved or 0 for row in pair.rows())
    assert limit - pair.duck.costs().cost < worst_case


async def ask_a_hundred(pair: Pair, verb: str) -> list[Any]:
    async def one() -> Any:
        try:
            if verb == "complete":
                ended: Any = await pair.duck.acomplete(PAID, tenant="ducks")
            else:
                async with pair.duck.astream(PAID, tenant="ducks") as stream:
                    async for _ in stream:
                        pass
                ended = stream.response
        except RubberDuckError as error:
            ended = error
        pair.asked.append(ended)
        return ended

    async with asyncio.timeout(100):
        return await asyncio.gather(*(one() for _ in range(100)))


# --- restarts ------------------------------------------------------------------------------------------------------

VICTIMS = ("service", "request_queue", "cost_tracker", "rate_limiter:primary", "circuit_breaker:primary")


@BOTH_VERBS
@pytest.mark.parametrize("victim", VICTIMS)
def test_a_call_goes_on_while_an_actor_of_its_way_is_lost_and_nothing_is_sent_again(
    upstreams: Upstreams, victim: str, verb: str
) -> None:
    pair = upstreams(Hold(), primary={"timeout": "10s"})
    with ThreadPoolExecutor() as threads:
        asking = threads.submit(pair.ask, verb)
        pair.primary.wait_for(lambda calls: len(calls) == 1)
        pair.duck.system.kill(pair.duck.actor(victim))
        pair.primary.release()
        response = asking.result(60)
    assert attempts(response) == [("primary", "success")]
    assert response.usage.cost == COST
    assert len(pair.primary.calls) == 1


@BOTH_VERBS
def test_a_call_whose_own_task_is_lost_is_told_so_and_its_money_shown_as_uncertain(
    upstreams: Upstreams, verb: str
) -> None:
    pair = upstreams(Hold(), primary={"timeout": "10s"})
    with ThreadPoolExecutor() as threads:
        asking = threads.submit(pair.ask, verb)
        pair.primary.wait_for(lambda calls: len(calls) == 1)
        pair.duck.system.kill(pair.duck.actor("calls"))
        with pytest.raises(CallInterrupted) as caught:
            asking.result(60)
    assert caught.value.spent is None
    pair.primary.wait_for(lambda calls: calls[0].disconnected_at)
    wait_until(lambda: pair.duck.costs().uncertain > 0)
    pair.asked.clear()  # who is interrupted is told at once, before the attempt has come to its end
    assert len(pair.primary.calls) == 1
    assert not pair.fallback.calls
    [row] = [row for row in pair.rows() if row.provider == "primary"]
    assert row.state is State.UNCERTAIN
    assert row.reserved


# --- the wall clock --------------------------------------------------------------------------------------------------


class WallClock:
    """What the process believes the time of day to be: off by `jump` from some moment on."""

    def __init__(self) -> None:
        self.jump = timedelta(0)
        self.real_time = time.time
        clock = self

        class Jumping(datetime):
            @classmethod
            def now(cls, tz: Any = None) -> datetime:  # type: ignore[override]
                return datetime.fromtimestamp(clock.time(), tz)

        self.datetime = Jumping

    def time(self) -> float:
        return self.real_time() + self.jump.total_seconds()


@pytest.fixture
def wall_clock(monkeypatch: pytest.MonkeyPatch) -> WallClock:
    """Of every module of ours that asks for the time of day."""
    clock = WallClock()
    monkeypatch.setattr(time, "time", clock.time)
    for name, module in list(sys.modules.items()):
        if name.startswith(("rubberduck.", "supervision.")) and getattr(module, "datetime", None) is datetime:
            monkeypatch.setattr(module, "datetime", clock.datetime)
    return clock


@pytest.mark.parametrize(
    ("jump", "verb"), [(timedelta(hours=1), "complete"), (timedelta(hours=-1), "stream")], ids=["ahead", "back"]
)
def test_a_jump_of_the_clock_by_an_hour_changes_nothing(
    upstreams: Upstreams, wall_clock: WallClock, jump: timedelta, verb: str
) -> None:
    """In the middle of a request, of a wait for a hint, and of an open circuit."""
    pair = upstreams(
        Hold(), circuit_breaker={"failure_threshold": 2, "reset_timeout": "300ms"}, retry={"same_route_repeats": 1}
    )
    with ThreadPoolExecutor() as threads:
        asking = threads.submit(pair.ask, verb)
        pair.primary.wait_for(lambda calls: len(calls) == 1)
        wall_clock.jump = jump
        pair.primary.release()
        assert attempts(asking.result(60)) == [("primary", "success")]

    pair.primary.play(Status(429, retry_after=0.2), Ok())
    wall_clock.jump = timedelta(0)
    with ThreadPoolExecutor() as threads:
        asking = threads.submit(pair.ask, verb)
        pair.primary.wait_for(lambda calls: len(calls) == 2 and calls[1].finished_at)
        wall_clock.jump = jump
        assert attempts(asking.result(60)) == [("primary", "RateLimited"), ("primary", "success")]
    limited, repeated = pair.primary.calls[1:]
    assert 0.2 <= repeated.arrived_at - limited.arrived_at < LATENESS

    pair.primary.play(Status(500))
    wall_clock.jump = timedelta(0)
    pair.ask(verb)
    opened_at = pair.primary.calls[-1].arrived_at
    wall_clock.jump = jump
    pair.primary.play(Ok())
    wait_until(lambda: pair.ask(verb).provider == "primary")
    assert 0.3 <= pair.primary.calls[-1].arrived_at - opened_at < LATENESS


def test_a_hint_that_is_a_date_is_read_by_the_providers_clock(upstreams: Upstreams, wall_clock: WallClock) -> None:
    wall_clock.jump = timedelta(hours=-1)
    theirs = datetime.fromtimestamp(wall_clock.real_time(), UTC).replace(microsecond=0)
    headers = {"date": format_datetime(theirs, usegmt=True)}
    until = format_datetime(theirs + timedelta(seconds=1), usegmt=True)
    pair = upstreams(Status(429, retry_after=until, headers=headers), Ok())
    assert attempts(pair.ask("complete")) == [("primary", "RateLimited"), ("primary", "success")]
    first, second = pair.primary.calls
    assert 1 <= second.arrived_at - first.arrived_at < LATENESS


def test_the_clock_of_the_test_does_jump(wall_clock: WallClock) -> None:
    from rubberduck.actors.calls import attempts as module

    wall_clock.jump = timedelta(hours=1)
    ahead = module.datetime.now(UTC) - datetime.fromtimestamp(wall_clock.real_time(), UTC)
    assert timedelta(minutes=59) < ahead < timedelta(minutes=61)
