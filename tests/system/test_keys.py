"""A provider with several keys, on real sockets: which key each request carries, and what becomes of a refused one."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from tests_system_rig import StartDuck

from rubberduck import RubberDuck, telemetry
from rubberduck.actors.rate_limiter import GetStats
from rubberduck.errors import (
    AuthenticationFailed,
    ModelNotFound,
    NoAvailableProvider,
    QuotaExceeded,
    RateLimited,
    RubberDuckError,
    ServiceUnavailable,
)
from rubberduck.telemetry import names as events
from rubberduck.testing import Behaviour, FaultServer
from rubberduck.testing.faults import TEXT, Hold, Ok, OutOfQuota, Status
from supervision.testing import ManualClock, fault

A, B, C = "sk-first-secret", "sk-second-secret", "sk-third-secret"
VERBS = pytest.mark.parametrize("verb", ["complete", "stream"])
MODULES = pytest.mark.parametrize("module", ["openai", "anthropic"])
BAD: dict[str, tuple[Behaviour, type[RubberDuckError]]] = {
    "401": (Status(401), AuthenticationFailed),
    "403": (Status(403), AuthenticationFailed),
    "quota": (OutOfQuota(), QuotaExceeded),
    "402": (Status(402), QuotaExceeded),
}


@dataclass
class ByKey:
    """Answers each key in its own way; those that are not named, well."""

    ways: dict[str, Behaviour] = field(default_factory=dict)

    async def answer(self, call: Any, reply: Any) -> None:
        await self.ways.get(call.key, Ok()).answer(call, reply)


@dataclass
class Keyed:
    """A duck over a server that knows its callers by their keys, and perhaps a second one."""

    duck: RubberDuck
    server: FaultServer
    other: FaultServer
    ways: dict[str, Behaviour]

    def ask(self, verb: str = "complete", model: str = "m", **options: Any) -> Any:
        request = {"model": model, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}
        if verb == "complete":
            return self.duck.complete(request, **options)
        with self.duck.stream(request, **options) as stream:
            assert "".join(chunk.delta.content for chunk in stream) == TEXT
        return stream.response

    @property
    def seen(self) -> list[str]:
        """The keys that the server saw, in order."""
        return [call.key for call in self.server.calls]

    @property
    def status(self) -> Any:
        return self.duck.status().providers["vendor"]

    def assert_books_agree(self) -> None:
        booked = {name: share.calls for (name, _), share in self.duck.costs().by_model.items() if share.calls}
        billed = {name: [call.status for call in server.calls].count(200) for name, server in self.servers.items()}
        assert booked == {name: count for name, count in billed.items() if count}
        assert self.duck.costs().uncertain == 0

    @property
    def servers(self) -> dict[str, FaultServer]:
        return {"vendor": self.server, "other": self.other}


Start = Callable[..., Keyed]


@pytest.fixture
def keyed(start_duck: StartDuck) -> Iterator[Start]:
    """`keyed({key: behaviour}, keys, alone=...)`: a duck whose first provider has several keys."""
    ways: dict[str, Behaviour] = {}
    with FaultServer(ByKey(ways)) as server, FaultServer() as other:

        def start(
            behaviours: dict[str, Behaviour] | None = None,
            keys: tuple[str, ...] = (A, B),
            *,
            module: str = "openai",
            alone: bool = True,
            clock: Any = None,
            **sections: Any,
        ) -> Keyed:
            ways.update(behaviours or {})
            tail = "/v1" if module == "openai" else ""
            vendor = {"module": module, "api_keys": list(keys), "models": ["m", "n"], "priority": 1}
            second = {"module": "openai", "api_key": "sk-of-the-other", "models": ["m"], "priority": 2}
            providers = {
                "vendor": {**vendor, "base_url": server.base_url + tail},
                "other": {**second, "base_url": f"{other.base_url}/v1"},
            }
            if alone:
                del providers["other"]
            sections = {"retry": {"base_delay": "10ms", "max_delay": "20ms"}, "timeout": "20s", **sections}
            prices = {"m": {"input": 1, "output": 2}}
            return Keyed(start_duck(providers, clock=clock, prices=prices, **sections), server, other, ways)

        yield start


def restart(world: Keyed, victim: str, eventually: Any) -> None:
    """Kill an actor and wait for its next life."""
    ref = world.duck.actor(victim)
    before = ref.name.restarts
    world.duck.system.kill(ref)
    eventually(lambda: ref.name.restarts > before and ref.name.incarnation is not None)


def attempts(ended: Any) -> list[tuple[str, str, str]]:
    return [(each.provider, each.key, each.outcome) for each in ended.attempts]


# -- one bad key -------------------------------------------------------------------------------------------


@VERBS
@MODULES
@pytest.mark.parametrize("fault", BAD)
def test_where_one_key_is_bad_the_other_answers_and_the_bad_one_is_left_alone(
    keyed: Start, module: str, verb: str, fault: str
) -> None:
    bad, error = BAD[fault]
    world = keyed({A: bad}, module=module)
    response = world.ask(verb)
    assert attempts(response) == [("vendor", "key 1", error.__name__), ("vendor", "key 2", "success")]
    assert [world.ask(verb).text for _ in range(3)] == [TEXT] * 3
    assert world.seen == [A, B, B, B, B]
    assert world.status.state == "closed"
    [away] = world.status.quarantines
    assert (away.key, away.times) == ("key 1", 1)
    world.assert_books_agree()


def test_a_bad_key_goes_before_another_route_only_once(keyed: Start) -> None:
    """Two refused keys are no accident; the third is not burnt for the same call."""
    world = keyed({A: Status(401), B: Status(401)}, (A, B, C), alone=False)
    assert world.ask().provider == "other"
    assert world.seen == [A, B]
    assert world.ask().provider == "vendor"
    assert world.seen == [A, B, C]
    world.assert_books_agree()


def test_spent_accounts_are_passed_over_key_by_key(keyed: Start) -> None:
    world = keyed({A: OutOfQuota(), B: OutOfQuota()}, (A, B, C), alone=False)
    assert world.ask().provider == "vendor"
    assert world.seen == [A, B, C]
    world.assert_books_agree()


@VERBS
@pytest.mark.parametrize("fault", BAD)
def test_with_every_key_bad_another_route_answers_and_later_calls_go_there_at_once(
    keyed: Start, verb: str, fault: str
) -> None:
    bad, error = BAD[fault]
    world = keyed({A: bad, B: bad}, alone=False)
    response = world.ask(verb)
    outcomes = [("vendor", "key 1", error.__name__), ("vendor", "key 2", error.__name__), ("other", "", "success")]
    assert attempts(response) == outcomes
    assert attempts(world.ask(verb)) == [("other", "", "success")]
    assert (world.seen, len(world.other.calls)) == ([A, B], 2)
    world.assert_books_agree()


@pytest.mark.parametrize("fault", BAD)
def test_with_every_key_bad_and_no_other_route_the_error_is_the_last_providers_own(keyed: Start, fault: str) -> None:
    bad, error = BAD[fault]
    world = keyed({A: bad, B: bad})
    with pytest.raises(error) as caught:
        world.ask()
    assert not caught.value.retryable
    assert caught.value.spent == 0
    assert world.seen == [A, B]
    with pytest.raises(NoAvailableProvider) as told:
        world.ask()
    [reason] = told.value.reasons.values()
    assert reason.startswith("key quarantined")
    assert told.value.retry_after is not None
    assert told.value.retry_after > 290
    assert world.seen == [A, B]
    world.assert_books_agree()


def test_a_single_key_is_put_away_just_the_same_and_one_call_at_a_time_looks_again(keyed: Start) -> None:
    clock = ManualClock()
    world = keyed({A: Status(401)}, (A,), clock=clock)
    with pytest.raises(AuthenticationFailed) as caught:
        world.ask()
    assert attempts(caught.value) == [("vendor", "", "AuthenticationFailed")]
    with pytest.raises(NoAvailableProvider) as told:
        world.ask()
    assert (told.value.reasons, told.value.retry_after) == ({"vendor/m": "key quarantined (refused)"}, 300)
    clock.advance(300)
    with pytest.raises(AuthenticationFailed):
        world.ask()
    with pytest.raises(NoAvailableProvider) as told:
        world.ask()
    assert told.value.retry_after == 600
    assert len(world.seen) == 2
    world.ways.clear()
    clock.advance(600)
    assert world.ask().text == TEXT
    assert world.status.quarantines == ()


def test_a_key_that_is_refused_for_one_model_serves_the_other(keyed: Start) -> None:
    world = keyed({A: Status(403)}, (A,))
    with pytest.raises(AuthenticationFailed):
        world.ask(model="m")
    world.ways.clear()
    with pytest.raises(NoAvailableProvider):
        world.ask(model="m")
    assert world.ask(model="n").text == TEXT


@pytest.mark.parametrize(("hint", "seconds"), [(90, 90), (None, 3600)])
def test_a_spent_account_rests_until_its_stated_reset(keyed: Start, hint: float | None, seconds: float) -> None:
    clock = ManualClock()
    spent = Status(429, retry_after=hint, type="insufficient_quota", code="insufficient_quota")
    world = keyed({A: spent}, (A,), clock=clock)
    with pytest.raises(QuotaExceeded):
        world.ask()
    world.ways.clear()
    clock.advance(seconds - 4)
    with pytest.raises(NoAvailableProvider) as told:
        world.ask()
    assert told.value.retry_after == 4
    clock.advance(4)
    assert world.ask().text == TEXT


def test_an_unknown_model_is_off_for_five_minutes_with_every_key(keyed: Start) -> None:
    clock = ManualClock()
    world = keyed({A: Status(404), B: Status(404)}, clock=clock)
    with pytest.raises(ModelNotFound):
        world.ask()
    with pytest.raises(NoAvailableProvider) as told:
        world.ask()
    assert (told.value.reasons, told.value.retry_after) == ({"vendor/m": "model not found"}, 300)
    world.ways.clear()
    assert world.ask(model="n").text == TEXT
    clock.advance(300)
    assert world.ask().text == TEXT
    assert len(world.seen) == 3


# -- many at once ------------------------------------------------------------------------------------------


def at_once(world: Keyed, count: int) -> Counter[str]:
    """Make the calls side by side; how each was answered."""
    request = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}

    async def one() -> str:
        try:
            return (await world.duck.acomplete(request)).text
        except RubberDuckError as error:
            return type(error).__name__

    async def every() -> list[str]:
        async with asyncio.timeout(30):
            return await asyncio.gather(*(one() for _ in range(count)))

    return Counter(asyncio.run(every()))


def test_all_who_were_refused_together_get_the_other_key_whatever_the_retry_budget(keyed: Start) -> None:
    world = keyed({A: Hold(Status(401)), B: Hold()})
    request = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}
    futures = [world.duck.service.ask({"complete": request}, block=False) for _ in range(40)]
    world.server.wait_for(lambda calls: len(calls) == 40)
    assert Counter(world.seen) == {A: 20, B: 20}
    world.server.release()
    assert [future.get(timeout=30).text for future in futures] == [TEXT] * 40
    [away] = world.status.quarantines
    assert away.times == 1
    assert Counter(world.seen) == {A: 20, B: 40}
    world.assert_books_agree()


def test_who_looks_again_and_learns_nothing_leaves_the_key_to_the_next(keyed: Start) -> None:
    clock = ManualClock()
    world = keyed({A: Status(401)}, (A,), clock=clock, retry={"max_attempts": 1})
    with pytest.raises(AuthenticationFailed):
        world.ask()
    clock.advance(300)
    world.ways[A] = Status(500)
    with pytest.raises(ServiceUnavailable):
        world.ask()
    world.ways.clear()
    assert world.ask(timeout=0.5).text == TEXT


def test_when_the_time_of_a_bad_key_is_over_one_of_a_hundred_calls_looks_again(keyed: Start) -> None:
    clock = ManualClock()
    world = keyed({A: Status(401)}, clock=clock)
    world.ask()
    clock.advance(300)
    before = len(world.seen)
    assert at_once(world, 100) == {TEXT: 100}
    assert Counter(world.seen[before:]) == {A: 1, B: 100}
    assert world.status.quarantines[0].times == 2
    world.assert_books_agree()


def test_who_waits_for_a_key_is_told_when_it_is_put_away(keyed: Start, eventually: Any) -> None:
    """They wait for its limit; it is refused meanwhile: they must not wait on, and then burn a bad key."""
    limits = {"vendor": {"requests_per_min": 1}}
    world = keyed({A: Hold(Status(401))}, (A,), clock=ManualClock(), rate_limits=limits, timeout="500s")
    request = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}
    first, second = (world.duck.service.ask({"complete": request}, block=False) for _ in range(2))
    eventually(lambda: world.status.limiter.waiting == 1 and len(world.seen) == 1)
    world.server.release()
    with pytest.raises(AuthenticationFailed):
        first.get(timeout=30)
    with pytest.raises(NoAvailableProvider):
        second.get(timeout=30)
    assert world.seen == [A]


# -- limits of each key ------------------------------------------------------------------------------------


def refused_for_its_rate(world: Keyed) -> bool:
    try:
        world.ask(timeout=1)
    except RateLimited:
        return True
    except NoAvailableProvider as error:
        return "rate" in str(error.reasons)
    return False


def test_two_keys_carry_twice_the_rate_also_through_a_restart_of_the_limiter(keyed: Start, eventually: Any) -> None:
    world = keyed(clock=ManualClock(), rate_limits={"vendor": {"requests_per_min": 10}})
    for number in range(20):
        if number == 7:
            restart(world, "rate_limiter:vendor", eventually)
        assert world.ask().text == TEXT
    assert Counter(world.seen) == {A: 10, B: 10}
    assert refused_for_its_rate(world)
    status = world.status
    assert {name: each.used_this_minute["requests"] for name, each in status.keys.items()} == {"key 1": 10, "key 2": 10}
    assert (status.limiter.used_this_minute, status.limiter.in_flight) == ({"requests": 20}, 0)
    assert len(world.seen) == 20


def test_a_limit_that_one_key_taught_holds_for_that_key_alone(keyed: Start) -> None:
    used_up = {f"x-ratelimit-{what}-requests": told for what, told in (("limit", "9"), ("remaining", "0"))}
    world = keyed({A: Ok(headers={**used_up, "x-ratelimit-reset-requests": "50s"})}, clock=ManualClock())
    assert [world.ask().text for _ in range(4)] == [TEXT] * 4
    assert world.seen == [A, B, B, B]
    assert world.status.keys["key 1"].learned == {"m": {"requests": 9}}
    assert world.status.keys["key 2"].learned == {}


def test_a_429_holds_its_own_key_back_and_the_others_not(keyed: Start) -> None:
    world = keyed({A: Status(429, retry_after=60)})
    assert attempts(world.ask(timeout=30)) == [("vendor", "key 1", "RateLimited"), ("vendor", "key 2", "success")]
    assert [world.ask().text for _ in range(3)] == [TEXT] * 3
    assert world.seen == [A, B, B, B, B]
    assert [(name, each.pace < 1) for name, each in world.status.keys.items()] == [("key 1", True), ("key 2", False)]


def test_the_slots_of_a_route_are_shared_by_its_keys(keyed: Start, eventually: Any) -> None:
    world = keyed({A: Hold(), B: Hold()}, rate_limits={"vendor": {"max_concurrency": 2}})
    request = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}
    futures = [world.duck.service.ask({"complete": request}, block=False) for _ in range(5)]
    world.server.wait_for(lambda calls: len(calls) == 2)
    assert world.status.limiter.in_flight == 2
    world.server.release()
    assert [future.get(timeout=30).text for future in futures] == [TEXT] * 5
    assert world.duck.actor("rate_limiter:vendor").ask(GetStats(1)).in_flight == 0


# -- what is told ------------------------------------------------------------------------------------------


def test_a_quarantine_is_told_once_and_never_with_the_secret(keyed: Start, caplog: pytest.LogCaptureFixture) -> None:
    heard: list[Any] = []
    telemetry.attach("keys", [events.KEY_QUARANTINED], lambda *told: heard.append(told[:3]), inline=True)
    try:
        world = keyed({A: Status(401, message=f"what is {A}? I know {B} only")})
        with caplog.at_level(logging.INFO, logger="rubberduck"):
            for _ in range(3):
                world.ask()
    finally:
        telemetry.detach("keys")
    [(_, measured, about)] = heard
    assert (about["provider"], about["key"], about["model"], about["reason"]) == ("vendor", "key 1", None, "key")
    assert measured == {"duration": 300_000_000_000, "times": 1}
    [line] = [record for record in caplog.records if "left alone" in record.getMessage()]
    assert line.levelno == logging.ERROR
    assert "key 1" in line.getMessage()
    for told in (str(about), caplog.text, str(world.duck.status())):
        assert A not in told
        assert B not in told


def test_no_key_is_in_an_error_whichever_of_them_the_server_repeats(keyed: Start) -> None:
    world = keyed({A: Status(500, message=f"{A} and {B}"), B: Status(500, message=f"{A} and {B}")})
    with pytest.raises(ServiceUnavailable) as caught:
        world.ask()
    assert "*** and ***" in str(caught.value)
    assert A not in repr(caught.value)
    assert B not in repr(caught.value)


# -- whatever crashes --------------------------------------------------------------------------------------


@pytest.mark.parametrize("victim", ["rate_limiter:vendor", "circuit_breaker:vendor", "request_queue", "service"])
def test_a_quarantine_outlives_every_actor(keyed: Start, eventually: Any, victim: str) -> None:
    world = keyed({A: Status(401)})
    world.ask()
    restart(world, victim, eventually)
    world.ask()
    assert world.seen == [A, B, B]


def test_while_the_limiter_keeps_being_killed_calls_are_answered_and_booked_once(keyed: Start) -> None:
    world = keyed({A: Status(401)}, (A, B, C), supervision={"max_restarts": 1_000_000, "max_seconds": 1})
    ref, passed = world.duck.actor("rate_limiter:vendor"), 0

    def strike(_: str) -> None:
        nonlocal passed
        passed += 1
        if passed % 7 == 0:
            world.duck.system.kill(ref)

    with fault("before_handle", strike, path="rate_limiter:vendor"):
        assert at_once(world, 60) == {TEXT: 60}
    assert passed >= 70
    assert [call.status for call in world.server.calls].count(200) == 60
    assert world.status.limiter.in_flight == 0
    world.assert_books_agree()


def test_a_bill_that_was_paid_need_not_be_waited_for(keyed: Start) -> None:
    world = keyed({A: OutOfQuota(), B: Status(401)})
    with pytest.raises(AuthenticationFailed):
        world.ask()
    world.ways.clear()
    with pytest.raises(KeyError):
        world.duck.readmit_keys("nobody")
    assert (world.duck.readmit_keys("vendor"), world.duck.readmit_keys("vendor")) == (2, 0)
    assert world.ask().text == TEXT
