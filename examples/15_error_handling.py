"""What can go wrong with a call, by name, and what each error tells: may it be tried again, when, and what it cost.

Errors are one tree, drawn in `rubberduck.errors`: catch as much of it as you can handle.
"""

from __future__ import annotations

from rubberduck import RubberDuck
from rubberduck.errors import (
    InvalidRequest,
    NoAvailableProvider,
    ProviderError,
    ProviderTimeout,
    QuotaExceeded,
    RubberDuckError,
)

FAILURES = ("timeout", "overloaded", "context_length", "quota", "auth")
# The account that is used up is left alone afterwards: the last of them is not even asked for.
CONFIG = {
    "providers": {"mock": {"models": ["any"], "responses": [{"error": kind} for kind in FAILURES]}},
    "retry": {"max_attempts": 1},
    "ledger": {"path": ":memory:"},
}


def what_to_do(error: RubberDuckError) -> str:
    match error:
        case QuotaExceeded():
            return "top the account up"
        case InvalidRequest():
            return "mend the request"
        case ProviderTimeout():
            return "it may have been answered and billed: ask again only if that does no harm"
        case NoAvailableProvider():
            return f"nobody was asked: {error.reasons}; come back in {error.retry_after or 0:.0f} s"
        case ProviderError() if error.retryable:
            return "ask again a little later"
        case _:
            return "tell somebody"


def main() -> None:
    with RubberDuck.start(CONFIG) as duck:
        for model in [*["any"] * len(FAILURES), "unheard-of"]:
            try:
                duck.complete({"model": model, "messages": [{"role": "user", "content": "Hi"}]})
            except RubberDuckError as error:
                print(f"{type(error).__name__}: {error}")
                print(f"  retryable {error.retryable}, spent {error.spent}, so: {what_to_do(error)}")
        try:
            duck.complete({"model": "any", "mesages": []})
        except InvalidRequest as error:
            print(f"{type(error).__name__} in {error.field!r}: {error}")


if __name__ == "__main__":
    main()
