"""One accepted question, and the record of what was done for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from rubberduck.core.limiter import Amounts, Klass
from rubberduck.core.score import Choice
from rubberduck.stream import Pipe
from rubberduck.types import Attempt, Request

if TYPE_CHECKING:
    from rubberduck.actors.attempts import AttemptRun

ONE_REQUEST = Amounts()


@dataclass(frozen=True, slots=True)
class Trace:
    """Why a call went the way it did: each choice with every term of its scores, the waits, the attempts."""

    request_id: str
    queue_wait: float
    choices: tuple[Choice, ...]
    attempts: tuple[Attempt, ...]

    def as_dict(self) -> dict[str, Any]:
        """All of it as plain data."""
        return {
            "request_id": self.request_id,
            "queue_wait": self.queue_wait,
            "choices": [choice.trace() for choice in self.choices],
            "attempts": list(self.attempts),
        }


@dataclass(slots=True)
class Call:
    """One accepted question. Times are the system clock's seconds.

    `amounts` is the most that one attempt takes. `begun` counts the attempts that were begun, refused ones
    included. `pipe` leads to the reader of a stream, once a part of the answer has come. `out` are the attempts under
    way, or the last ones: two where one was hedged. `replayable` False: to send it twice could do something twice.
    Once the call `is_lost`, its task has been left behind on a loop that is blocked, and others have ended the call:
    whatever that task still does counts for nothing.
    """

    id: str
    request: Request
    is_stream: bool
    klass: Klass
    accepted_at: float
    deadline: float
    providers: tuple[str, ...] | None = None
    tenant: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    amounts: Amounts = ONE_REQUEST
    queue_wait: float = 0.0
    begun: int = 0
    attempts: list[Attempt] = field(default_factory=list)
    choices: list[Choice] = field(default_factory=list)
    pipe: Pipe | None = None
    out: list[AttemptRun] = field(default_factory=list)
    replayable: bool = True
    is_lost: bool = False

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

    def trace(self) -> Trace:
        return Trace(self.id, self.queue_wait, tuple(self.choices), tuple(self.attempts))
