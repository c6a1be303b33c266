"""Tells a person why a call went the way it did: line by line, in the order of time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from rubberduck.actors.calls.trace import GaveUp, Leg, Step, Trace
from rubberduck.core.plan import Sleep, Try
from rubberduck.core.score import Candidate, Choice, score

if TYPE_CHECKING:
    from rubberduck.core.limiter import Amounts


def tell(trace: Trace) -> str:
    """The whole story of a call."""
    return "\n".join(_lines(trace))


def _lines(trace: Trace) -> Iterator[str]:
    if trace.ended_after is None:
        now = trace.after(trace.looked_at)
        yield f"call {trace.request_id}, model {trace.model}: runs for {now:.3f} s and {trace.outcome}"
    else:
        yield f"call {trace.request_id}, model {trace.model}: {trace.outcome} after {trace.ended_after:.3f} s"
    before = "" if trace.place is None else f", {trace.place or 'nobody'} before it"
    tenant = f", tenant {trace.tenant}" if trace.tenant else ""
    yield f"   0.000 s  waited {trace.queue_wait:.3f} s in the queue ({trace.priority}{tenant}{before})"
    for at, step in trace.steps:
        told = _step(step, at, trace)
        yield f"{trace.after(at):8.3f} s  {next(told)}"
        yield from ["              " + line for line in told]
    yield f"      bill  {_bill(trace)}"


def _step(step: Step, at: float, trace: Trace) -> Iterator[str]:
    match step:
        case Try(choice=None):
            yield f"tries {step.route} again, attempt {step.attempt} there"
        case Try(choice=Choice() as choice):
            why = "; every circuit is open, so it asks for an extra probe" if step.is_last_resort else _why(choice)
            yield f"takes {step.route}{why}"
            yield from _candidates(choice)
        case Choice():
            yield f"asks {step.route} too, for the first has been silent for long"
            yield from _candidates(step)
        case Sleep():
            what = "any route" if step.route is None else step.route
            yield f"waits {step.until - at:.3f} s for {what}"
            yield from _obstacles(step.views)
        case GaveUp():
            yield "gives up: nothing is left to try"
            yield from [f"{route}: {reason}" for route, reason in step.reasons.items()]
        case Leg():
            yield f"{step.route}: {'; '.join(_leg(step, at, trace))}"


def _why(choice: Choice) -> str:
    return ", where it was before" if choice.sticky == choice.route else ""


def _candidates(choice: Choice) -> Iterator[str]:
    chosen = next(each for each in choice.candidates if each.route == choice.route)
    width = max(len(each.route) for each in choice.candidates)
    for each in choice.candidates:
        mark = ">" if each is chosen else " "
        if each.obstacle is not None and each is not chosen:
            yield f"{mark} {each.route:{width}}  not now: {_obstacle(each)}"
            continue
        later = "" if each.priority == chosen.priority else f"; priority {each.priority}"
        yield f"{mark} {each.route:{width}}  {_terms(each, choice)}{later}"


def _terms(candidate: Candidate, choice: Choice) -> str:
    it = score(candidate, choice.out_est, choice.price_weight)
    price = f" + price {it.price:.3f}" if it.price else ""
    seconds = f"wait {it.wait:.3f} + first token {it.ttft:.3f} + output {it.output:.3f}"
    return f"C {it.cost:.3f} = ({seconds}) * load {it.load:.2f} * health {it.health_factor:.2f}{price}"


def _obstacles(views: Sequence[Candidate]) -> Iterator[str]:
    for each in views:
        if each.obstacle is not None:
            yield f"{each.route}: {_obstacle(each)}"


def _obstacle(candidate: Candidate) -> str:
    text = (candidate.obstacle or "").replace("_", " ")
    return text if candidate.retry_after is None else f"{text}, for another {candidate.retry_after:.1f} s"


def _leg(leg: Leg, at: float, trace: Trace) -> Iterator[str]:
    if leg.granted_at is None:
        yield f"asked its limiter for {_amounts(leg.asked)}"
    elif leg.granted_at - at < 0.0005:
        yield f"had {_amounts(leg.asked)} from its limiter at once"
    else:
        yield f"had {_amounts(leg.asked)} from its limiter after {leg.granted_at - at:.3f} s"
    if leg.refused is not None:
        later = "" if leg.retry_after is None else f", asked to come back in {leg.retry_after:.1f} s"
        yield f"did not begin: {leg.refused}{later}"
    if leg.sent_at is not None:
        yield f"sent at {trace.after(leg.sent_at):.3f} s"
    if leg.attempt is not None:
        cost = "cost unknown" if leg.attempt.cost is None else f"cost ${leg.attempt.cost:f}"
        yield f"{leg.attempt.outcome} after {leg.attempt.duration:.3f} s, {cost}"
        yield "all came back" if leg.settled is None else f"kept {_amounts(leg.settled)}"


def _amounts(amounts: Amounts) -> str:
    tokens = f" and {amounts.input:.0f} + {amounts.output:.0f} tokens" if amounts.tokens else ""
    return f"{amounts.requests:g} request{tokens}"


def _bill(trace: Trace) -> str:
    count = len(trace.attempts)
    attempts = f"{count} attempt{'' if count == 1 else 's'}"
    return f"unknown for {attempts}" if trace.spent is None else f"${trace.spent:f} for {attempts}"
