"""Two things run out: the account of one key, and the money of one tenant. Neither surprises anybody.

The vendor is pretended by a fault server on this machine, which refuses the first key: its account is used up.
"""

from __future__ import annotations

import logging

from rubberduck import RubberDuck
from rubberduck.errors import BudgetExceeded
from rubberduck.testing import FaultServer, faults

QUESTION = {"model": "gpt-4o", "messages": [{"role": "user", "content": "How are the ducks?"}], "max_tokens": 100}


def config(url: str) -> dict[str, object]:
    return {
        "providers": {"vendor": {"module": "openai", "base_url": f"{url}/v1", "api_keys": ["sk-first", "sk-second"]}},
        "prices": {"vendor/gpt-4o": {"input": 2.5, "output": 10}},  # USD per million tokens
        "budgets": {"*": {"limit": "1", "per": "day"}, "acme": {"limit": "0.002", "per": "hour"}},
        "ledger": {"path": ":memory:"},
    }


def main() -> None:
    logging.basicConfig(format="log: %(message)s")  # somebody has to pay a bill: that is said once, and plainly
    with FaultServer(faults.ByKey({"sk-first": faults.OutOfQuota()})) as vendor:
        with RubberDuck.start(config(vendor.base_url)) as duck:
            show(duck)
        print(f"requests with the first key: {sum(call.key == 'sk-first' for call in vendor.calls)}")


def show(duck: RubberDuck) -> None:
    response = duck.complete(QUESTION, tenant="acme")
    print([(attempt.key, attempt.outcome) for attempt in response.attempts])
    print(duck.status())

    answers = 1
    try:
        while True:  # before each attempt its worst case is set aside, so the limit is never passed
            duck.complete(QUESTION, tenant="acme")
            answers += 1
    except BudgetExceeded as error:
        print(f"\nafter {answers} answers: {error}")
    duck.complete(QUESTION, tenant="another")  # has a budget of its own
    for tenant, budget in duck.budgets().items():
        print(f"{tenant}: {budget}")
    print(f"\n{duck.costs('day')}")
    print(f"{duck.readmit_keys('vendor')} key is used again: its bill has been paid")


if __name__ == "__main__":
    main()
