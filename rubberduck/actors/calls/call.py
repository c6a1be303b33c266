"""One accepted question, and the record of what was done for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import TYPE_CHECKING

from rubberduck.actors.calls.trace import Step, Trace, doing
from rubberduck.core.limiter import Amounts, Klass
from rubberduck.core.release import StreamPolicy
from rubberduck.providers.base import Kind
from rubberduck.stream import Pipe
from rubberduck.types import Attempt, EmbeddingRequest, Embeddings, Request, Response, TokenCount

if TYPE_CHECKING:
    from rubberduck.actors.calls.attempts import AttemptRun
    from rubberduck.actors.calls.budgets import Money
    from rubberduck.actors.calls.flights import Flight
    from rubberduck.actors.calls.output import Output

Asked = Request | EmbeddingRequest
Given = Response | Embeddings | TokenCount
"""What calls ask, and what they are given; `Call.kind` says which of it."""

CHAT: Kind = "chat"
EMBEDDINGS: Kind = "embeddings"
COUNT: Kind = "count"

ONE_REQUEST = Amounts()
HAND_ON = StreamPolicy()


@dataclass(slots=True)
class Call:
    """One accepted question. Times are the system clock's seconds.

    `amounts` is the most that one attempt takes. `begun` counts the attempts that were begun, refused ones
    included. `pipe` leads to the reader of a stream, once a part of the answer has come. `out` are the attempts under
    way, or the last ones: two where one was hedged. `steps` are what was decided and attempted, and when; `place` is
    how many waited before it in the queue. `replayable` False: to send it twice could do something twice.
    `max_cost` is the most that all its attempts may cost together, in USD; `money` counts it, None if nothing bounds
    it.
    `policy` is what becomes of a stream that breaks; `continues` says that another attempt may go on where this one
    breaks off, and `spliced` that one has. A call that `is_flight` is made for several others that `may_share`, and is
    their `flight`; one that `is_second` has lost such a flight already.
    `kind` is what is asked for; of an answer that is wanted as a value of a type, `output` reads that value.
    A call that takes several requests side by side has `parts`: calls of the same id, each for one of them, which know
    their `whole`, and whose attempts are its own.
    Once the call `is_lost`, its task has been left behind on a loop that is blocked, and others have ended the call:
    whatever that task still does counts for nothing.
    """

    id: str
    request: Asked
    is_stream: bool
    klass: Klass
    accepted_at: float
    deadline: float
    providers: tuple[str, ...] | None = None
    tenant: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    amounts: Amounts = ONE_REQUEST
    queue_wait: float | None = None
    place: int | None = None
    session: str | None = None
    begun: int = 0
    attempts: list[Attempt] = field(default_factory=list)
    steps: list[tuple[float, Step]] = field(default_factory=list)
    pipe: Pipe | None = None
    out: list[AttemptRun] = field(default_factory=list)
    replayable: bool = True
    max_cost: Decimal | None = None
    money: Money | None = None
    policy: StreamPolicy = HAND_ON
    continues: bool = False
    spliced: bool = False
    may_share: bool = True
    is_flight: bool = False
    is_second: bool = False
    flight: Flight | None = None
    is_lost: bool = False
    kind: Kind = CHAT
    output: Output | None = None
    whole: Call | None = None
    parts: list[Call] = field(default_factory=list)

    def part(self, request: Asked) -> Call:
        """One request of several. Its end is reported to nobody but who has made it, with `leave`."""
        part = replace(self, request=request, attempts=[], out=[], parts=[], whole=self)
        self.parts.append(part)
        part.is_lost = self.is_lost  # again, for who loses the call on another thread may just have looked at the parts
        return part

    def leave(self, part: Call) -> None:
        """A part has ended."""
        self.parts.remove(part)
        part.out = []  # they know the part: a circle, which only the garbage collector would find

    def number_attempt(self) -> int:
        """The next number, of the call and all its parts."""
        whole = self.whole or self
        whole.begun += 1
        return whole.begun

    def note(self, attempt: Attempt) -> None:
        """An attempt has ended."""
        self.attempts.append(attempt)
        if self.whole is not None:
            self.whole.attempts.append(attempt)

    def prolong(self, deadline: float) -> None:
        """It has time until `deadline`, if that is later."""
        for each in (self, *self.parts):
            each.deadline = max(each.deadline, deadline)

    def lose(self) -> list[AttemptRun]:
        """Its task has been left behind. The attempts under way, or the last ones. On any thread."""
        self.is_lost = True
        parts = list(self.parts)
        for part in parts:
            part.is_lost = True
        return [run for each in (self, *parts) for run in each.out]

    @property
    def delivered(self) -> bool:
        """Whether the caller has seen a part of the answer."""
        return self.pipe is not None

    @property
    def spent(self) -> Decimal | None:
        """What all attempts so far have cost, in USD; None where one of them leaves it open."""
        total = Decimal(0)
        for attempt in self.attempts:
            if attempt.cost is None:
                return None
            total += attempt.cost
        return total

    def trace(self, now: float, outcome: str | None = None) -> Trace:
        """Why it went, or goes, the way it does; `outcome` None: it runs."""
        sent = self if self.flight is None else self.flight.call
        steps = tuple(sent.steps)
        waited = sent.queue_wait
        return Trace(
            request_id=self.id,
            model=self.request.model,
            priority=self.klass,
            tenant=self.tenant,
            accepted_at=self.accepted_at,
            looked_at=now,
            ended_after=None if outcome is None else now - self.accepted_at,
            outcome=outcome or doing(steps, waited),
            queue_wait=now - self.accepted_at if waited is None else waited,
            place=sent.place,
            steps=steps,
            attempts=tuple(self.attempts),
            spent=self.spent,
            spliced=sent.spliced,
            flight=None if sent is self else sent.id,
        )
