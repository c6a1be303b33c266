"""Who goes first, who is turned away, and how much a provider is sent.

One slot at the provider makes the order visible: the urgent call overtakes those that wait already.
"""

from __future__ import annotations

import time
from typing import Any

from rubberduck import RubberDuck
from rubberduck.errors import RubberDuckError

CONFIG = {
    "providers": {"mock": {"responses": [{"content": "Quack.", "delay": "50ms"}]}},
    "rate_limits": {"mock": {"max_concurrency": 1}},
    "max_queue_size": 4,
    "ledger": {"path": ":memory:"},
}


def request(text: str) -> dict[str, Any]:
    return {"model": "any", "messages": [{"role": "user", "content": text}]}


def priorities() -> None:
    with RubberDuck.start(CONFIG) as duck:
        futures = [duck.service.ask({"complete": request("in flight")}, block=False)]
        while not duck.provider("mock").calls:
            time.sleep(0.005)
        for text, priority in (("later", "low"), ("later still", "low"), ("patient", "low"), ("urgent", "high")):
            futures.append(duck.service.ask({"complete": request(text), "priority": priority}, block=False))
        try:
            duck.complete(request("one too many"))
        except RubberDuckError as error:
            print(f"{type(error).__name__}: {error}; try again in {error.retry_after or 0:.1f} s")
        for future in futures:
            future.get(timeout=10)
        print("order at the provider:", [call.request.messages[-1].text for call in duck.provider("mock").calls])


def limits() -> None:
    config = {
        "providers": {"mock": {}},
        "rate_limits": {"mock": {"capacity": 3, "refill_rate": 20}},  # a burst of 3, then 20 a second
        "ledger": {"path": ":memory:"},
    }
    with RubberDuck.start(config) as duck:
        duck.complete(request("warm up"))
        begun = time.monotonic()
        futures = [duck.service.ask({"complete": request(str(number))}, block=False) for number in range(12)]
        for future in futures:
            future.get(timeout=10)
        print(f"12 calls through a bucket of 3 that refills at 20/s took {time.monotonic() - begun:.2f} s; none failed")


if __name__ == "__main__":
    priorities()
    limits()
