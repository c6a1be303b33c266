"""Who goes first, who is turned away, and how much a provider is sent.

One slot at the provider makes the order visible: the urgent call overtakes those that wait already. The provider is a
fault server, which holds its first answer back until all others wait.
"""

from __future__ import annotations

import time
from typing import Any

from rubberduck import RubberDuck
from rubberduck.errors import RubberDuckError
from rubberduck.testing import FaultServer, faults


def request(text: str) -> dict[str, Any]:
    return {"model": "any", "messages": [{"role": "user", "content": text}]}


def config_with(server: FaultServer) -> dict[str, Any]:
    """One call at a time, and room for four that wait."""
    return {
        "providers": {"openai": {"base_url": server.base_url, "api_key": "sk-1"}},
        "rate_limits": {"openai": {"max_concurrency": 1}},
        "max_queue_size": 4,
        "ledger": {"path": ":memory:"},
    }


def priorities() -> None:
    with FaultServer(faults.Hold()) as server, RubberDuck.start(config_with(server)) as duck:
        futures = [duck.service.ask({"complete": request("in flight")}, block=False)]
        server.wait_for(lambda calls: calls)
        for text, priority in (("later", "low"), ("later still", "low"), ("patient", "low"), ("urgent", "high")):
            futures.append(duck.service.ask({"complete": request(text), "priority": priority}, block=False))
        try:
            duck.complete(request("one too many"))
        except RubberDuckError as error:
            print(f"{type(error).__name__}: {error}; try again in {error.retry_after or 0:.1f} s")
        server.release()
        for future in futures:
            future.get(timeout=30)
        print("order at the provider:", [call.json["messages"][-1]["content"] for call in server.calls])


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
            future.get(timeout=30)
        print(f"12 calls through a bucket of 3 that refills at 20/s took {time.monotonic() - begun:.2f} s; none failed")


if __name__ == "__main__":
    priorities()
    limits()
