"""The smallest use: a question, an answer, and what it cost.

Without a configuration the provider is the mock: it needs no key and no network and repeats what it is told.
"""

from __future__ import annotations

from rubberduck import RubberDuck


def main() -> None:
    with RubberDuck.start() as duck:
        request = {"model": "any", "messages": [{"role": "user", "content": "Hello, duck!"}]}
        response = duck.complete(request)
        print(response.text)
        print(f"answered by {response.provider}, {response.usage.total_tokens} tokens, cost {response.usage.cost}")
        print("(a cost of None means that nobody knows the price; it is never shown as 0)")
        print()
        print("The tree that was behind it:")
        print(duck.tree())


if __name__ == "__main__":
    main()
