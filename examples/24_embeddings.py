"""Turn texts into vectors, as many as you have, and know beforehand how many tokens a request is.

Both go the way of every call: queue, limits, circuit breaker, retries, failover, and a row in the ledger.
"""

from __future__ import annotations

from rubberduck import RubberDuck

CONFIG = {
    "providers": {
        "near": {"module": "mock", "priority": 1, "responses": [{"error": "unreachable"}]},
        "far": {"module": "mock", "priority": 2},
    },
    "models": {"vectors": ["near/small", "far/small"]},
    "prices": {"small": {"input": 0.02, "output": 0}},
    "ledger": {"path": ":memory:"},
    "retry": {"base_delay": "1ms", "max_delay": "2ms"},
}
SENTENCES = [f"Duck number {number} goes for a swim." for number in range(5000)]


def main() -> None:
    with RubberDuck.start(CONFIG) as duck:
        answer = duck.embed({"model": "vectors", "input": SENTENCES, "dimensions": 8})
        # A provider takes 2,048 texts at a time: one call, three requests, one bill.
        outcomes = [f"{each.provider} {each.outcome}" for each in answer.attempts]
        print(f"{len(answer.vectors)} vectors of {len(answer.vectors[0])} numbers; {outcomes}")
        print(f"{answer.usage.prompt_tokens} tokens, {answer.usage.cost} USD; the ledger says {duck.costs().cost} USD")

        again = duck.embed({"model": "vectors", "input": SENTENCES[:2], "dimensions": 8})
        print(f"same text, same vector: {again.vectors == answer.vectors[:2]}")
        print(f"how near the first two are: {cosine(*again.vectors):.3f}")

        question = {"model": "far/small", "messages": [{"role": "user", "content": "How many tokens is this?"}]}
        count = duck.count_tokens(question)
        print(f"{count.tokens} tokens, says {count.provider}; estimated: {count.estimated}")
        print(duck.costs())


def cosine(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    """How much two vectors of length 1 point the same way."""
    return sum(a * b for a, b in zip(one, other, strict=True))


if __name__ == "__main__":
    main()
