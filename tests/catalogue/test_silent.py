"""The provider says nothing, or stops saying anything, or never ends; and the caller who does not wait for it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from tests_upstreams_rig import (
    BOTH_DIALECTS,
    BOTH_VERBS,
    LATENESS,
    LIMIT,
    REQUEST,
    Pair,
    Upstreams,
    attempts,
    wait_until,
)

from rubberduck.core.ledger import State
from rubberduck.errors import DeadlineExceeded, ProviderTimeout, RubberDuckError, StreamInterrupted
from rubberduck.testing import Behaviour, Call, Reply, dialects
from rubberduck.testing.faults import TEXT, Drip, Hold, Ok, Silence, Stall, Status
from supervision.testing import ManualClock

NEVER = 60.0
"""Seconds until something that nobody waits for."""


# --- nothing at all -------------------------------------------------------------------------------------------------

NO_FIRST_TOKEN: dict[str, Behaviour] = {
    "no response": Silence(),
    "a role and then nothing": Stall(after=1),
    "first token too late": Ok(first_token_after=NEVER),
}


@BOTH_VERBS
@pytest.mark.parametrize("fault", NO_FIRST_TOKEN)
@BOTH_DIALECTS
def test_who_does_not_begin_in_time_is_asked_once_cut_and_replaced_by_the_fallback(
    upstreams: Upstreams, module: str, fault: str, verb: str
) -> None:
    late = verb == "complete" and fault == "first token too late"  # which only a stream shows; a delay does the same
    pair = upstreams(Ok(delay=NEVER) if late else NO_FIRST_TOKEN[fault], hasty=True, dialects=(module, "openai"))
    began = time.monotonic()
    assert attempts(pair.ask(verb))[1:] == [("fallback", "success")]
    [call] = pair.primary.calls
    pair.primary.wait_for(lambda calls: calls[0].disconnected_at, 30)
    assert LIMIT <= (call.disconnected_at or 0) - began <= LIMIT + LATENESS


@BOTH_VERBS
@pytest.mark.parametrize("fault", [Silence(), Ok(first_token_after=20, delay=0)], ids=["silence", "20 s"])
def test_the_first_token_is_waited_for_ten_seconds_by_default(
    upstreams: Upstreams, fault: Behaviour, verb: str
) -> None:
    """On a clock that the test moves, so that ten seconds are ten."""
    clock = ManualClock(start=time.monotonic())
    fault = Silence() if verb == "complete" else fault
    pair = upstreams(fault, clock=clock, primary={"first_token_timeout": None}, timeout=120)
    with answering(pair, verb) as answer:
        pair.primary.wait_for(lambda calls: len(calls) == 1)
        wait_until(lambda: pair.duck.status().providers["primary"].inflight == 1)
        clock.advance(9.9)
        assert pair.primary.calls[0].disconnected_at is None
        assert not pair.fallback.calls
        clock.advance(0.2)
    assert attempts(answer[0]) == [("primary", "ProviderTimeout"), ("fallback", "success")]


class answering:
    """Asks in a thread while the block lasts; the list holds the answer afterwards."""

    def __init__(self, pair: Pair, verb: str) -> None:
        self._ended: list[Any] = []
        self._thread = threading.Thread(target=lambda: self._ended.append(self._ask(pair, verb)))

    def _ask(self, pair: Pair, verb: str) -> Any:
        return pair.ask(verb)

    def __enter__(self) -> list[Any]:
        self._thread.start()
        return self._ended

    def __exit__(self, *_: object) -> None:
        self._thread.join(60)
        assert self._ended


class ending(answering):
    """The same for a call that must fail."""

    def __init__(self, pair: Pair, verb: str, expected: type[RubberDuckError]) -> None:
        super().__init__(pair, verb)
        self._expected = expected

    def _ask(self, pair: Pair, verb: str) -> Any:
        return pair.failure(verb, self._expected)


@BOTH_VERBS
def test_silence_of_the_only_provider_ends_with_its_error_within_the_deadline(upstreams: Upstreams, verb: str) -> None:
    pair = upstreams(Silence(), alone=True, timeout=2, primary={"timeout": "150ms"})
    error = pair.failure(verb, ProviderTimeout)
    assert {outcome for _, outcome in attempts(error)} == {"ProviderTimeout"}
    assert error.spent is None


# --- silence in the middle, and drops for ever ----------------------------------------------------------------------


@BOTH_DIALECTS
def test_a_stall_is_seen_in_the_idle_time_and_the_reader_told_what_came(upstreams: Upstreams, module: str) -> None:
    pair = upstreams(Stall(after=4), primary={"idle_timeout": f"{LIMIT}s"}, dialects=(module, "openai"))
    began = time.monotonic()
    error = pair.failure("stream", StreamInterrupted)
    assert error.text
    assert TEXT.startswith(error.text)
    assert not pair.fallback.calls
    [call] = pair.primary.calls
    pair.primary.wait_for(lambda calls: calls[0].disconnected_at, 30)
    assert LIMIT <= (call.disconnected_at or 0) - began <= LIMIT + LATENESS


@BOTH_DIALECTS
def test_a_stall_of_an_answer_that_is_wanted_whole_is_made_good_by_the_fallback(
    upstreams: Upstreams, module: str
) -> None:
    pair = upstreams(Stall(after=1), hasty=True, dialects=(module, "openai"))
    response = pair.ask("complete")
    assert attempts(response) == [("primary", "ProviderTimeout"), ("fallback", "success")]
    assert len(pair.primary.calls) == 1


@BOTH_VERBS
@BOTH_DIALECTS
def test_drops_that_are_no_content_do_not_keep_an_answer_waiting(upstreams: Upstreams, module: str, verb: str) -> None:
    pair = upstreams(Drip(0.02), hasty=True, dialects=(module, "openai"))
    assert attempts(pair.ask(verb)) == [("primary", "ProviderTimeout"), ("fallback", "success")]
    assert len(pair.primary.calls) == 1


class Pinging:
    """The beginning of an answer, and then comments for ever."""

    async def answer(self, call: Call, reply: Reply) -> None:
        await reply.head(200, {"content-type": "text/event-stream"})
        for event in dialects.events(call.path, "m", TEXT)[:4]:
            await reply.body(event)
        while True:
            await reply.body(b": ping\n\n")
            await reply.wait(0.02)


@BOTH_DIALECTS
def test_pings_after_some_output_are_no_progress_and_fifteen_seconds_of_them_end_the_stream(
    upstreams: Upstreams, module: str
) -> None:
    """On a clock that the test moves, so that fifteen seconds are fifteen."""
    clock = ManualClock(start=time.monotonic())
    pair = upstreams(Pinging(), clock=clock, primary=UNHURRIED, timeout=120, dialects=(module, "openai"))
    with ending(pair, "stream", StreamInterrupted) as caught:
        pair.primary.wait_for(lambda calls: calls and b": ping" in calls[0].said)
        wait_until(lambda: pair.duck.status().calls == 1)
        time_goes_by(pair, clock, 14.5)
        assert pair.primary.calls[0].disconnected_at is None
        time_goes_by(pair, clock, 1.0)
    assert TEXT.startswith(caught[0].text)
    assert caught[0].text


@BOTH_DIALECTS
def test_a_trickle_of_less_than_a_token_a_second_is_cut_after_twenty_seconds(upstreams: Upstreams, module: str) -> None:
    clock = ManualClock(start=time.monotonic())
    pair = upstreams(TRICKLE, clock=clock, primary=UNHURRIED, timeout=120, dialects=(module, "openai"))
    began = clock.now()
    with pytest.raises(StreamInterrupted, match="tokens a second") as caught:
        list(words_at_a_pace_of(3.0, pair, clock))
    assert caught.value.text
    assert TRICKLE.text.startswith(caught.value.text)
    assert 20 <= clock.now() - began <= 20 + 4 * 3.0


def test_a_trickle_of_two_words_a_second_is_left_to_come_to_its_end(upstreams: Upstreams) -> None:
    clock = ManualClock(start=time.monotonic())
    pair = upstreams(TRICKLE, clock=clock, primary=UNHURRIED, timeout=120)
    assert "".join(words_at_a_pace_of(0.5, pair, clock)) == TRICKLE.text


TRICKLE = Ok("quack " * 60, between=0.01)


def words_at_a_pace_of(seconds: float, pair: Pair, clock: ManualClock) -> Iterator[str]:
    """Reads a stream while the clock goes on by so much with each word."""
    with pair.duck.stream(REQUEST) as stream:
        for chunk in stream:
            yield chunk.delta.content
            clock.advance(seconds)


UNHURRIED = {"first_token_timeout": None, "idle_timeout": None}
"""The defaults."""


def time_goes_by(pair: Pair, clock: ManualClock, seconds: float) -> None:
    """So much of it, in steps between which the actors' loop gets its turn."""
    for _ in range(10):
        clock.advance(seconds / 10)
        pair.duck.status()


# --- the caller does not wait ---------------------------------------------------------------------------------------

PATIENT = {"timeout": "60s", "first_token_timeout": "60s", "idle_timeout": "60s"}
AT_ONCE = 25
ROUNDS = 6


@pytest.mark.parametrize("verb", ["complete", "stream", "backoff"])
def test_a_cancelled_call_closes_its_socket_at_once(upstreams: Upstreams, verb: str) -> None:
    """150 cancellations, by rounds: the slowest but one within 100 ms, and 50 ms for those that wait for a repeat. A
    busy machine is allowed five times that, and one round of six has to show it; the others are only to be sooner than
    any limit would have ended them."""
    faults: dict[str, Behaviour] = {
        "complete": Silence(),
        "stream": Ok("quack " * 200, between=0.05),
        "backoff": Status(500),
    }
    unhurried = {"retry_budget_floor": 1000, "base_delay": "60s", "max_delay": "60s", "jitter": False}
    pair = upstreams(
        faults[verb],
        alone=True,
        timeout=120,
        primary={"pool": {"size": 200}},
        retry=unhurried,
        circuit_breaker={"failure_threshold": None},
    )
    delays = asyncio.run(cancel_many(pair, verb))
    assert len(delays) == AT_ONCE * ROUNDS
    limit = 0.25 if verb == "backoff" else 0.5
    rounds = sorted(max(sorted(delays[start : start + AT_ONCE])[:-1]) for start in range(0, len(delays), AT_ONCE))
    assert rounds[0] < limit, rounds
    assert max(delays) < LATENESS
    sent = [row for row in pair.rows() if row.provider == "primary"]
    assert len(sent) == len(pair.primary.calls) == AT_ONCE * ROUNDS
    charged = State.VOID if verb == "backoff" else State.UNCERTAIN
    assert {row.state for row in sent} == {charged}


async def cancel_many(pair: Pair, verb: str) -> list[float]:
    """Seconds from the cancellation of each call to the end of its socket, or of the call itself in its backoff."""
    delays: list[float] = []
    for number in range(ROUNDS):
        begun = number * AT_ONCE
        tasks = [asyncio.create_task(ask_and_read(pair, verb)) for _ in range(AT_ONCE)]
        await pair.primary.until(lambda calls, all_of=begun + AT_ONCE: len(calls) == all_of)
        if verb == "stream":
            await pair.primary.until(lambda calls, first=begun: all(call.bytes_sent > 800 for call in calls[first:]))
        if verb == "backoff":
            await pair.primary.until(lambda calls: all(call.finished_at for call in calls))
            await asyncio.to_thread(wait_until, lambda: pair.duck.status().providers["primary"].inflight == 0)
        cancelled_at = time.monotonic()
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        if verb == "backoff":
            await asyncio.to_thread(wait_until, lambda: pair.duck.status().calls == 0)
            delays += [time.monotonic() - cancelled_at] * AT_ONCE
            continue
        await pair.primary.until(lambda calls: all(call.disconnected_at for call in calls))
        delays += [(call.disconnected_at or 0) - cancelled_at for call in pair.primary.calls[begun:]]
    return delays


async def ask_and_read(pair: Pair, verb: str) -> None:
    if verb != "stream":
        await pair.duck.acomplete(REQUEST)
        return
    async with pair.duck.astream(REQUEST) as stream:
        async for _ in stream:
            pass


@BOTH_DIALECTS
def test_closing_a_stream_closes_its_socket_and_asks_nobody_else(upstreams: Upstreams, module: str) -> None:
    pair = upstreams(Ok(text="quack " * 6000, between=0.01), dialects=(module, "openai"))
    stream = pair.duck.stream(REQUEST)
    next(stream)
    closed_at = time.monotonic()
    stream.close()
    pair.primary.wait_for(lambda calls: calls[0].disconnected_at is not None, 30)
    assert (pair.primary.calls[0].disconnected_at or 0) - closed_at < LATENESS
    assert stream.response is None
    assert not pair.fallback.calls


@pytest.mark.parametrize("by_message", [False, True])
def test_a_forgotten_stream_closes_its_socket(upstreams: Upstreams, by_message: bool) -> None:
    """One that was asked for by message was once kept alive by the reply that had brought it."""
    pair = upstreams(Ok(text="quack " * 6000, between=0.01))
    stream = pair.duck.service.ask({"stream": REQUEST}) if by_message else pair.duck.stream(REQUEST)
    next(stream)
    del stream
    pair.primary.wait_for(lambda calls: calls[0].disconnected_at is not None)


@BOTH_VERBS
def test_a_deadline_that_comes_in_the_queue_is_told_on_time_and_nothing_is_sent(
    upstreams: Upstreams, verb: str
) -> None:
    pair = upstreams(Hold(), alone=True, rate_limits={"primary": {"max_concurrency": 1}}, primary=PATIENT)
    first = threading.Thread(target=pair.ask, args=("complete",))
    first.start()
    pair.primary.wait_for(lambda calls: len(calls) == 1)
    began = time.monotonic()
    error = pair.failure(verb, DeadlineExceeded, timeout=0.3)
    assert 0.3 <= time.monotonic() - began < 0.3 + LATENESS
    assert (error.attempts, error.spent) == ((), 0)
    pair.primary.release()
    first.join(60)
    assert len(pair.primary.calls) == 1


@BOTH_VERBS
def test_a_deadline_that_comes_on_the_wire_is_told_on_time_and_the_money_is_uncertain(
    upstreams: Upstreams, verb: str
) -> None:
    pair = upstreams(Silence())
    began = time.monotonic()
    with pytest.raises(RubberDuckError) as caught:
        pair.ask(verb, timeout=0.3)
    assert type(caught.value) in (DeadlineExceeded, ProviderTimeout)
    assert 0.3 <= time.monotonic() - began < 0.3 + LATENESS
    assert caught.value.spent is None
    assert not pair.fallback.calls
