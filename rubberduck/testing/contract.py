"""What every provider promises, as a class of tests: subclass it for one of your own and run pytest.

    from rubberduck.errors import RateLimited
    from rubberduck.testing import ProviderContract, contract

    class TestMine(ProviderContract):
        provider = Mine                     # the class, or its name in a configuration
        model = "mine-1"
        exchanges = [
            contract.answer("a quack", {"say": "Quack.", "in": 3, "out": 2},
                            text="Quack.", usage={"prompt_tokens": 3, "completion_tokens": 2}),
            contract.stream("a quack", 'data: {"say": "Qua"}\\n\\ndata: {"say": "ck."}\\n\\ndata: {"end": true}\\n\\n',
                            text="Quack."),
            contract.failure("too many", 429, {"why": "slow down"}, RateLimited, headers={"retry-after": "2"},
                             retry_after=2.0),
        ]

The exchanges are what your vendor's server says, beside what that means. They are replayed by a real server on this
machine, in pieces of one byte, of three, and whole; cut at every byte; and spoilt at random. Requests need no material:
what is sent for two dozen usual ones is looked at. A provider that asks no server gives no exchanges.

`TestMine.broken()` runs it without pytest and says what does not hold.
"""

from __future__ import annotations

from rubberduck.testing.contract_answers import AnswerPromises
from rubberduck.testing.contract_base import KEY
from rubberduck.testing.contract_exchanges import Answer, Exchange, answer, count, failure, stream, vectors
from rubberduck.testing.contract_requests import FIELDS, INTENTS, RequestPromises
from rubberduck.testing.contract_robustness import RobustnessPromises

__all__ = [
    "KEY", "ProviderContract", "Answer", "Exchange", "answer", "stream", "failure", "vectors", "count",
    "INTENTS", "FIELDS",
]  # fmt: skip


class ProviderContract(RequestPromises, AnswerPromises, RobustnessPromises):
    """The whole contract. Set `provider`, `model` and `exchanges`; override `make` where more is needed.

    `refuses` lists requests that must be refused, `options` what stands in the provider's configuration beside.
    """
