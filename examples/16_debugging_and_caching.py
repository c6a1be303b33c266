"""See what goes over the wire, without the keys in it; then answer the same question from memory.

`debug_llm_requests` and `debug_llm_responses` log whole requests and answers, so they are off unless asked for.
"""

from __future__ import annotations

import logging
import sys

from rubberduck import RubberDuck
from rubberduck.telemetry.logging import configure_logging
from rubberduck.testing import FaultServer, faults


def main() -> None:
    configure_logging(level="DEBUG", json=False, stream=sys.stdout)
    logging.getLogger("pykka").setLevel(logging.INFO)  # it would tell of every actor that starts and stops
    with FaultServer(faults.Ok("Quack.")) as server:
        config = {
            "providers": {
                "openai": {
                    "base_url": f"{server.base_url}/v1",
                    "api_key": "sk-a-very-secret-key",
                    "pool": {"size": 50, "idle": "30s"},
                    "timeout": "30s",
                }
            },
            "debug_llm_requests": True,
            "debug_llm_responses": True,
            "cache": {"ttl": "5m"},
            "prices": {"openai/gpt-4o": {"input": 2.5, "output": 10}},  # a server of one's own has prices of its own
            "ledger": {"path": ":memory:"},
        }
        with RubberDuck.start(config) as duck:
            question = {"role": "user", "content": "Is sk-a-very-secret-key a good key?"}
            for _ in range(3):
                response = duck.complete({"model": "gpt-4o", "messages": [question]})
                print(f"{response.text} cached: {response.cached}, cost: {response.usage.cost}")
        print(f"requests that reached the vendor: {len(server.calls)}")


if __name__ == "__main__":
    main()
