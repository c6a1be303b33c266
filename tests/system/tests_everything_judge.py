"""What must hold after a scenario, whatever has happened in it: for callers, for providers, and for the books."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from decimal import Decimal
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from tests_everything_upstream import BATCH, COUNTED, MODELS, NAMES, Entry, mark_of
from tests_upstreams_rig import is_at_rest, wait_until

from rubberduck import RubberDuck
from rubberduck.actors import jobs
from rubberduck.core.ledger import AttemptRecord, State
from rubberduck.errors import CallInterrupted, OutputInvalid, RubberDuckError, StreamInterrupted
from rubberduck.storage.sqlite import SqliteLedger
from rubberduck.types import Embeddings, Response, TokenCount

if TYPE_CHECKING:
    from tests_everything_rig import Ended, World

LATENESS = 20.0
"""Seconds that a busy machine may add to a deadline."""
WINDOW = 10.0
"""Seconds for which repeats have a budget; on a busy machine a scenario may last for several."""
MOST_ATTEMPTS = 6
"""Of one round of a call: `max_attempts_total`."""
USD = {"m": Decimal("0.000001"), "m2": Decimal("0.000003")}
"""What an input token costs; output costs nothing, so that no two requests cost the same."""

_WORD = re.compile(r"([pqr])(\d+)\.(\d+)")


def judge(world: World, duck: RubberDuck) -> None:
    """Fails for a duck that owes something, holds something, or keeps other books than its providers."""
    wait_until(lambda: all(each.ended != "open" for each in world.script.log) or world.over_http)
    wait_until(lambda: is_at_rest(duck))
    _jobs_are_done(duck)
    _nothing_is_held(duck)
    rows = _rows(duck)
    for check in (_callers_are_answered, _answers_are_right, _nothing_follows_output, _repeats_are_few):
        check(world)
    for look in (_attempts_are_few, _books_agree, _bills_agree, _each_is_told_its_bill, _jobs_are_sent_safely):
        look(world, rows)
    findings = duck.system.audit()
    assert findings == [], findings


# -- the duck is at rest -----------------------------------------------------------------------------------------------


def _jobs_are_done(duck: RubberDuck) -> None:
    def none_is_out() -> bool:
        counts = duck.actor("jobs").ask(jobs.CountJobs())
        return not counts.get("leased") and not counts.get("ready")

    wait_until(none_is_out, 60)


def _nothing_is_held(duck: RubberDuck) -> None:
    runner = duck._runner
    assert not runner._in_flight
    if runner._flights is not None:
        assert len(runner._flights) == 0
    wait_until(lambda: len(runner.arrears) == 0)
    for name in NAMES:
        for term in duck._board.desks[name].keys._terms.values():
            assert term.probe is None, (name, term)


def _rows(duck: RubberDuck) -> list[AttemptRecord]:
    wait_until(lambda: len(duck._runner.arrears) == 0)
    duck.costs()
    with closing(SqliteLedger(duck.config.ledger.path or "")) as ledger:
        return list(ledger.rows())


# -- callers -----------------------------------------------------------------------------------------------------------


def _callers_are_answered(world: World) -> None:
    for each in world.ended:
        assert each.took < each.timeout + LATENESS or each.job, each
        if not each.is_given_up:
            assert isinstance(each.outcome, each.answer | RubberDuckError), each
        if isinstance(each.outcome, Exception):
            assert "RubberDuck failed in its own code" not in str(each.outcome), each


def _answers_are_right(world: World) -> None:
    """Each caller has the words, the numbers and the value that one provider gave for just what was asked."""
    checks: dict[Any, Callable[[World, Ended], None]] = {
        Embeddings: _vectors_are_right,
        TokenCount: _count_is_right,
        OutputInvalid: _refusal_to_read_is_right,
    }
    for each in world.ended:
        checks.get(type(each.outcome), _text_is_right)(world, each)


def _text_is_right(world: World, each: Ended) -> None:
    parts: list[list[int]] = []
    last: Any = None
    for name, number, place in _WORD.findall(each.delivered):
        if (name, number) != last:
            parts.append([int(number), -1])
            last = (name, number)
        assert int(place) == parts[-1][1] + 1, each
        parts[-1][1] = int(place)
    assert _WORD.sub("", each.delivered).strip() == "", each
    outcome = each.outcome
    assert all(world.script.log[serial].text == each.text for serial, _ in parts), each
    if isinstance(outcome, Response | each.answer) and not each.job:
        assert parts, each
        entry = world.script.log[parts[-1][0]]
        assert parts[-1][1] == entry.count - 1, (each, entry)
        assert len(parts) == 1 or (isinstance(outcome, Response) and outcome.spliced), each
        assert entry.form != "prose", (each, entry)
        assert getattr(outcome, "text", each.delivered) == each.delivered, each
    if len(parts) > 1:
        assert world.policy_of(each) == "continue", each
    if isinstance(outcome, StreamInterrupted):
        assert outcome.text == each.delivered or not each.delivered, (each, outcome.text)


def _vectors_are_right(world: World, each: Ended) -> None:
    """One for each text, in order, all of one model, each as its provider gave it."""
    given = each.outcome
    assert [vector[2] for vector in given.vectors] == [mark_of(text) for text in each.texts], each
    assert {vector[0] for vector in given.vectors} == {mark_of(given.model)}, (each, "are of two models")
    for text, vector in zip(each.texts, given.vectors, strict=True):
        entry = world.script.log[int(vector[1])]
        assert (entry.kind, entry.ended) == ("embeddings", "answered"), (each, entry)
        assert text in entry.texts, (each, entry)
        assert MODELS[entry.provider] == given.model, (each, entry)
    if not (given.cached or given.shared or world.config["single_flight"]):  # which may have begun anew
        answered = [attempt for attempt in given.attempts if attempt.outcome == "success"]
        assert len(answered) == len({vector[1] for vector in given.vectors}), each
        assert given.usage.prompt_tokens == sum(1000 + int(serial) for serial in {v[1] for v in given.vectors}), each
        assert given.usage.cost == sum(attempt.cost or 0 for attempt in answered), each


def _count_is_right(world: World, each: Ended) -> None:
    count = each.outcome
    assert count.tokens > 0
    if count.tokens >= COUNTED:
        entry = world.script.log[count.tokens - COUNTED]
        assert (entry.kind, entry.text, entry.provider) == ("count", each.text, count.provider), (each, entry)


def _refusal_to_read_is_right(world: World, each: Ended) -> None:
    """An answer that could not be read was prose, and so was the one before it where it was to be mended."""
    asked = [entry for entry in world.script.log if entry.text == each.text and entry.form == "prose"]
    last = {entry.mends for entry in asked if entry.said == each.outcome.response.text}
    assert last, (each, asked)
    assert each.outcome.reason == "no_json"
    if world.config["single_flight"] or "cache" in world.config:
        return
    assert last == {each.options.get("repair", False)}, (each, asked)


def _nothing_follows_output(world: World) -> None:
    by_text: dict[str, list[Entry]] = {}
    for entry in world.script.log:
        by_text.setdefault(entry.text, []).append(entry)
    for each in world.ended:
        if each.first_at is None or world.policy_of(each) == "continue" or not each.is_alone:
            continue
        for entry in by_text[each.text]:
            assert entry.started < each.first_at, (each, entry)


# -- providers ---------------------------------------------------------------------------------------------------------


def _question(entry: Entry) -> tuple[Any, ...]:
    """What is asked but once, unless it fails."""
    return entry.kind, entry.text, entry.texts, entry.mends


def _repeats_are_few(world: World) -> None:
    """Of what has failed, and none of what was answered. Another key is no repeat."""
    _answered_once(world)
    windows = 1 + int(world.lasted / WINDOW)
    if any(len(each["api_keys"]) > 1 for each in world.config["providers"].values()):
        return
    for name in NAMES:
        asked = Counter(_question(entry) for entry in world.script.log if entry.provider == name)
        if world.config["single_flight"] or any(each.job for each in world.ended):
            continue
        own = {question: count for question, count in asked.items() if question[1].startswith("n")}
        extras = sum(own.values()) - len(own)
        shared = asked.total() - sum(own.values())
        assert extras <= (3 + 0.2 * len(asked) + 0.2 * shared + 1) * windows, (name, asked)
    share = world.config.get("hedge", {}).get("share", 0)
    assert world.hedges <= share * len(world.ended) * 1.3 + 1, world.hedges


def _answered_once(world: World) -> None:
    if world.over_http or world.config["single_flight"] or "hedge" in world.config:
        return
    alone = {each.text for each in world.ended if each.is_alone and not each.job}
    answered = Counter(
        _question(entry) for entry in world.script.log if entry.ended == "answered" and entry.text in alone
    )
    assert max(answered.values(), default=0) <= 1, answered.most_common(3)


def _attempts_are_few(world: World, rows: list[AttemptRecord]) -> None:
    rounds = {str(each.number): each.rounds for each in world.ended}
    per_call = Counter((row.call_id, row.tags.get("n", "")) for row in rows if row.state is not State.VOID)
    for (call, number), count in per_call.items():
        assert count <= MOST_ATTEMPTS * rounds.get(number, 1), (call, number, count)


# -- the books ---------------------------------------------------------------------------------------------------------


def _books_agree(world: World, rows: list[AttemptRecord]) -> None:
    states = Counter(row.state for row in rows)
    assert states[State.INTENT] == 0, states
    paid_for = [row for row in rows if row.state is State.SETTLED and row.prompt_tokens]
    for row in paid_for:
        assert row.cost == (row.prompt_tokens or 0) * USD[row.model], row
    settled = Counter((row.provider, row.prompt_tokens, row.completion_tokens) for row in paid_for)
    assert max(settled.values(), default=0) <= 1, settled.most_common(3)
    told = {(entry.provider, *entry.usage): entry for entry in world.script.log if entry.usage is not None}
    if not world.over_http:
        for key in settled:
            assert key in told, (key, "was never told")
    missing = [entry for key, entry in told.items() if key not in settled and entry.ended == "answered"]
    if world.chaos in ("calm", "actors") and not world.over_http:
        assert not missing, missing
    _as_many_as_asked(world, states, len(paid_for))
    _counts_are_free(world, [row for row in rows if row.state is State.SETTLED and not row.prompt_tokens])


def _as_many_as_asked(world: World, states: Counter[State], settled: int) -> None:
    log = [entry for entry in world.script.log if entry.kind != "count"]
    refused = sum(entry.is_refused for entry in log)
    unknown = len(log) - refused
    paid = settled + states[State.UNCERTAIN]
    if world.over_http:
        unsent = sum(entry.fault == "unsent" for entry in log)
        assert paid >= unknown - unsent, (states, unknown)
        assert paid <= len(log) + len(world.ended), states
    else:
        assert paid == unknown, (states, unknown, refused)
        assert states[State.VOID] >= sum(entry.is_refused for entry in world.script.log)


def _counts_are_free(world: World, rows: list[AttemptRecord]) -> None:
    counted = Counter(
        entry.provider for entry in world.script.log if entry.kind == "count" and entry.ended == "answered"
    )
    booked = Counter(row.provider for row in rows)
    assert all(row.cost == 0 for row in rows), rows
    assert booked <= counted, (booked, counted)
    if world.chaos in ("calm", "actors") and not world.over_http:
        assert booked == counted, (booked, counted)


def _bills_agree(world: World, rows: list[AttemptRecord]) -> None:
    """What callers were told adds up to what is settled, where nobody was lost, gave up, or has but a value."""
    settled = Counter(row.cost for row in rows if row.state is State.SETTLED and row.cost)
    told: Counter[Decimal | None] = Counter()
    for each in world.ended:
        told.update(attempt.cost for attempt in getattr(each.outcome, "attempts", ()) if attempt.cost)
        if isinstance(each.outcome, Response | Embeddings) and (each.outcome.cached or each.outcome.shared):
            assert each.outcome.usage.cost == 0, each
    assert told <= settled, told - settled
    lost = any(isinstance(each.outcome, CallInterrupted) for each in world.ended)
    gone = any(each.is_given_up or each.job or each.kind == "typed" for each in world.ended)
    if not lost and not gone:
        assert told == settled


def _each_is_told_its_bill(world: World, rows: list[AttemptRecord]) -> None:
    """Row by row, where calls are not made for others."""
    if world.config["single_flight"]:
        return
    for each in world.ended:
        attempts = getattr(each.outcome, "attempts", None)
        if each.job or attempts is None or isinstance(each.outcome, CallInterrupted):
            continue
        own = [row for row in rows if row.tags.get("n") == str(each.number)]
        settled = Counter(row.cost for row in own if row.state is State.SETTLED and row.cost)
        assert Counter(attempt.cost for attempt in attempts if attempt.cost) == settled, (each, own)
        if isinstance(each.outcome, RubberDuckError) and each.outcome.spent is not None:
            assert each.outcome.spent == sum(row.cost or 0 for row in own), (each, own)
        starts = [attempt.started for attempt in attempts]
        assert all(first <= second for first, second in pairwise(starts)), each


def _jobs_are_sent_safely(world: World, rows: list[AttemptRecord]) -> None:
    """A job that may not be sent twice is delivered again only if its last delivery sent nothing."""
    for each in world.ended:
        if each.job is None or each.options["safety"] != "at_most_once":
            continue
        own = [entry for entry in world.script.log if entry.text == each.text]
        deliveries: dict[str, list[AttemptRecord]] = {}
        for row in rows:
            if row.call_id.startswith(f"{each.job}."):
                deliveries.setdefault(row.call_id, []).append(row)
        sent = [call for call, those in deliveries.items() if any(row.state is not State.VOID for row in those)]
        assert len(sent) <= 1, (each, deliveries)
        attempts = sum(row.state is not State.VOID for those in deliveries.values() for row in those)
        seen = sum(not entry.is_refused for entry in own)
        assert world.over_http or attempts == seen, (each, deliveries, own)


def parts_of(texts: tuple[str, ...]) -> int:
    """In how many requests texts are sent."""
    return -(-len(texts) // BATCH) or 1
