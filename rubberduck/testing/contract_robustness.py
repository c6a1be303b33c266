"""The part of a provider's contract about what nobody planned: no answer, however spoilt, leaves the error tree."""

from __future__ import annotations

import random
from decimal import Decimal
from typing import ClassVar

from rubberduck.errors import RubberDuckError
from rubberduck.providers.base import Provider
from rubberduck.providers.http import HTTPProvider
from rubberduck.testing.contract_base import (
    NOWHERE,
    Promises,
    Reading,
    asked,
    cut,
    read_pieces,
    read_whole,
    run,
    then_closed,
)
from rubberduck.testing.contract_exchanges import Exchange, faults_of
from rubberduck.testing.damage import damaged, pieces
from rubberduck.types import EmbeddingRequest, FinishReason, Usage

_BODIES = (
    b"", b"{}", b"[]", b"null", b"<html>", b"\xff", b'{"error": null}', b'{"error": []}', b'{"error": {"message": 5}}',
    b'{"error": {"code": {}, "type": []}}', b'{"detail": [{"msg": 1}]}', b"[" * 100_000,
    b'{"error": "' + b"x" * 9999 + b'"}',
)  # fmt: skip
_STATUSES = (
    100,
    200,
    204,
    301,
    304,
    400,
    401,
    402,
    403,
    404,
    408,
    409,
    413,
    418,
    422,
    429,
    499,
    500,
    502,
    503,
    529,
    599,
    999,
)
_HEADERS: tuple[dict[str, str], ...] = (
    {},
    {"retry-after": "soon", "x-request-id": "", "x-should-retry": "maybe"},
    {"retry-after": "-1e999"},
)


class RobustnessPromises(Promises):
    """What holds whatever the server says, and of the callbacks that ask no server."""

    tries: ClassVar[int] = 150
    """How often each exchange is spoilt."""

    def test_spoilt_answers_stay_within_the_error_tree(self) -> None:
        with self.made() as provider:
            if isinstance(provider, HTTPProvider):
                for exchange in self.of("answer"):
                    for number in range(self.tries):
                        body = damaged(exchange.body, random.Random(number))
                        self._sane(exchange, body, read_whole(provider, exchange, body))

    def test_spoilt_streams_stay_within_the_error_tree_however_they_are_cut(self) -> None:
        with self.made() as provider:
            if isinstance(provider, HTTPProvider):
                for exchange in self.of("stream"):
                    for number in range(self.tries):
                        self._spoilt_stream(provider, exchange, random.Random(number))

    def test_every_failure_can_be_classified(self) -> None:
        with self.made() as provider:
            if isinstance(provider, HTTPProvider):
                for status in _STATUSES:
                    for body in _BODIES:
                        for headers in _HEADERS:
                            error = provider.classify(status, headers, body)
                            known = isinstance(error, RubberDuckError)
                            self.promise(known, f"classify of {status} and {body[:50]!r} gives {error!r}")

    def test_models_tokens_and_prices_are_answered_for(self) -> None:
        with self.made() as provider:
            self.promise(provider.supports_model(self.model) is True, f"it does not have its model {self.model!r}")
            for name in ("", "x" * 500, "🦆"):
                told = provider.supports_model(name)
                self.promise(isinstance(told, bool), f"supports_model({name[:9]!r}) is {told!r}")
            run(provider.ready_to_count(self.model))
            for text in ("", "quack", "quack " * 50, "🦆\u2028\x00", "<|endoftext|>"):
                number = provider.count_tokens(text, self.model)
                self.promise(isinstance(number, int) and number >= 0, f"count_tokens({text[:9]!r}) is {number!r}")
            self.promise(
                provider.count_tokens("quack " * 50, self.model) > provider.count_tokens("quack", self.model),
                "a long text has no more tokens than a short one",
            )
            for usage in (Usage(), Usage(1000, 1000), Usage(10**12, 0, cached_tokens=10**12)):
                cost = provider.estimate_cost(usage, self.model)
                priced = cost is None or (isinstance(cost, Decimal) and cost >= 0)
                self.promise(priced, f"estimate_cost of {usage} is {cost!r}")

    def test_what_it_does_not_offer_is_refused(self) -> None:
        with self.made() as provider:
            offers = provider.offers
        self.promise("chat" in offers and offers <= {"chat", "embeddings", "count"}, f"it offers {sorted(offers)}")
        for kind in {"embeddings", "count"} - offers:
            self.promise(run(self._refuses(kind)), f"it offers no {kind}, but does not refuse what asks for them")

    def test_an_answer_and_its_stream_say_the_same(self) -> None:
        """For who asks no server: others have the exchanges for it."""
        with self.made() as provider:
            if isinstance(provider, HTTPProvider):
                return
        provider = self.make(NOWHERE)
        whole, streamed = run(then_closed(provider, self._both(provider)))
        for reading in (whole, streamed):
            if reading.error is not None:
                raise AssertionError(f"asked for a quack: {reading.error!r}") from reading.error
            self._sane(None, b"", reading)
        one, other = (each.response.choices[0] for each in (whole, streamed))
        self.promise(
            one.message.text == other.message.text, f"{one.message.text!r} as a stream: {other.message.text!r}"
        )
        self.promise(
            one.finish_reason == other.finish_reason, f"{one.finish_reason} as a stream: {other.finish_reason}"
        )
        self.promise(streamed.chunks[-1].usage is not None, "the last chunk carries no usage")

    # --- how it is held to that

    def _sane(self, exchange: Exchange | None, body: bytes, reading: Reading) -> None:
        if reading.error is None:
            response = reading.response
            wrong = faults_of(response.usage)
            wrong += [
                f"{c.finish_reason!r} is no FinishReason" for c in response.choices if not _is_reason(c.finish_reason)
            ]
            wrong += [] if response.choices else ["there is no choice"]
            name = exchange.name if exchange else "a quack"
            self.promise(not wrong, f"{name}, spoilt as {body[:2000]!r}: {'; '.join(wrong)}")

    def _spoilt_stream(self, provider: HTTPProvider, exchange: Exchange, dice: random.Random) -> None:
        body = damaged(exchange.body, dice)
        reading = read_pieces(provider.stream_decoder(), cut(body, None))
        again = read_pieces(provider.stream_decoder(), pieces(body, dice))
        same = again == reading
        self.promise(same, f"{exchange.name}: {body[:2000]!r} reads {reading!r} whole, in pieces {again!r}")
        self._sane(exchange, body, reading)

    async def _refuses(self, kind: str) -> bool:
        provider = self.make(NOWHERE)
        try:
            if kind == "embeddings":
                await provider.embed(EmbeddingRequest.parse({"model": self.model, "input": ["a"]}))
            else:
                await provider.count(self.ask())
        except RubberDuckError:
            return True
        finally:
            await provider.aclose()
        return False

    async def _both(self, provider: Provider) -> tuple[Reading, Reading]:
        whole = await asked(provider, self.ask(), streamed=False)
        return whole, await asked(provider, self.ask(), streamed=True)


def _is_reason(reason: object) -> bool:
    return isinstance(reason, FinishReason)
