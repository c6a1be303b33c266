"""An answer piece by piece, and what a stream does that ends too early.

A stream that breaks off raises, and says what had come by then; it never looks like a whole answer.
"""

from __future__ import annotations

from rubberduck import RubberDuck
from rubberduck.errors import StreamInterrupted

CONFIG = {
    "providers": {
        "mock": {
            "responses": [
                {"content": "Each actor has a mailbox and handles one message at a time.", "chunk_delay": "20ms"},
                {"content": "This one breaks off before it is", "error": "cut", "after": 4},
            ]
        }
    },
    "ledger": {"path": ":memory:"},
}
REQUEST = {"model": "any", "messages": [{"role": "user", "content": "Explain the actor model."}]}


def main() -> None:
    with RubberDuck.start(CONFIG) as duck:
        with duck.stream(REQUEST) as stream:
            for chunk in stream:
                print(chunk.delta.content, end="", flush=True)
        assert stream.usage is not None  # it is there once the stream has ended
        print(f"\n[{stream.provider}: {stream.usage.completion_tokens} tokens]\n")

        try:
            with duck.stream(REQUEST) as stream:
                for chunk in stream:
                    print(chunk.delta.content, end="", flush=True)
        except StreamInterrupted as error:
            print(f"\n[{error}; it had said {error.text!r}]")


if __name__ == "__main__":
    main()
