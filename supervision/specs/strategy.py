"""What a supervisor does when a child ends: the words for it, and the options that choose among them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Self

from supervision.errors import SpecError
from supervision.exits import Reason, is_orderly
from supervision.specs import validation


class Strategy(StrEnum):
    """Which siblings are restarted along with a failed child."""

    ONE_FOR_ONE = "one_for_one"
    REST_FOR_ONE = "rest_for_one"
    ONE_FOR_ALL = "one_for_all"


class Restart(StrEnum):
    """After which ends a child is started again."""

    PERMANENT = "permanent"
    TRANSIENT = "transient"
    TEMPORARY = "temporary"

    def follows(self, reason: Reason) -> bool:
        """True if an end for `reason` is followed by a restart."""
        return self is Restart.PERMANENT or (self is Restart.TRANSIENT and not is_orderly(reason))


class AutoShutdown(StrEnum):
    """Whether a supervisor ends by itself when its significant children have."""

    NEVER = "never"
    ANY_SIGNIFICANT = "any_significant"
    ALL_SIGNIFICANT = "all_significant"


class ExhaustedWord(StrEnum):
    """What exhausted restarts lead to, where no number is needed to say it."""

    ESCALATE = "escalate"
    DROP_CHILD = "drop_child"


ESCALATE = ExhaustedWord.ESCALATE
DROP_CHILD = ExhaustedWord.DROP_CHILD


@dataclass(frozen=True, slots=True)
class Pause:
    """When restarts are exhausted, wait `delay` to 1.5 times `delay` seconds, forget them, and try again."""

    delay: float

    def seconds(self, rand: float) -> float:
        """One wait; `rand` is drawn from [0, 1)."""
        return self.delay * (1 + rand * 0.5)


OnExhausted = ExhaustedWord | Pause


def pause(delay: float | str) -> Pause:
    """Exhausted restarts are followed by a rest of `delay`: seconds, or text such as "1s"."""
    return Pause(validation.duration(delay, "pause(delay)", positive=True))


def on_exhausted_of(value: Any, where: str) -> OnExhausted:
    """`value` as one of ESCALATE, DROP_CHILD and pause(delay)."""
    if isinstance(value, Pause):
        return value
    try:
        return ExhaustedWord(value)
    except ValueError:
        raise SpecError(f"{where}: {value!r} is not ESCALATE, DROP_CHILD or pause(delay)") from None


@validation.shown_by_fields
@dataclass(frozen=True, slots=True, kw_only=True)
class SupervisorOptions:
    """How one supervisor treats its children: at most `max_restarts` in `max_seconds`, then `on_exhausted`."""

    strategy: Strategy = Strategy.ONE_FOR_ONE
    max_restarts: int = 3
    max_seconds: float = 5.0
    auto_shutdown: AutoShutdown = AutoShutdown.NEVER
    on_exhausted: OnExhausted = ESCALATE

    def __new__(cls, *args: Any, **fields: Any) -> Self:
        """Refuse unknown options by name before `__init__` could only say TypeError."""
        validation.known_fields(cls, args, fields, "supervisor options", positional=0)
        return object.__new__(cls)

    def __post_init__(self) -> None:
        checked = {
            "strategy": validation.member(Strategy, self.strategy, "supervisor option strategy"),
            "max_restarts": validation.count(self.max_restarts, "supervisor option max_restarts"),
            "max_seconds": validation.seconds(self.max_seconds, "supervisor option max_seconds", positive=True),
            "auto_shutdown": validation.member(AutoShutdown, self.auto_shutdown, "supervisor option auto_shutdown"),
            "on_exhausted": on_exhausted_of(self.on_exhausted, "supervisor option on_exhausted"),
        }
        for name, value in checked.items():
            object.__setattr__(self, name, value)
        if self.on_exhausted is DROP_CHILD and self.strategy is not Strategy.ONE_FOR_ONE:
            raise SpecError(f"supervisor option on_exhausted: drop_child needs one_for_one, not {self.strategy}")
