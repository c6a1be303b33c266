"""Kill every actor of the tree, one after the other, while calls are in flight: each call is answered, once.

Then the ledger is held against the provider's own log.
"""

from __future__ import annotations

import logging
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rubberduck import RubberDuck
from rubberduck.errors import RubberDuckError

CONFIG = {
    "providers": {"mock": {"responses": [{"content": "Quack.", "tokens": 10, "delay": "60ms"}]}},
    "prices": {"mock/any": {"input": 1, "output": 2}},
}
VICTIMS = ("service", "request_queue", "rate_limiter:mock", "circuit_breaker:mock", "cost_tracker", "calls")


def ask(duck: RubberDuck, number: int) -> str:
    request = {"model": "any", "messages": [{"role": "user", "content": f"question {number}"}]}
    try:
        return duck.complete(request).text
    except RubberDuckError as error:
        return type(error).__name__


def main() -> None:
    logging.getLogger("supervision").setLevel(logging.CRITICAL)  # it would log each death
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(8) as pool:
        config = {**CONFIG, "ledger": {"path": str(Path(folder) / "ledger.sqlite")}}
        with RubberDuck.start(config) as duck:
            mock = duck.provider("mock")
            for victim in VICTIMS:
                asked = [pool.submit(ask, duck, number) for number in range(8)]
                while not any(call.outcome == "pending" for call in mock.calls):
                    time.sleep(0.002)
                duck.system.kill(duck.actor(victim))
                answers = [each.result(timeout=30) for each in asked]
                print(f"{victim:<22} killed; 8 calls answered: {sorted(set(answers))}")
            print()
            print(duck.tree())
            costs = duck.costs()
        billed = sum(call.usage.total_tokens for call in mock.calls if call.usage is not None)
        print(f"\nthe provider billed {billed} tokens, the ledger has {costs.tokens}")
        print(f"the calls that died with their task may have cost {costs.uncertain} USD; nobody can know")


if __name__ == "__main__":
    main()
