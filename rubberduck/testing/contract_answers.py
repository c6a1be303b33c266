"""The part of a provider's contract about what it reads: recorded answers mean what they say, over a real socket."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from rubberduck.errors import ProtocolError, StreamInterrupted
from rubberduck.providers.base import Provider
from rubberduck.providers.http import HTTPProvider
from rubberduck.testing.contract_base import KEY, Promises, Reading, asked, cut, read_pieces, run, then_closed
from rubberduck.testing.contract_exchanges import EVENTS, JSON, Exchange, faults_of
from rubberduck.testing.exchange import Behaviour, Call, Reply
from rubberduck.testing.fault_server import FaultServer
from rubberduck.testing.faults import Raw
from rubberduck.types import EmbeddingRequest, FinishReason

SIZES = (1, 3, None)
"""How the body is cut into pieces, in bytes; None leaves it whole."""
MOST_PREFIXES = 600
SOCKET_PREFIXES = 6
RUBBISH = (
    b"",
    b"null",
    b"[]",
    b"{}",
    b"OK",
    b"<html><body>Bad Gateway</body></html>",
    b'{"status": "ok"}',
    b"\xff\xfe{",
)


@dataclass(frozen=True, slots=True)
class Broken:
    """The first bytes of an answer; then the line is closed, or the body ended as if that were all, or nothing."""

    headers: Mapping[str, str]
    body: bytes
    then: str

    async def answer(self, call: Call, reply: Reply) -> None:
        await reply.head(200, self.headers)
        if self.body:
            await reply.body(self.body)
        if self.then == "hang up":
            reply.hang_up()
        elif self.then == "end":
            await reply.end()
        else:
            await reply.wait()


class AnswerPromises(Promises):
    """What holds for every answer that its server gives."""

    def test_there_is_an_exchange_of_each_kind(self) -> None:
        """For who asks over HTTP: an answer, a stream and a failure, and what else it offers."""
        with self.made() as provider:
            if not isinstance(provider, HTTPProvider):
                return
            wanted = {"answer", "stream"} | {kind for kind in provider.offers if kind in ("embeddings", "count")}
        missing = sorted(kind for kind in wanted if not self.of(kind))
        self.promise(not missing, f"there is no exchange for: {', '.join(missing)}")
        self.promise(any(each.is_failure for each in self.exchanges), "there is no exchange that fails")

    def test_a_whole_answer_means_what_it_says(self) -> None:
        for exchange in self.of("answer"):
            self._means(exchange, streamed=False)

    def test_a_stream_means_what_it_says(self) -> None:
        for exchange in self.of("stream"):
            self._means(exchange, streamed=True)

    def test_a_server_that_does_not_stream_is_understood(self) -> None:
        """A whole answer where a stream was asked for."""
        for exchange in self.of("answer"):
            [reading] = self._replayed(exchange, Raw(200, JSON, exchange.body), streamed=True)
            self._holds(exchange, reading, "as the answer to a stream")

    def test_every_failure_has_its_class(self) -> None:
        for exchange in self.of("answer", "stream", failures=True):
            inside = exchange.kind == "stream"
            for streamed in (True,) if inside else (False, True):
                for reading in self._replayed(exchange, *_raws(exchange), streamed=streamed):
                    self._failed(exchange, reading)

    def test_a_stream_that_is_cut_is_never_a_short_answer(self) -> None:
        for exchange in self.of("stream"):
            self._prefixes_decoded(exchange)
            self._prefixes_over_sockets(exchange)

    def test_what_is_no_answer_is_told_so(self) -> None:
        for exchange in [*self.of("answer")[:1], *self.of("stream")[:1]]:
            streamed = exchange.kind == "stream"
            scripts = [Raw(200, exchange.headers, body) for body in RUBBISH]
            for body, reading in zip(RUBBISH, self._replayed(exchange, *scripts, streamed=streamed), strict=True):
                known = isinstance(reading.error, ProtocolError | StreamInterrupted)
                self.promise(known, f"{body!r} under 200, {exchange.kind}: {reading!r} is no ProtocolError")

    def test_two_streams_at_once_do_not_mix(self) -> None:
        streams = self.of("stream")
        for exchange in streams[:1]:
            body = exchange.body
            with FaultServer(Raw(200, exchange.headers, body, 7)) as server:
                provider = self.make(server.base_url)
                readings = run(then_closed(provider, self._at_once(provider, 4)))
            for reading in readings:
                self._holds(exchange, reading, "beside three others")

    def test_giving_a_stream_up_closes_its_connection(self) -> None:
        for exchange in self.of("stream")[:1]:
            with FaultServer(Broken(exchange.headers, exchange.body[: len(exchange.body) * 2 // 3], "wait")) as server:
                provider = self.make(server.base_url)
                run(then_closed(provider, self._given_up(provider, server)))

    def test_the_key_is_sent_and_never_told(self) -> None:
        """The worst server quotes it in its error."""
        for exchange in self.of("answer")[:1]:
            body = f'{{"error": {{"message": "bad key {KEY}", "type": "x"}}, "message": "bad key {KEY}"}}'.encode()
            readings = self._replayed(exchange, Raw(401, JSON, body), Raw(400, JSON, body), streamed=False)
            for error in (reading.error for reading in readings):
                told = f"{error} {error!r} {vars(error) if error else ''}"
                self.promise(error is not None, "an answer of status 401 is no error")
                self.promise(KEY not in told, f"the key stands in the error: {told}")
        with self.made() as provider:
            self.promise(KEY not in repr(provider), "the key stands in the provider's repr")

    def test_embeddings_are_in_the_order_of_the_texts(self) -> None:
        for exchange in self._offered("embeddings"):
            request = EmbeddingRequest.parse(
                {"model": self.model, "input": [f"text {n}" for n, _ in enumerate(exchange.means)]}
            )
            with FaultServer(Raw(200, exchange.headers, exchange.body)) as server:
                provider = self.make(server.base_url)
                told = run(then_closed(provider, provider.embed(request)))
            self.promise(len(told.vectors) == len(exchange.means), f"{exchange.name}: {len(told.vectors)} vectors")
            for due, got in zip(exchange.means, told.vectors, strict=True):
                near = len(due) == len(got) and all(abs(a - b) < 1e-6 for a, b in zip(due, got, strict=True))
                self.promise(near, f"{exchange.name}: the vector {got} is not {due}")
            self.promise(not faults_of(told.usage), f"{exchange.name}: {faults_of(told.usage)}")

    def test_tokens_are_counted_as_the_server_says(self) -> None:
        for exchange in self._offered("count"):
            with FaultServer(Raw(200, exchange.headers, exchange.body)) as server:
                provider = self.make(server.base_url)
                told = run(then_closed(provider, provider.count(self.ask())))
            self.promise(told.tokens == exchange.means, f"{exchange.name}: {told.tokens} tokens, not {exchange.means}")

    # --- how it is held to that

    def _offered(self, kind: Literal["embeddings", "count"]) -> list[Exchange]:
        with self.made() as provider:
            return self.of(kind) if kind in provider.offers else []

    def _means(self, exchange: Exchange, *, streamed: bool) -> None:
        readings = self._replayed(exchange, *_raws(exchange), streamed=streamed)
        for size, reading in zip(SIZES, readings, strict=True):
            self._holds(exchange, reading, f"in pieces of {size or 'all'} bytes")
            if streamed and reading.error is None:
                self._well_formed(exchange, reading)

    def _holds(self, exchange: Exchange, reading: Reading, how: str) -> None:
        if reading.error is not None:
            raise AssertionError(f"{exchange.name}, {how}: {reading.error!r}") from reading.error
        response = reading.response
        wrong = exchange.means.differences(response) + faults_of(response.usage)
        reasons = [choice.finish_reason for choice in response.choices]
        wrong += [f"{reason!r} is no FinishReason" for reason in reasons if not isinstance(reason, FinishReason)]
        self.promise(not wrong, f"{exchange.name}, {how}: {'; '.join(wrong)}")

    def _well_formed(self, exchange: Exchange, reading: Reading) -> None:
        """What whoever reads the chunks relies on, beside what they add up to."""
        finished = [chunk for chunk in reading.chunks if chunk.finish_reason is not None]
        told = [chunk for chunk in reading.chunks if chunk.usage is not None]
        self.promise(bool(finished), f"{exchange.name}: no chunk has a finish reason")
        last = bool(told) and reading.chunks[-1].usage is not None
        self.promise(last, f"{exchange.name}: the last chunk carries no usage")

    def _failed(self, exchange: Exchange, reading: Reading) -> None:
        error = reading.error
        if error is None:
            raise AssertionError(f"{exchange.name}: no error, but {reading.response!r}")
        exact = type(error) is exchange.means
        self.promise(exact, f"{exchange.name}: {type(error).__name__} ({error}), not {exchange.means.__name__}")
        due_status = {} if exchange.kind == "stream" else {"status": exchange.status}
        for name, due in {**due_status, **exchange.details}.items():
            got = getattr(error, name, None)
            self.promise(got == due, f"{exchange.name}: {name} of the error is {got!r}, not {due!r}")
        self.promise(bool(error.provider and error.model), f"{exchange.name}: the error names no provider or no model")

    def _replayed(self, exchange: Exchange, *script: Behaviour, streamed: bool) -> list[Reading]:
        """What the provider makes of each answer of a script, asked one after the other."""

        async def story(provider: Provider) -> list[Reading]:
            return [await asked(provider, self.ask(), streamed=streamed) for _ in script]

        with FaultServer(*script) as server:
            provider = self.make(server.base_url)
            return run(then_closed(provider, story(provider)))

    def _prefixes_decoded(self, exchange: Exchange) -> None:
        with self.made() as provider:
            if not isinstance(provider, HTTPProvider):
                return
            body = exchange.body
            for length in _spread(len(body), MOST_PREFIXES):
                reading = read_pieces(provider.stream_decoder(), cut(body[:length], None))
                self._is_no_short_answer(exchange, reading, f"cut after {length} bytes")

    def _prefixes_over_sockets(self, exchange: Exchange) -> None:
        lengths = _spread(len(exchange.body), SOCKET_PREFIXES)
        for then in ("hang up", "end"):
            script = [Broken(EVENTS | dict(exchange.headers), exchange.body[:length], then) for length in lengths]
            for length, reading in zip(lengths, self._replayed(exchange, *script, streamed=True), strict=True):
                self._is_no_short_answer(exchange, reading, f"cut after {length} bytes, then {then}")

    def _is_no_short_answer(self, exchange: Exchange, reading: Reading, how: str) -> None:
        if reading.error is None:
            wrong = [each for each in exchange.means.differences(reading.response) if not each.startswith("usage")]
            self.promise(not wrong, f"{exchange.name}, {how}: taken for a whole answer although {'; '.join(wrong)}")
            return
        known = isinstance(reading.error, StreamInterrupted | ProtocolError)
        self.promise(known or not reading.chunks, f"{exchange.name}, {how}: {reading.error!r} is no StreamInterrupted")
        if isinstance(reading.error, StreamInterrupted) and reading.error.text:
            begun = exchange.means.text.startswith(reading.error.text)
            self.promise(begun, f"{exchange.name}, {how}: the error's text is {reading.error.text!r}")

    async def _at_once(self, provider: Provider, number: int) -> list[Reading]:
        return list(await asyncio.gather(*(asked(provider, self.ask(), streamed=True) for _ in range(number))))

    async def _given_up(self, provider: Provider, server: FaultServer) -> None:
        stream = provider.stream(self.ask())
        await anext(stream)
        await stream.aclose()
        await server.until(lambda calls: calls and calls[0].disconnected_at is not None)
        reading = asyncio.ensure_future(asked(provider, self.ask(), streamed=True))
        await server.until(lambda calls: len(calls) > 1 and calls[1].bytes_sent > 0)
        reading.cancel()
        await asyncio.wait([reading])
        await server.until(lambda calls: calls[1].disconnected_at is not None)


def _raws(exchange: Exchange) -> list[Raw]:
    return [Raw(exchange.status, exchange.headers, exchange.body, size) for size in SIZES]


def _spread(length: int, most: int) -> list[int]:
    """Numbers from 0 to below `length`, all of them or so many."""
    step = max(1, -(-length // most))
    return list(range(0, length, step))
