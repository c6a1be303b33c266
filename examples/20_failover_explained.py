"""Why did the answer come from there? Every call can say: what was considered, refused, tried, and paid.

The first provider is down. The call goes on to the second; its trace tells how it came to that.
"""

from __future__ import annotations

from rubberduck import RubberDuck

CONFIG = {
    "providers": {
        "near": {"module": "mock", "priority": 1, "responses": [{"error": "unreachable"}]},
        "far": {"module": "mock", "priority": 2, "responses": [{"content": "Good morning!"}]},
    },
    "models": {"smart": ["near/any", "far/any"]},
    "retry": {"base_delay": "10ms"},
    "prices": {"far/any": {"input": 1, "output": 2}},
    "ledger": {"path": ":memory:"},
}


def main() -> None:
    with RubberDuck.start(CONFIG) as duck:
        response = duck.complete({"model": "smart", "messages": [{"role": "user", "content": "Hello?"}]})
        print(response.text)
        print(duck.explain(response.request_id))
        steps = response.trace.as_dict()["steps"]
        print(f"{len(response.attempts)} attempts, {len(steps)} steps")


if __name__ == "__main__":
    main()
