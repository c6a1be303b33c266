"""What was spent, on what, when; and what nobody can tell.

Costs are kept attempt by attempt in a ledger, a SQLite file that survives the process. Money is Decimal.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from rubberduck import RubberDuck
from rubberduck.errors import RubberDuckError

PRICED = {"content": "Quack.", "usage": {"prompt_tokens": 1000, "completion_tokens": 500}}
LOST = {"error": "timeout"}  # it may have been answered, and billed, and nobody will ever say


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        config = {
            "providers": {"mock": {"responses": [PRICED, PRICED, LOST, PRICED]}},
            "prices": {"mock/large": {"input": 3, "output": 15}},  # USD per million tokens
            "retry": {"max_attempts": 1},
            "ledger": {"path": str(Path(folder) / "ledger.sqlite")},
        }
        with RubberDuck.start(config) as duck:
            for model in ("large", "large", "large", "unpriced"):
                ask(duck, model)
            summary = duck.costs("day")
        print(f"\ntoday: {summary.cost} USD for {summary.tokens} tokens")
        for (provider, model), share in summary.by_model.items():
            print(f"  {provider}/{model}: {share.calls} answers, {share.cost} USD")
        for hour, cost in summary.hourly.items():
            print(f"  {hour:%Y-%m-%d %H:00} UTC: {cost} USD")
        print(f"may have been spent besides: {summary.uncertain} USD at worst")
        print(f"attempts without a known price: {summary.unknown}")

        with RubberDuck.start(config) as again:
            print(f"\nafter a restart the ledger still says {again.costs().cost} USD")


def ask(duck: RubberDuck, model: str) -> None:
    try:
        request = {"model": model, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 500}
        print(f"{model}: cost {duck.complete(request).usage.cost}")
    except RubberDuckError as error:
        print(f"{model}: {type(error).__name__}, spent {error.spent}")


if __name__ == "__main__":
    main()
