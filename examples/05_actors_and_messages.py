"""The parts of RubberDuck are actors: ask them, in the words of their messages.

Every method of the duck has its message. A name leads to whoever bears it now, so a ref stays good after a restart.
"""

from __future__ import annotations

from rubberduck import RubberDuck, Usage
from rubberduck.actors import circuit_breaker, cost_tracker, rate_limiter, request_queue
from rubberduck.errors import NoAvailableProvider

CONFIG = {
    "providers": {"mock": {"responses": [{"content": "Quack.", "tokens": 100}]}},
    "rate_limits": {"mock": {"capacity": 3, "refill_rate": 0.1}},
    "prices": {"mock/any": {"input": 1, "output": 2}},  # USD per million tokens
    "ledger": {"path": ":memory:"},
}
REQUEST = {"model": "any", "messages": [{"role": "user", "content": "Hi"}]}


def main() -> None:
    with RubberDuck.start(CONFIG) as duck:
        print("service:", duck.service.ask({"complete": REQUEST}).text)
        future = duck.service.ask({"complete": REQUEST, "priority": "high", "timeout": 30}, block=False)
        print("service, later:", future.get(timeout=30).text)

        breaker = duck.actor("circuit_breaker:mock")
        print("breaker:", breaker.ask(circuit_breaker.GetState()))
        breaker.ask(circuit_breaker.ForceOpen())
        try:
            duck.complete(REQUEST)
        except NoAvailableProvider as error:
            print(f"forced open: {error}")
        breaker.ask(circuit_breaker.Reset())

        limiter = duck.actor("rate_limiter:mock")
        print("limiter, one more:", type(limiter.ask(rate_limiter.CheckRate())).__name__)
        refusal = limiter.ask(rate_limiter.CheckRate())
        print(f"limiter, and another: {type(refusal).__name__}, again in {refusal.retry_after:.1f} s")

        queue = duck.actor("request_queue")
        queue.ask(request_queue.Enqueue("a request that can wait", priority="low"))
        queue.ask(request_queue.Enqueue("a request that cannot", priority="high"))
        print("queue:", queue.ask(request_queue.ProcessNext()).request)
        print("queue:", queue.ask(request_queue.Stats()).depth)

        tracker = duck.actor("cost_tracker")
        print("tracker:", tracker.ask(cost_tracker.Track("mock", "any", Usage(1000, 500))), "USD for another's call")
        print("tracker:", tracker.ask(cost_tracker.GetSummary("day")).cost, "USD today")


if __name__ == "__main__":
    main()
