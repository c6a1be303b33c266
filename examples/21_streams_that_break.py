"""A stream breaks off in the middle: what its reader sees of that is a choice, made for each call.

The first provider cuts every answer after some words; the second one can answer anew, or go on.
"""

from __future__ import annotations

from collections.abc import Mapping

from rubberduck import RubberDuck
from rubberduck.errors import StreamInterrupted

QUESTION = {"model": "any", "messages": [{"role": "user", "content": "What did the fox do?"}], "max_tokens": 100}
BROKEN = {"content": "The quick brown fox jumps over the dog.", "error": "cut", "after": 5}


def config(answer_of_the_second: str) -> dict[str, object]:
    return {
        "providers": {
            "first": {"module": "mock", "priority": 1, "responses": [BROKEN]},
            "second": {"module": "mock", "priority": 2, "responses": [{"content": answer_of_the_second}]},
        },
        "ledger": {"path": ":memory:"},
    }


def read(duck: RubberDuck, policy: str | Mapping[str, str]) -> None:
    """What a reader sees, a bar after each piece that has come."""
    print(f"{policy!s:24}", end=" ")
    try:
        with duck.stream(QUESTION, stream_policy=policy) as stream:
            for chunk in stream:
                if chunk.delta.content:
                    print(chunk.delta.content, end="|")
        answer = stream.response
        assert answer is not None
        tried = ", ".join(f"{each.provider} {each.outcome}" for each in answer.attempts)
        print(f"   {'spliced' if answer.spliced else 'whole'}: {tried}")
    except StreamInterrupted as error:
        print(f"   {type(error).__name__}; error.text is {error.text!r}")


def main() -> None:
    with RubberDuck.start(config("It jumped over the dog.")) as duck:
        read(duck, "error")  # the default: what has been shown cannot be taken back, so somebody has to know
        read(duck, "buffer")  # nothing is shown before its end: another route answers, and nobody has noticed
        read(duck, {"buffer": "2 tokens"})  # only the beginning is held back: too little here
    with RubberDuck.start(config(" over the dog.")) as duck:
        read(duck, "continue")  # the second is given what has come, and goes on


if __name__ == "__main__":
    main()
