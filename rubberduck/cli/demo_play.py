"""The play that `rubberduck demo` shows: what happens to the providers, and what is seen of it."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

from rubberduck import errors
from rubberduck.actors.circuit_breaker import GetState
from rubberduck.actors.cost_tracker import Health
from rubberduck.core.figures import money, span
from rubberduck.core.ledger import Summary
from rubberduck.providers.mock import MockCall, Scripted
from rubberduck.types import Request, Response, Usage

NAMES = ("alpha", "beta", "gamma")
MODEL = "duck-1"
INPUT_USD, OUTPUT_USD = Decimal(3), Decimal(15)
MILLION = Decimal(1_000_000)
MORTALS = ("rate_limiter:beta", "circuit_breaker:beta", "request_queue", "service", "cost_tracker")

Say = Callable[[float, str, str], None]


def configuration(ledger: Path) -> dict[str, Any]:
    """Three providers in order of preference, with a breaker that gives up and comes back fast enough to watch."""
    return {
        "providers": {
            name: {"module": "mock", "models": [MODEL], "priority": place} for place, name in enumerate(NAMES, 1)
        },
        "models": {"demo": [f"{name}/{MODEL}" for name in NAMES]},
        "circuit_breaker": {"failure_threshold": 3, "reset_timeout": "9s", "success_threshold": 2},
        "retry": {"max_attempts": 3, "base_delay": "200ms", "max_delay": "1s", "max_wait_for_preferred": "500ms"},
        "prices": {MODEL: {"input": float(INPUT_USD), "output": float(OUTPUT_USD)}},
        "ledger": {"path": str(ledger)},
    }


class Play:
    """Plays the acts in order. `run` returns what went wrong: nothing, if all went well."""

    def __init__(self, duck: Any, time: Any, rng: random.Random, say: Say) -> None:
        self._duck = duck
        self._time = time
        self._rng = rng
        self._say_at = say
        self._asked = 0
        self._answers: list[Response] = []
        self._faults: list[str] = []
        self._states = dict.fromkeys(NAMES, "closed")
        self._restarts: deque[str] = deque()
        self._mocks = {name: duck.provider(name) for name in NAMES}
        for mock in self._mocks.values():
            time.govern(mock)
        time.heed(duck.actor(f"circuit_breaker:{NAMES[-1]}"), GetState())
        time.heed(duck.actor("cost_tracker"), Health())

    def run(self) -> list[str]:
        unsubscribe = self._duck.system.events.subscribe(self._note_event)
        try:
            for act in (self._calm, self._outage, self._murder, self._rate_limit, self._recovery):
                act()
            self._check_the_books()
        finally:
            unsubscribe()
        return self._faults

    # --- the acts

    def _calm(self) -> None:
        for name in NAMES:
            self._from_now_on(name, self._well())
        self._act("All is well: alpha is preferred and answers.")
        for _ in range(3):
            self._ask_and_tell()
            self._time.wait(0.6)

    def _outage(self) -> None:
        self._act("alpha answers 503. Its breaker opens after three failures; beta takes over.")
        self._from_now_on("alpha", Scripted(error=errors.Overloaded("503 Service Unavailable", status=503)))
        for _ in range(5):
            self._ask_and_tell()
            self._time.wait(0.5)

    def _murder(self) -> None:
        victim = self._rng.choice(MORTALS)
        self._act(f"An actor is killed while three questions are in flight: {victim}.")
        waiting = [self._ask() for _ in range(3)]
        self._time.wait(0.1)
        self._duck.system.kill(self._duck.actor(victim))
        for number, future in waiting:
            self._tell(number, future)
        self._time.wait(0.5)

    def _rate_limit(self) -> None:
        self._act("beta says 429, Retry-After 3 s. A question that only beta may answer waits; another goes to gamma.")
        well = self._well()
        self._from_now_on("beta", Scripted(error=errors.RateLimited("429", status=429, retry_after=3.0)), well)
        begun = self._time.now()
        waiting = self._ask(providers=["beta"])
        self._time.wait(0.5)
        self._ask_and_tell()
        self._tell(*waiting)
        waited = self._time.now() - begun
        if waited < 3.0:
            self._faults.append(f"the question that had to wait 3 s for beta took {span(waited)}")

    def _recovery(self) -> None:
        self._act("alpha is well again. After its pause the breaker lets one probe through, then another; it closes.")
        self._from_now_on("alpha", self._well())
        for _ in range(20):
            self._ask_and_tell()
            if self._states["alpha"] == "closed":
                break
            self._time.wait(0.7)
        else:
            self._faults.append("alpha's breaker did not close again")
        self._ask_and_tell()

    def _well(self) -> Scripted:
        usage = Usage(self._rng.randint(20, 90), self._rng.randint(5, 60))
        return Scripted(content="Quack.", usage=usage, delay=0.25)

    def _from_now_on(self, name: str, *responses: Scripted) -> None:
        """Give a provider new lines: its script goes on from the calls it has had; the last one repeats."""
        mock = self._mocks[name]
        mock.script = (responses[0],) * len(mock.calls) + responses

    # --- asking and telling

    def _ask(self, **options: Any) -> tuple[int, Any]:
        """Ask the next question; its number, and the future of its answer."""
        self._asked += 1
        request = {
            "model": "demo",
            "messages": [{"role": "user", "content": f"Question {self._asked}"}],
            "max_tokens": 99,
        }
        return self._asked, self._duck.service.ask({"complete": request, "timeout": 30, **options}, block=False)

    def _ask_and_tell(self, **options: Any) -> None:
        self._tell(*self._ask(**options))

    def _tell(self, number: int, future: Any) -> None:
        try:
            response: Response = self._time.result(future)
        except Exception as error:  # noqa: BLE001 - whatever came instead of an answer is the finding
            self._faults.append(f"question {number} was not answered: {type(error).__name__}: {error}")
            self._say("bad", f"question {number:2}  {type(error).__name__}: {error}")
            return
        self._answers.append(response)
        failed = [
            f"{attempt.outcome} at {attempt.provider}" for attempt in response.attempts if attempt.outcome != "success"
        ]
        after = f"  (after {', '.join(failed)})" if failed else ""
        self._say(
            "good", f"question {number:2}  answered by {response.provider:<5} {money(response.usage.cost)}{after}"
        )
        self._tell_changes()

    def _tell_changes(self) -> None:
        while self._restarts:
            self._say("note", f"{self._restarts.popleft()} was restarted by its supervisor")
        for name in NAMES:
            state = self._breaker_state(name)
            if state != self._states[name]:
                self._say("note", f"breaker of {name}: {self._states[name]} -> {state}")
                self._states[name] = state

    def _breaker_state(self, name: str) -> str:
        future = self._duck.actor(f"circuit_breaker:{name}").ask(GetState(), block=False)
        return str(self._time.result(future).value).replace("_", "-")

    def _note_event(self, event: Any) -> None:
        if event.name == "child_restarted":
            self._restarts.append(event.path.rpartition("/")[2])

    def _act(self, text: str) -> None:
        self._say("act", text)

    def _say(self, kind: str, text: str) -> None:
        self._say_at(self._time.now(), kind, text)

    # --- the end

    def _check_the_books(self) -> None:
        self._tell_changes()
        self._act("The books.")
        logs = {name: mock.calls for name, mock in self._mocks.items()}
        summary = self._duck.costs("all")
        for name, calls in logs.items():
            (owed_tokens, owed), (tokens, cost) = bill(calls), booked(summary, name)
            log, ledger = f"{owed_tokens:4} tokens, {money(owed):>9}", f"{tokens:4}, {money(cost):>9}"
            self._say("note", f"{name:<5}  its log: {log}   ledger: {ledger}")
        self._faults += wrong_answers(self._asked, len(self._answers), logs.values())
        self._faults += wrong_books(summary, logs)
        if not self._faults:
            total = money(summary.cost)
            self._say("good", f"{self._asked} questions, each answered once; the ledger equals the log. {total}")


def bill(calls: Iterable[MockCall]) -> tuple[int, Decimal]:
    """What a provider's own log adds up to: tokens, and USD."""
    used = [call.usage for call in calls if call.usage is not None]
    cost = sum((usage.prompt_tokens * INPUT_USD + usage.completion_tokens * OUTPUT_USD for usage in used), Decimal(0))
    return sum(usage.total_tokens for usage in used), cost / MILLION


def booked(summary: Summary, provider: str) -> tuple[int, Decimal]:
    """What the ledger says of a provider: tokens, and USD."""
    share = summary.by_model.get((provider, MODEL))
    return (share.tokens, share.cost) if share else (0, Decimal(0))


def wrong_books(summary: Summary, logs: Mapping[str, Iterable[MockCall]]) -> list[str]:
    """Where the ledger and a provider's own log differ, to the last digit."""
    found = [
        f"the ledger says (tokens, USD) {booked(summary, name)} of {name}, its log {bill(calls)}"
        for name, calls in logs.items()
        if booked(summary, name) != bill(calls)
    ]
    if summary.unknown or summary.uncertain:
        found.append(f"the ledger has {summary.unknown} attempts without a cost, {summary.uncertain} USD uncertain")
    return found


def wrong_answers(asked: int, answered: int, logs: Iterable[Iterable[MockCall]]) -> list[str]:
    """What speaks against "each question was answered once": by us, and at the providers."""
    found: list[str] = []
    if answered != asked:
        found.append(f"{asked} questions, {answered} answers")
    times: dict[str, int] = {}
    for call in (call for log in logs for call in log if call.outcome == "success"):
        if isinstance(call.request, Request):
            times[call.request.messages[-1].text] = times.get(call.request.messages[-1].text, 0) + 1
    found += [
        f"{question!r} was answered {count} times by providers" for question, count in times.items() if count != 1
    ]
    if len(times) != answered:
        found.append(f"providers answered {len(times)} questions, callers got {answered} answers")
    return found
