"""What may become of a durable job: accepted once, delivered until it has ended, never lost.

    ready ──▶ leased ──▶ done     answered: the result is kept
      ▲          ├─────▶ dead     it failed, was given up, or may not be sent again: the error is kept
      └──────────┘                its lease lapsed, or its owner stopped, and it may be delivered again

A lease names its delivery. Whoever comes back after his lease has lapsed and been taken by another changes nothing.
Whether an interrupted job may be delivered again is decided by what its last delivery is known to have done:

| the last delivery        | at_most_once (default) | at_least_once |
|---|---|---|
| sent nothing             | again                  | again         |
| may have been executed   | dead: CallInterrupted  | again         |
| was answered in part     | dead: CallInterrupted  | dead          |

After `max_deliveries` it is dead in any case: what kills its worker each time must not do so for ever. A delivery that
was turned away before anything was sent, as by a full queue or open circuits, is no such failure: it is not counted,
and the job waits until `ready_at`.

Source: leases and dead letters as in Amazon SQS, "Dead-letter queues"; a claim by one statement as in procrastinate,
sql/schema.sql.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from rubberduck.core.ledger import State as Entry


class JobState(StrEnum):
    """Where a job stands; see the drawing above."""

    READY = "ready"
    LEASED = "leased"
    DONE = "done"
    DEAD = "dead"


class Safety(StrEnum):
    """Whether a job that may have been executed may be sent again."""

    AT_MOST_ONCE = "at_most_once"
    AT_LEAST_ONCE = "at_least_once"


class Sent(StrEnum):
    """What an interrupted delivery is known to have done."""

    NOTHING = "not_sent"
    PERHAPS = "uncertain"
    OUTPUT = "after_output"


@dataclass(frozen=True, slots=True)
class Job:
    """One piece of durable work. `request` and `options` are JSON, `outcome` too: a response, or an error.

    `key` is the submitter's: a second job of the same tenant with the same key is the first one. `lease_until` is
    aware. `deliveries` counts those begun, `turned_away` those of them that ended before anything could be sent.
    """

    id: str
    request: str
    options: str
    submitted_at: datetime
    tenant: str = ""
    key: str | None = None
    safety: Safety = Safety.AT_MOST_ONCE
    state: JobState = JobState.READY
    deliveries: int = 0
    turned_away: int = 0
    ready_at: datetime | None = None
    leased_at: datetime | None = None
    lease_until: datetime | None = None
    outcome: str | None = None

    @property
    def delivery(self) -> str:
        """The id of the last delivery, which is that of its call."""
        return f"{self.id}.{self.deliveries}"

    @property
    def has_ended(self) -> bool:
        return self.state in (JobState.DONE, JobState.DEAD)

    def __str__(self) -> str:
        parts = [f"job {self.id}: {self.state}"]
        if self.key is not None:
            parts.append(f"key {self.key!r}")
        if self.deliveries:
            parts.append(f"delivery {self.deliveries}")
        if self.turned_away:
            parts.append(f"turned away {self.turned_away} times" if self.turned_away > 1 else "turned away once")
        if self.deliveries and self.state is JobState.READY and self.ready_at is not None:
            parts.append(f"again at {self.ready_at:%Y-%m-%d %H:%M:%S} UTC")
        return ", ".join(parts)


def sent_by(entries: Iterable[Entry]) -> Sent:
    """What a delivery has done, by what the ledger says of its attempts.

    An entry that is settled was answered, and the answer is lost: to the submitter that is as good as uncertain.
    """
    return Sent.NOTHING if all(entry is Entry.VOID for entry in entries) else Sent.PERHAPS


def may_be_delivered_again(job: Job, sent: Sent, max_deliveries: int) -> bool:
    """The table above: whether an interrupted job becomes ready again, or is dead."""
    if job.deliveries - job.turned_away >= max_deliveries or sent is Sent.OUTPUT:
        return False
    return sent is Sent.NOTHING or job.safety is Safety.AT_LEAST_ONCE
