"""Between the queue and a provider's limits: who waits for tokens keeps nobody else from going first."""

from __future__ import annotations

from typing import Any

import pytest
from tests_system_rig import Gated, StartDuck, ask_for

from rubberduck.errors import RubberDuckError
from supervision.testing import ManualClock


def limited(start_duck: StartDuck, clock: ManualClock, **limits: Any) -> tuple[Any, Gated]:
    duck = start_duck({"gated": {"module": Gated}}, clock=clock, rate_limits={"gated": limits})
    provider = duck.provider("gated")
    assert isinstance(provider, Gated)
    provider.open(1000)
    return duck, provider


def test_an_urgent_call_goes_before_many_others_that_wait_for_tokens(start_duck: StartDuck, eventually: Any) -> None:
    """They had all left the queue and held all slots while they waited in the limiter: it came after the last one."""
    clock = ManualClock()
    duck, provider = limited(start_duck, clock, capacity=1, refill_rate=1, max_concurrency=5)
    ask = duck.service.ask
    low = [ask({"complete": ask_for(f"low {n}"), "priority": "low"}, block=False) for n in range(20)]
    eventually(lambda: provider.arrived == ["low 0"])
    eventually(lambda: sum(duck.status().queue.depth.values()) == 18)
    assert duck.status().providers["gated"].limiter.waiting == 1
    high = ask({"complete": ask_for("high"), "priority": "high"}, block=False)
    eventually(lambda: sum(duck.status().queue.depth.values()) == 19)
    for second in range(21):
        eventually(lambda at=second: len(provider.answered) > at)
        eventually(lambda at=second: at >= 19 or duck.status().providers["gated"].limiter.waiting == 1 or step(clock))
        clock.advance(1.0)
    assert provider.answered[:3] == ["low 0", "low 1", "high"]
    assert [future.get(timeout=30).text for future in [high, *low[:1]]] == ["re: high", "re: low 0"]


def step(clock: ManualClock) -> bool:
    clock.advance(0.01)
    return False


def test_who_would_be_too_late_for_the_limit_hears_so_at_once(start_duck: StartDuck, eventually: Any) -> None:
    clock = ManualClock()
    duck, provider = limited(start_duck, clock, capacity=1, refill_rate=0.1)
    ask = duck.service.ask
    waiting = [ask({"complete": ask_for(str(n)), "timeout": 60}, block=False) for n in range(3)]
    eventually(lambda: provider.arrived == ["0"])
    eventually(lambda: duck.status().providers["gated"].limiter.waiting == 1)
    with pytest.raises(RubberDuckError) as refusal:
        duck.complete(ask_for("late"), timeout=3)
    assert refusal.value.retry_after > 3
    for future in waiting:
        future.abandon()


def test_a_limit_is_used_up_though_one_books_at_a_time(start_duck: StartDuck, eventually: Any) -> None:
    """A hundred and twenty calls have their tokens after half a second, of which each step brings one."""
    clock = ManualClock()
    duck, _ = limited(start_duck, clock, capacity=20, refill_rate=200)
    asked = [duck.service.ask({"complete": ask_for("x")}, block=False) for _ in range(120)]

    def all_done() -> bool:
        return all(future.done for future in asked)

    while not all_done():
        eventually(lambda: duck.status().providers["gated"].limiter.waiting == 1 or all_done())
        clock.advance(0.005)
    assert {future.get(timeout=30).text for future in asked} == {"re: x"}
    assert 0.49 < clock.now() < 0.8


@pytest.mark.parametrize("victim", ["rate_limiter:gated", "request_queue"])
def test_who_is_held_back_is_not_forgotten_when_an_actor_dies(
    start_duck: StartDuck, eventually: Any, victim: str
) -> None:
    """A new limiter does not know who wanted to hear of its grants."""
    duck = start_duck({"gated": {"module": Gated}}, rate_limits={"gated": {"capacity": 1, "refill_rate": 20}})
    provider = duck.provider("gated")
    assert isinstance(provider, Gated)
    provider.open(1000)
    asked = [duck.service.ask({"complete": ask_for(str(n))}, block=False) for n in range(12)]
    for number in (2, 5):
        eventually(lambda at=number: len(provider.answered) >= at)
        duck.system.kill(duck.actor(victim))
    assert [future.get(timeout=30).text for future in asked] == [f"re: {n}" for n in range(12)]
    assert sorted(provider.answered) == sorted(str(n) for n in range(12))
