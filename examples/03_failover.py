"""One name for two vendors: when the first is down the second answers, and the first is left alone for a while.

The vendors are pretended by two fault servers, real HTTP servers on this machine that fail as they are told to.
"""

from __future__ import annotations

import time
from typing import Any

from rubberduck import RubberDuck
from rubberduck.testing import FaultServer, faults

REQUEST = {"model": "smart", "messages": [{"role": "user", "content": "Are you there?"}], "max_tokens": 50}


def config(openai_url: str, anthropic_url: str) -> dict[str, Any]:
    return {
        "providers": {
            "primary": {"module": "openai", "base_url": openai_url, "api_key": "sk-1", "priority": 1},
            "fallback": {"module": "anthropic", "base_url": anthropic_url, "api_key": "sk-2", "priority": 2},
        },
        "models": {"smart": ["primary/gpt-4o", "fallback/claude-sonnet-4-5"]},
        "circuit_breaker": {"failure_threshold": 2, "reset_timeout": "3s", "success_threshold": 1},
        "retry": {"base_delay": "10ms"},
        "ledger": {"path": ":memory:"},
    }


def main() -> None:
    with FaultServer(faults.Status(503)) as openai, FaultServer(faults.Ok("The fallback is.")) as anthropic:
        duck = RubberDuck.start(config(f"{openai.base_url}/v1", anthropic.base_url))
        with duck:
            show(duck, openai)


def show(duck: RubberDuck, openai: FaultServer) -> None:
    for number in (1, 2, 3):
        ask(duck, number)
    print(f"breaker of primary: {duck.status().providers['primary'].state}")
    print(f"requests that reached the broken vendor: {len(openai.calls)}")

    openai.play(faults.Ok("The primary is back."))
    print("\nThe vendor is well again; after its reset_timeout the breaker lets one call through.")
    while ask(duck, number := number + 1) != "primary":
        time.sleep(1)
    print(f"breaker of primary: {duck.status().providers['primary'].state}")


def ask(duck: RubberDuck, number: int) -> str:
    response = duck.complete(REQUEST)
    way = " -> ".join(f"{each.provider} {each.outcome}" for each in response.attempts)
    print(f"question {number}: {response.text:<22} {way}")
    return response.provider


if __name__ == "__main__":
    main()
